"""A page that shows what runs found: `data` gathers numbers, `patterns` attention, and `html`
writes it as one file.
"""

"""A page that shows what runs found: `data` gathers numbers, `patterns` attention to look at, `html` writes one file."""

"""Head types, one file each, and what runs them.

A file whose name does not begin with `_` holds one frozen value, HEAD_TYPE (`_head_type.py`): its
prompts, where such heads look, its headline statistic, its null, its source and what misleads.
Adding a file adds a head type; nothing else has to be told.
"""

"""What runs inside a trace, and the whole of what is shipped to a server: torch and nnsight alone.

Plain dicts and tensors come in, small tensors go out; no label appears here.
"""

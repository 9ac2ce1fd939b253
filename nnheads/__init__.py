"""nnheads: which attention heads do this, and how sure are we?"""

__version__ = "0.1.0"

"""Read and write lists of heads in other tools' files, each with where it came from."""

from __future__ import annotations

from nnheads.interchange.read import read_heads
from nnheads.interchange.write import write_heads

__all__ = ["read_heads", "write_heads"]

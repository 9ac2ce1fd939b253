"""One forward for many rows, or halves of it where memory runs out.

Shipped to remote servers as source: torch only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from nnheads.trace.plain import Chunk


def in_halves(run: Callable[..., torch.Tensor], chunk: Chunk, *args: Any) -> torch.Tensor:
    """Return `run(*args, chunk)` [row, ...], or that of its halves where memory runs out.

    A single row that does not fit fails as it did.
    """
    start, layer, first, last = chunk
    try:
        return run(*args, chunk)
    except (RuntimeError, MemoryError) as error:
        if last - first == 1 or not out_of_memory(error):
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    middle = (first + last) // 2
    halves = ((start, layer, first, middle), (start, layer, middle, last))
    return torch.cat([in_halves(run, half, *args) for half in halves])


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error is the accelerator's way, or the CPU's, of saying so."""
    text = str(error).lower()
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "allocate memory" in text

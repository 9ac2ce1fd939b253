"""Tokens and the characters that they stand for."""

from __future__ import annotations


def covering(offsets: list[tuple[int, int]], start: int, stop: int) -> list[int]:
    """Return the tokens that hold any of these characters."""
    return [i for i, (low, high) in enumerate(offsets) if low < stop and high > start]

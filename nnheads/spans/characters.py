"""Tokens and the characters that they stand for."""

from __future__ import annotations

from nnheads.errors import BadInput


def encode(tokenizer, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Return token ids, and the characters that each one stands for."""
    if not getattr(tokenizer, "is_fast", False):
        raise BadInput(
            "this tokenizer does not say where its tokens are in the text; a fast one"
            " (tokenizer.json) does"
        )
    encoded = tokenizer(text, return_offsets_mapping=True)
    return encoded["input_ids"], encoded["offset_mapping"]


def covering(offsets: list[tuple[int, int]], start: int, stop: int) -> list[int]:
    """Return the tokens that hold any of these characters."""
    return [i for i, (low, high) in enumerate(offsets) if low < stop and high > start]

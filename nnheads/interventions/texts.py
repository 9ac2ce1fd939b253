"""Texts and rows of token ids as prompts: token and mask (batch, position), padded on the left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from nnheads.errors import BadInput
from nnheads.models.texts import encode_all
from nnheads.spans.layout import pad_left

DIMS = ("batch", "position")


def padded(tokenizer: Any, rows: Sequence[list[int]], dtype: type = np.int64) -> xr.Dataset:
    """Return token ids of prompts as a dataset (batch, position), padded on the left."""
    token, mask, _ = pad_left(list(rows), tokenizer.pad_token_id or 0)
    return xr.Dataset({"token": (DIMS, token.astype(dtype)), "mask": (DIMS, mask)})


def read_texts(tokenizer: Any, texts: Sequence[str]) -> xr.Dataset:
    """Return plain texts as prompts (batch, position), padded on the left.

    Raises:
        BadInput: no texts, or a text without tokens.
    """
    rows = encode_all(tokenizer, texts)
    if not rows:
        raise BadInput("got no texts; give at least one")
    empty = [number for number, row in enumerate(rows) if not row]
    if empty:
        raise BadInput(f"text {empty[0] + 1} has no tokens; expected some text")
    return padded(tokenizer, rows).assign_coords(batch=range(len(rows)))


def continuations(model: Any, rows: list[list[int]], lengths: Sequence[int]) -> xr.Dataset:
    """Return token ids of whole texts, of which the first `lengths` are the prompt.

    Returns:
        token, mask (batch, position) and `prompt_length` (batch), as `likelihood.compare` takes
        them.
    """
    coordinates = {"batch": range(len(rows)), "prompt_length": ("batch", np.asarray(lengths))}
    return padded(model.tokenizer, rows).assign_coords(coordinates)


def in_halves(model: Any, texts: Sequence[str]) -> xr.Dataset:
    """Return texts of which the first half of the tokens is the prompt; the rest follows.

    Raises:
        BadInput: a text with fewer than two tokens.
    """
    rows = encode_all(model.tokenizer, texts)
    short = [text for text, row in zip(texts, rows) if len(row) < 2]
    if short:
        raise BadInput(
            f"{short[0]!r} has fewer than two tokens; expected a text that can be split in halves"
        )
    return continuations(model, rows, [len(row) // 2 for row in rows])

"""Texts as padded tokens, and whether a tokenizer knows the words of a text."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from nnheads.models.texts import encode
from nnheads.spans.layout import pad_left

MASK = {"long_name": "1 where there is a token, 0 where there is padding"}
Variables = dict[str, tuple]


def has_unknown(tokenizer, text: str) -> bool:
    """Return whether a text has words that are unknown to the tokenizer."""
    unknown = getattr(tokenizer, "unk_token_id", None)
    return unknown is not None and unknown in encode(tokenizer, text)


def token_variables(rows: list[list[int]], tokenizer) -> tuple[Variables, np.ndarray]:
    """Return `token` and `mask` (batch, position), padded on the left, and each row's shift."""
    token, mask, shift = pad_left(rows, tokenizer.pad_token_id or 0)
    place = ("batch", "position")
    about = {"long_name": "token ids"}
    return {"token": (place, token.astype(np.int32), about), "mask": (place, mask, MASK)}, shift


def step_variables(
    ask: Int[np.ndarray, "batch step"],
    target: Int[np.ndarray, "batch step"],
    asked: str,
    wanted: str,
) -> Variables:
    """Return `ask` and `target` (batch, step): where a token is predicted, and which one.

    Args:
        asked, wanted: what they are, in words.
    """
    dims = ("batch", "step")
    return {
        "ask": (dims, ask.astype(np.int32), {"long_name": asked}),
        "target": (dims, target.astype(np.int32), {"long_name": wanted}),
    }


def following(
    token: Int[np.ndarray, "batch position"], ask: Int[np.ndarray, "batch step"]
) -> Int[np.ndarray, "batch step"]:
    """Return the token after each position that asks; -1 where that is -1."""
    after = np.take_along_axis(token, np.maximum(ask, 0) + 1, 1)
    return np.where(ask < 0, -1, after)

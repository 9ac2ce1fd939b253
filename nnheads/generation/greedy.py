"""Greedy continuations of prompts, and where they end."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from nnsight import save

from nnheads.models.inputs import inputs
from nnheads.trace.session import remote_of


def generate(model, prompts: xr.Dataset, new_tokens: int) -> np.ndarray:
    """Return greedy continuations [batch, new_tokens] of token (batch, position).

    -1 stands from the end of a text on.
    """
    text: dict = dict(inputs(model, prompts))
    text.pop("position_ids", None)  # generation derives them from the mask, step by step
    options = {"max_new_tokens": new_tokens, "do_sample": False, "remote": remote_of(model)}
    with torch.no_grad(), model.generate(**text, **options) as tracer:
        ids = save(tracer.result.clone())
    written = ids.cpu().numpy()[:, prompts.sizes["position"] :]
    written = np.pad(written, ((0, 0), (0, new_tokens - written.shape[1])), constant_values=-1)
    ended = np.isin(written, ends_of(model)).cumsum(1) > 0
    return np.where(ended, -1, written)


def ends_of(model) -> list[int]:
    """Return the tokens that end a text.

    Chat models name more of them for generation than in their configuration.
    """
    tokens: list[int] = []
    for settings in (model.config, getattr(model, "generation_config", None)):
        ends = getattr(settings, "eos_token_id", None)
        tokens += [] if ends is None else ends if isinstance(ends, (list, tuple)) else [ends]
    return tokens


def holds_line_break(model, tokens: np.ndarray) -> np.ndarray:
    """Return which of these tokens, of any shape and -1 for none, hold a line break."""
    different, where = np.unique(tokens, return_inverse=True)
    broken = [token >= 0 and "\n" in model.tokenizer.decode([int(token)]) for token in different]
    return np.array(broken)[where].reshape(tokens.shape)


def first_line(model, written: np.ndarray) -> np.ndarray:
    """Return what is written [batch, step] up to the first token with a line break; -1 after it."""
    broken = holds_line_break(model, written).astype(int)
    return np.where(broken.cumsum(1) > broken, -1, written)

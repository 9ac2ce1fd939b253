"""Let a model write: greedy continuation of prompt datasets."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from nnsight import save

from nnheads.label import inputs


def generate(model, prompts: xr.Dataset, new_tokens: int, *, remote: bool | str = False) -> np.ndarray:
    """Greedy continuations [batch, new_tokens] of token (batch, position), -1 after the end of a text."""
    fed = inputs(model, prompts)
    fed.pop("position_ids", None)  # generation derives them from the mask, step by step
    with (
        torch.no_grad(),
        model.generate(**fed, max_new_tokens=new_tokens, do_sample=False, remote=remote) as tracer,
    ):
        ids = save(tracer.result.clone())
    written = ids.cpu().numpy()[:, prompts.sizes["position"] :]
    written = np.pad(written, ((0, 0), (0, new_tokens - written.shape[1])), constant_values=-1)
    ended = np.isin(written, _ends(model)).cumsum(1) > 0
    return np.where(ended, -1, written)


def _ends(model) -> list[int]:
    """Tokens that end a text."""
    ends = getattr(model.config, "eos_token_id", None)
    return [] if ends is None else list(ends) if isinstance(ends, (list, tuple)) else [ends]

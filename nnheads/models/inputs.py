"""The only crossing between tensors and labelled datasets, in both directions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr

from nnheads.errors import BadInput
from nnheads.models.families import family

if TYPE_CHECKING:
    from nnsight import TransformersModel


def inputs(
    model: TransformersModel, prompts: xr.Dataset, token: str = "token"
) -> dict[str, torch.Tensor]:
    """What a trace is fed: ids, mask and positions of a prompt dataset with dims (batch, position).

    Positions count from each row's first real token, so padding on the left moves no number.
    """
    ids = torch.from_numpy(np.ascontiguousarray(prompts[token].values)).long()
    mask = torch.from_numpy(np.ascontiguousarray(prompts["mask"].values)).long()
    check_tokens(prompts[token].values, model.config.vocab_size)
    check_length(int(mask.sum(-1).max()), model.config)
    fed = {"input_ids": ids, "attention_mask": mask}
    if family(model).position_ids:
        fed["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    return fed


def check_tokens(ids: np.ndarray, vocabulary: int) -> None:
    """Refuse ids outside the vocabulary: an embedding lookup would fail far from the cause."""
    if ids.size == 0:
        raise BadInput("there are no prompts to run")
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= vocabulary:
        raise BadInput(
            f"token {high if high >= vocabulary else low} lies outside the vocabulary of"
            f" {vocabulary}"
        )


def check_length(length: int, config) -> None:
    """Refuse more tokens than a model has positions for: it would fail far from the cause, or
    answer nonsense.
    """
    limit = getattr(config, "max_position_embeddings", None)
    if limit and length > limit:
        raise BadInput(f"the text has {length} tokens; this model reads at most {limit}")

"""Turn prompts into what a trace runs: datasets in, tensors out.

    with model.trace(**inputs(model, prompts)):
        ...

This is the way in to the tensors; `labels` is the way out. Tokens and lengths that a model cannot
read are BadInput.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr

from nnheads.errors import BadInput, TooLong
from nnheads.models.families import family
from nnheads.trace.plain import Inputs

if TYPE_CHECKING:
    from nnsight import TransformersModel
    from transformers import PretrainedConfig


def inputs(model: TransformersModel, prompts: xr.Dataset, token: str = "token") -> Inputs:
    """Return the ids, mask and positions of prompts, as a model's forward takes them.

    Positions count from each row's first real token, so padding on the left moves no number. Any
    id does where it is masked: a padding token that was added to the tokenizer may lie outside the
    vocabulary of the model, and is run as 0.

    Args:
        prompts: `mask` and the variable that `token` names (batch, position).
        token: which text to run, "token" (clean) or "corrupted".

    Returns:
        `input_ids`, `attention_mask` and, for families that take them, `position_ids`: int64
        [batch, position].

    Raises:
        BadInput: no prompts, tokens outside the vocabulary, or more tokens than the model reads.
    """
    ids = torch.from_numpy(np.ascontiguousarray(prompts[token].values)).long()
    mask = torch.from_numpy(np.ascontiguousarray(prompts["mask"].values)).long()
    ids = ids * mask
    check_tokens(ids.numpy(), model.config.get_text_config().vocab_size)
    check_length(int(mask.sum(-1).max()), model.config)
    fed = {"input_ids": ids, "attention_mask": mask}
    if family(model).position_ids:
        fed["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    return fed


def positions_by_length(config: PretrainedConfig) -> bool:
    """Return whether how a position is encoded depends on how long the whole text is."""
    text = config.get_text_config()
    settings = (getattr(text, name, "") for name in ("rope_parameters", "rope_scaling"))
    rope = " ".join(map(str, settings))
    return "longrope" in rope or "dynamic" in rope


def without_padding(prompts: xr.Dataset) -> xr.Dataset:
    """Drop positions at which no row has a token; numbers of positions stay as they were."""
    return prompts.isel(position=prompts["mask"].values.any(0))


def real_tokens(prompts: xr.Dataset) -> np.ndarray:
    """Return the ids of all tokens that are not padding."""
    ids: np.ndarray = prompts["token"].values[prompts["mask"].values.astype(bool)]
    return ids


def fill_token(model: TransformersModel) -> int:
    """Return an id to fill up rows with: the padding token, if the model has it, else 0."""
    pad = model.tokenizer.pad_token_id or 0
    return pad if pad < model.config.get_text_config().vocab_size else 0


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


def check_length(length: int, config: PretrainedConfig) -> None:
    """Refuse more tokens than a model has positions for: it would fail far from the cause."""
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    if limit and length > limit:
        raise TooLong(f"the text has {length} tokens; this model reads at most {limit}")

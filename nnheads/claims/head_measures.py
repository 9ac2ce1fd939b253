"""Measures of claims about what heads look at and write, in the model or in a published list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xarray as xr

from nnheads.claims.setting import Setting, Unavailable, pairs_of
from nnheads.errors import BadInput


def detected(model, setting: Setting, type: str, limit: int = 16, **stimulus: Any) -> xr.Dataset:
    """Return what a detector finds, with options of its prompts such as `length`."""
    from nnheads.detectors._detect import detect

    heads = detect(
        model,
        type,
        n=limit,
        seed=setting.seed,
        batch_size=setting.batch_size,
        quiet=setting.quiet,
        **stimulus,
    )
    if isinstance(heads, dict):
        raise BadInput(f"a claim is about one head type, not about {type!r}")
    return heads


def attributions(
    model, setting: Setting, pairs: list | None = None, limit: int | None = None
) -> xr.Dataset:
    """Return the direct `attribution` of every head to the logit difference."""
    from nnheads.writing.logit_attribution import direct_logit_attribution

    prompts = pairs_of(model, setting, pairs, limit)
    return direct_logit_attribution(model, prompts)[["attribution"]].mean("batch")


def copying(model, setting: Setting, top: int = 5) -> xr.Dataset:
    """Return the copy score of every head for names, `copy` and `negative`."""
    from nnheads.writing.copy_score import copy_scores

    return copy_scores(model, top=top)


def published_list(model, setting: Setting, name: str) -> xr.Dataset:
    """Return the `score` of every head of a published file, and the share of heads `listed`."""
    from nnheads.interchange.read import read_heads

    if setting.files is None or not (setting.files / Path(name).name).exists():
        raise Unavailable(f"{name} is not here; name its folder with --files")
    heads = read_heads(setting.files / Path(name).name)
    known = heads["rank"] if "rank" in heads else heads["score"]
    return heads[["score"]].assign(listed=known.notnull().mean())

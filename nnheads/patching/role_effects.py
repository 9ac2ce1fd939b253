"""Measure what role_table asks of a model: looks, effects, and effects through the writers.

Each takes prompts and returns labelled values of every case; nothing is reduced or judged here.
Source: Wang et al. 2022, arXiv 2211.00593.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from nnheads.models.geometry import geometry
from nnheads.patching.head_sets import Head, by_head
from nnheads.patching.patch import patch
from nnheads.patching.path_patching import path_patch
from nnheads.spans.measure import measure


def looks_and_effects(model, prompts: xr.Dataset, *, mlps: str) -> xr.Dataset:
    """Return attention by kind, and what each head changes in all and directly, of each case.

    Returns:
        `mass` (batch, layer, head, kind); `total`, `direct` (batch, layer, head), and `base`
        (batch), the logit difference of the clean run; all in logits but the mass.
    """
    attention = measure(model, prompts, hit=False)["mass"].to_dataset()
    swapped = patch(model, prompts, noising=True)
    direct = path_patch(model, prompts, mlps=mlps)
    base = swapped["clean_logit_difference"]
    effects = {
        "base": base,
        "total": swapped["logit_difference"] - base,
        "direct": direct["change"],
    }
    plain = {name: values.reset_coords(drop=True) for name, values in effects.items()}
    return attention.merge(xr.Dataset(plain))


def through_writers(
    model, prompts: xr.Dataset, *, writers: list[Head], asked: dict[str, list[Head]], mlps: str
) -> xr.Dataset:
    """Return what heads change through the writers, and together with them, of each case.

    asked: `queries` and `alone`, the heads that each is measured for.

    Returns:
        (batch, layer, head), in logits, NaN for other heads: `queries`, what it changes through the
        writers' queries at END, and `further`, together with all that the writers write, beyond
        these alone.
    """
    dims = ("batch", "layer", "head")
    queries = _through_queries(model, prompts, writers, asked["queries"], mlps)
    further = _beyond_writers(model, prompts, writers, asked["alone"])
    data = {"queries": (dims, queries), "further": (dims, further)}
    return xr.Dataset(data, {"batch": prompts["batch"]})


def _through_queries(
    model, prompts: xr.Dataset, writers: list[Head], heads: list[Head], mlps: str
) -> np.ndarray:
    """Return what heads change through the writers' queries at END, [case, layer, head]."""
    sizes = geometry(model)
    changes = np.full((prompts.sizes["batch"], sizes.layers, sizes.heads), np.nan, np.float32)
    highest = max(layer for layer, _ in writers)
    below = [head for head in heads if head[0] < highest]
    if below:
        paths = path_patch(
            model, prompts, receivers=writers, senders=below, via="q", at="END", mlps=mlps
        )
        changes[:] = paths["change"].values
    return changes


def _beyond_writers(
    model, prompts: xr.Dataset, writers: list[Head], others: list[Head]
) -> np.ndarray:
    """Return what heads change once the writers are gone, [case, layer, head]."""
    sizes = geometry(model)
    groups = [writers, *([*writers, head] for head in others)]
    gone = patch(model, prompts, noising=True, groups=groups)["logit_difference"].values
    return by_head(gone[:, 1:] - gone[:, :1], others, (sizes.layers, sizes.heads))

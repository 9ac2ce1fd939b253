"""The edit of inference-time intervention: each chosen head's output is moved along its direction.

z of a head becomes z + alpha * sigma * direction. The result is an intervention like any other: it
can be saved, shared, run, generated with and baked.
Source: Li et al. 2023, arXiv 2306.03341.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr

from nnheads.errors import BadInput
from nnheads.interventions.schema import (
    ALL,
    ANSWER,
    ANSWERING,
    DECODE,
    PROMPT,
    Add,
    At,
    Edit,
    Intervention,
    index,
)
from nnheads.truth.directions import FITTED, as_tensor

SCOPES: dict[str, At] = {
    "all": ALL,
    "answering": ANSWERING,
    "answer": ANSWER,
    "decode": DECODE,
    "prompt": PROMPT,
    "last": index(-1),
}
Head = tuple[int, int]


def edit(
    found: xr.Dataset, heads: Sequence[Head], alpha: float, scope: str = "all"
) -> Intervention:
    """The edit of some heads, as an intervention.

    Args:
        found: `direction` (layer, head, dim), `sigma` (layer, head) and `fitted`, as `directions`
            returns them.
        heads: (layer, head), each once. alpha: strength, in standard deviations; below 0 it moves
            away from truth.
        scope: a key of SCOPES: every position; all from which the answer is predicted, as the paper
            edits while it writes; the answer's tokens, given or written; tokens as they are
            written; the prompt; the last position.

    Raises:
        BadInput: a scope that is not known, no heads, heads named twice or not there, a strength
            that is no number.
    """
    if scope not in SCOPES:
        raise BadInput(f"scope {scope!r} is not known; use one of {', '.join(SCOPES)}")
    if not np.isfinite(alpha):
        raise BadInput(f"strength {alpha} is no number; give how many standard deviations to add")
    if not heads or len(set(heads)) != len(heads):
        raise BadInput(
            f"{len(heads)} heads, {len(set(heads))} of them different, cannot be edited; name each"
            " once"
        )
    layers, count = found.sizes["layer"], found.sizes["head"]
    for layer, head in heads:
        if not (0 <= layer < layers and 0 <= head < count):
            raise BadInput(
                f"L{layer}H{head} has no direction; there are layers 0 to {layers - 1}, heads 0 to"
                f" {count - 1}"
            )
    moves = (found["sigma"] * found["direction"]).transpose("layer", "head", "dim").values
    edits, tensors = [], {}
    for layer in sorted({layer for layer, _ in heads}):
        own = sorted(head for at, head in heads if at == layer)
        name = f"layer {layer}"
        tensors[name] = torch.from_numpy(np.ascontiguousarray(moves[layer, own])).float().flatten()
        edits.append(
            Edit(
                "z", Add(name, scale=float(alpha)), layer=layer, units=tuple(own), at=SCOPES[scope]
            )
        )
    return Intervention(*edits, tensors={**tensors, FITTED: as_tensor(found)})


def ranked(accuracy: xr.DataArray, gap: xr.DataArray) -> list[Head]:
    """All heads (layer, head), those first whose probes are right most often. Of equal ones, those
    whose decisions on true and on false statements lie furthest apart; of these, in the order of
    layers and heads."""
    right, apart = (one.transpose("layer", "head").values for one in (accuracy, gap))
    order = np.lexsort((-apart.ravel(), -right.ravel()))
    return [(int(place) // right.shape[1], int(place) % right.shape[1]) for place in order]


def gap(z: xr.DataArray, weight: xr.DataArray) -> xr.DataArray:
    """How far apart a probe's decisions on true and on false statements lie (layer, head):
    difference of their means, in standard deviations within both.

    Args:
        z: (batch, layer, head, dim) with coordinate `label` (batch). weight: (layer, head, dim).
    """
    decision = xr.dot(z, weight, dim="dim")
    true, false = (decision.isel(batch=z["label"].values == kind) for kind in (1, 0))
    spread = ((true.var("batch") + false.var("batch")) / 2) ** 0.5
    return (true.mean("batch") - false.mean("batch")) / spread.where(spread > 0, 1)


def random_heads(
    layers: int, heads: int, count: int, *, without: Sequence[Head] = (), seed: int = 0
) -> list[Head]:
    """As many heads, drawn from those that were not chosen; where these are too few, from all."""
    every = [(layer, head) for layer in range(layers) for head in range(heads)]
    check_count(count, len(every))
    others = [head for head in every if head not in set(without)]
    pool = others if len(others) >= count else every
    return [
        pool[place]
        for place in sorted(np.random.default_rng(seed).choice(len(pool), count, replace=False))
    ]


def check_count(count: int, heads: int) -> None:
    if not 1 <= count <= heads:
        raise BadInput(f"{count} heads cannot be chosen from {heads}; use 1 to {heads}")


def heads_of(intervention: Intervention) -> list[Head]:
    """The heads whose outputs an intervention edits."""
    return [
        (edit.layer or 0, head)
        for edit in intervention.edits
        if edit.site == "z"
        for head in edit.units or ()
    ]


def rescoped(intervention: Intervention, scope: str) -> Intervention:
    """The same edit at other positions."""
    if scope not in SCOPES:
        raise BadInput(f"scope {scope!r} is not known; use one of {', '.join(SCOPES)}")
    edits = [dataclasses.replace(one, at=SCOPES[scope]) for one in intervention.edits]
    return Intervention(*edits, tensors=intervention.tensors, mode=intervention.mode)

"""The edit of inference-time intervention: each chosen head is moved along its direction.

    change = edit(directions(z, use=fold.train, names=names), heads, alpha=15)

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
from nnheads.interventions.operations import Add
from nnheads.interventions.positions import ALL, ANSWER, ANSWERING, DECODE, PROMPT, At, index
from nnheads.interventions.schema import Edit, Intervention
from nnheads.models.names import head_name
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
    fitted: xr.Dataset, heads: Sequence[Head], alpha: float, scope: str = "all"
) -> Intervention:
    """Return the edit of some heads, as an intervention.

    Args:
        fitted: `direction` (layer, head, dim), `sigma` (layer, head) and `fitted`, as `directions`
            returns them.
        heads: (layer, head), each once.
        alpha: strength, in standard deviations; below 0 it moves away from truth.
        scope: a key of SCOPES: every position; all from which the answer is predicted, as the paper
            edits while it writes; the answer's tokens, given or written; tokens as they are
            written; the prompt; the last position.

    Raises:
        BadInput: a scope that is not known, no heads, heads named twice or not there, a strength
            that is no number.

    Source: Li et al. 2023, arXiv 2306.03341.
    """
    at = at_of(scope)
    if not np.isfinite(alpha):
        raise BadInput(f"strength {alpha} is no number; give how many standard deviations to add")
    _check_heads(heads, fitted.sizes["layer"], fitted.sizes["head"])
    moves = (fitted["sigma"] * fitted["direction"]).transpose("layer", "head", "dim").values
    edits, tensors = [], {FITTED: as_tensor(fitted)}
    for layer in sorted({layer for layer, _ in heads}):
        units = sorted(head for own, head in heads if own == layer)
        name = f"layer {layer}"
        move = np.ascontiguousarray(moves[layer, units])
        tensors[name] = torch.from_numpy(move).float().flatten()
        add = Add(name, scale=float(alpha))
        edits.append(Edit("z", add, layer=layer, units=tuple(units), at=at))
    return Intervention(*edits, tensors=tensors)


def at_of(scope: str) -> At:
    """Return the positions of a scope."""
    if scope not in SCOPES:
        raise BadInput(f"scope {scope!r} is not known; use one of {', '.join(SCOPES)}")
    return SCOPES[scope]


def _check_heads(heads: Sequence[Head], layers: int, units: int) -> None:
    if not heads or len(set(heads)) != len(heads):
        raise BadInput(
            f"{len(heads)} heads, {len(set(heads))} of them different, cannot be edited; name each"
            " once"
        )
    for layer, head in heads:
        if not (0 <= layer < layers and 0 <= head < units):
            raise BadInput(
                f"{head_name(layer, head)} has no direction; there are layers 0 to {layers - 1},"
                f" heads 0 to {units - 1}"
            )


def ordered(accuracy: xr.DataArray, gap: xr.DataArray) -> list[Head]:
    """Return all heads (layer, head), those first whose probes are right most often.

    Of equal ones, those whose decisions on true and on false statements lie furthest apart; of
    these, in the order of layers and heads.

    Args:
        accuracy, gap: (layer, head).
    """
    right, apart = (one.transpose("layer", "head").values for one in (accuracy, gap))
    order = np.lexsort((-apart.ravel(), -right.ravel()))
    return [(int(place) // right.shape[1], int(place) % right.shape[1]) for place in order]


def gap(z: xr.DataArray, weight: xr.DataArray) -> xr.DataArray:
    """Return how far apart a probe's decisions on true and on false statements lie (layer, head).

    It is the difference of their means, in standard deviations within both.

    Args:
        z: (batch, layer, head, dim) with coordinate `label` (batch).
        weight: (layer, head, dim).
    """
    decision = xr.dot(z, weight, dim="dim")
    true, false = (decision.isel(batch=z["label"].values == kind) for kind in (1, 0))
    spread = ((true.var("batch") + false.var("batch")) / 2) ** 0.5
    return (true.mean("batch") - false.mean("batch")) / spread.where(spread > 0, 1)


def random_heads(
    layers: int, heads: int, count: int, *, without: Sequence[Head] = (), seed: int = 0
) -> list[Head]:
    """Return as many heads, drawn from those that were not chosen.

    Where these are too few, they are drawn from all.
    """
    every = [(layer, head) for layer in range(layers) for head in range(heads)]
    check_count(count, len(every))
    chosen = set(without)
    others = [head for head in every if head not in chosen]
    pool = others if len(others) >= count else every
    drawn = np.random.default_rng(seed).choice(len(pool), count, replace=False)
    return [pool[place] for place in sorted(drawn)]


def check_count(count: int, heads: int) -> None:
    """Refuse to choose more heads than there are, or none."""
    if not 1 <= count <= heads:
        raise BadInput(f"{count} heads cannot be chosen from {heads}; use 1 to {heads}")


def heads_of(intervention: Intervention) -> list[Head]:
    """Return the heads whose outputs an intervention edits."""
    heads: list[Head] = []
    for one in intervention.edits:
        if one.site == "z":
            heads += [(one.layer or 0, head) for head in one.units or ()]
    return heads


def rescoped(intervention: Intervention, scope: str) -> Intervention:
    """Return the same edit at other positions.

    Raises:
        BadInput: a scope that is not known.
    """
    at = at_of(scope)
    edits = [dataclasses.replace(one, at=at) for one in intervention.edits]
    return Intervention(*edits, tensors=intervention.tensors, mode=intervention.mode)

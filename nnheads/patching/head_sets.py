"""The metric of a model without sets of heads: what knockouts and interactions are made of.

    scores = without(model, prompts, [[], [(1, 0)], [(1, 0), (2, 4)]], ablation="mean")

Every set is one cell of one sweep, and equal sets run once. How heads are ablated, and what is
read, is said in one place: `Ablating`, the options of `without`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypedDict, Unpack

import numpy as np
import xarray as xr
from jaxtyping import Float

from nnheads.errors import BadInput
from nnheads.models.geometry import geometry
from nnheads.patching.ablate import ablate, filling
from nnheads.patching.cells import check_members
from nnheads.patching.metrics import metric_of
from nnheads.patching.prepared import PreparedSweep, prepare
from nnheads.patching.targets import chosen_cells

Head = tuple[int, int]


class Ablating(TypedDict, total=False):
    """How heads are ablated and what is read, as keywords.

    ablation: a key of `ablation_values.ABLATIONS`: "mean" (default), "zero", "uniform", "resample".
    reference: prompts that means and other values come from; default: the prompts themselves, for
        each of them the others.
    metric: a key of `metrics.METRICS`, or a function of the answers' logits; default:
        "logit_difference".
    at: a role such as "END": ablate only at its position; default: at every position.
    tokens: most rows x positions in one forward; default: what suits the device.
    """

    ablation: str
    reference: xr.Dataset | None
    metric: str | Callable
    at: str | None
    tokens: int | None


def without(
    model,
    prompts: xr.Dataset,
    sets: Sequence[Sequence[Head]],
    *,
    seed: int = 0,
    **ablating: Unpack[Ablating],
) -> xr.Dataset:
    """Return what `ablate` returns for each set of heads, (batch, group) in the order of the sets.

    Args:
        sets: heads (layer, head); an empty set is the intact model.
        seed: of the prompts that "resample" draws.
        ablating: see `Ablating`.

    Raises:
        BadInput: as `ablate`. RunError: logits that are not finite.
    """
    options: dict[str, Any] = {k: v for k, v in ablating.items() if k != "ablation"}
    different, numbers = distinct(sets)
    kind = ablating.get("ablation", "mean")
    scores = ablate(model, prompts, kind, groups=different, seed=seed, **options)
    return scores.isel(group=numbers)


def plan_without(
    model,
    prompts: xr.Dataset,
    sets: Sequence[Sequence[Head]],
    *,
    seed: int = 0,
    **ablating: Unpack[Ablating],
) -> PreparedSweep:
    """Return what `without` runs, for `cost`."""
    kind = ablating.get("ablation", "mean")
    site = "pattern" if kind == "uniform" else "z"
    different, _ = distinct(sets)
    cells, _ = chosen_cells(model, prompts, site, None, different, False, ablating.get("at"))
    values = filling(prompts, kind, ablating.get("reference"), seed)
    metric = metric_of(ablating.get("metric", "logit_difference"))
    return prepare(model, prompts, cells, site=site, full=metric.full, **values)


def by_head(
    values: Float[np.ndarray, "case number"], heads: Sequence[Head], shape: tuple[int, int]
) -> Float[np.ndarray, "case layer head"]:
    """Return the values of some heads on a grid of all heads, NaN for the others.

    shape: how many layers and heads there are.
    """
    grid = np.full((len(values), *shape), np.nan, np.float32)
    layer, head = np.array(heads, int).reshape(-1, 2).T
    grid[:, layer, head] = values
    return grid


def distinct(sets: Sequence[Sequence[Head]]) -> tuple[list[list[Head]], list[int]]:
    """Return the different sets of heads, and which of them each set is."""
    number: dict[frozenset, int] = {}
    numbers = [number.setdefault(frozenset(one), len(number)) for one in sets]
    return [sorted(one) for one in number], numbers


def checked_heads(model, heads: Sequence[Head]) -> list[Head]:
    """Return the heads of a list as plain numbers.

    Raises:
        BadInput: no heads, one that the model does not have, or one that is named twice.
    """
    sizes = geometry(model)
    listed = [(int(layer), int(head)) for layer, head in heads]
    if not listed:
        raise BadInput("No heads to ablate: the list is empty. Name at least one, such as 9.6.")
    check_members([listed], sizes.layers, sizes.heads)
    return listed

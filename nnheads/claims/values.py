"""From a measurement to the one number that a claim is about.

    value = value_of(claim, measured, grids)

A claim about what the measurement does not have is BadInput.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import xarray as xr

from nnheads.claims.claim import ABOVE, OVER_HEADS, Claim, Grid
from nnheads.errors import BadInput
from nnheads.models.names import check_unit
from nnheads.stats import ranked

BOUNDS = ("_low", "_high")
REDUCE: dict[str, Callable[[np.ndarray], float]] = {
    "mean": np.nanmean,
    "min": np.nanmin,
    "max": np.nanmax,
    "sum": np.nansum,
}
Heads = list[tuple[int, int]]


def value_of(claim: Claim, measured: xr.Dataset, grids: Mapping[str, Grid]) -> float:
    """Return the number that a claim is about.

    Args:
        measured: what `measures.measure` returns; variables (layer, head), or numbers.

    Raises:
        BadInput: a variable or head that the measurement does not have, or a question that it
            cannot answer.
    """
    values = _variable(claim, measured)
    if not values.dims:
        return float(values)
    table = _table(claim, values)
    where, heads = claim.where, claim.where["heads"]
    for question in OVER_HEADS:
        if question in where:
            return _among(table, heads, where[question], lowest=question == "among_bottom")
    for question in ABOVE:
        if question in where:
            count = float((table > where[question]).sum())
            return count / table.size if question == "share_above" else count
    if "correlation" in where:
        return _correlation(claim, table, grids[where["correlation"]])
    return _of_heads(claim, table, heads)


def _variable(claim: Claim, measured: xr.Dataset) -> xr.DataArray:
    name = claim.where["variable"]
    if name not in measured:
        known = [str(one) for one in measured.data_vars if not str(one).endswith(BOUNDS)]
        raise BadInput(
            f"claim {claim.id}: {claim.how['measure']} has no {name!r}; it has {', '.join(known)}"
        )
    return measured[name]


def _table(claim: Claim, values: xr.DataArray) -> Grid:
    """Return a variable as [layer, head], with every head that the claim names."""
    if set(values.dims) != {"layer", "head"}:
        dims = ", ".join(map(str, values.dims))
        raise BadInput(
            f"claim {claim.id}: {claim.where['variable']} is by {dims}; expected layer and head"
        )
    table = values.transpose("layer", "head").values.astype(float)
    for layer, head in claim.where["heads"]:
        try:
            check_unit(layer, head, *table.shape)
        except BadInput as error:
            raise BadInput(f"claim {claim.id}: {error}") from None
    return table


def _of_heads(claim: Claim, table: Grid, heads: Heads) -> float:
    """Return the value of one head, or that of some or all heads, reduced."""
    if "reduce" not in claim.where:
        if len(heads) == 1:
            return float(table[heads[0]])
        raise BadInput(
            f"claim {claim.id}: {claim.where['variable']} has a value for every head; name one, or"
            " say how to reduce them"
        )
    chosen = np.array([table[head] for head in heads]) if heads else table
    if not np.isfinite(chosen).any():
        return float("nan")
    return float(REDUCE[claim.where["reduce"]](chosen))


def _among(table: Grid, heads: Heads, count: int, *, lowest: bool) -> float:
    """Return how many of some heads are among the `count` strongest, or weakest."""
    strongest = ranked(table, lowest=lowest)[:count]
    best = {
        (int(layer), int(head)) for layer, head in zip(*np.unravel_index(strongest, table.shape))
    }
    return float(sum(head in best and bool(np.isfinite(table[head])) for head in heads))


def _correlation(claim: Claim, table: Grid, grid: Grid) -> float:
    """Return Pearson's correlation with a published grid; NaN where one of them does not vary."""
    if grid.shape != table.shape:
        raise BadInput(
            f"claim {claim.id}: the grid is of {grid.shape[0]} layers of {grid.shape[1]} heads,"
            f" this model has {table.shape[0]} of {table.shape[1]}"
        )
    known = np.isfinite(table)
    own, published = table[known], grid[known]
    if known.sum() < 3 or np.ptp(own) == 0 or np.ptp(published) == 0:
        return float("nan")
    return float(np.corrcoef(own, published)[0, 1])

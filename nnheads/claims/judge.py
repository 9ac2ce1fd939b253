"""From a run to a claim's number, and from that to a verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import xarray as xr

from nnheads.claims.files import ABOVE, OVER_HEADS, Claim
from nnheads.errors import BadInput
from nnheads.models.names import head_name
from nnheads.stats import ranked

PASS, WARN, FAIL, SKIP = "pass", "warn", "fail", "skip"
VERDICTS = (PASS, WARN, FAIL, SKIP)
REDUCE: dict[str, Callable[[np.ndarray], float]] = {
    "mean": np.nanmean,
    "min": np.nanmin,
    "max": np.nanmax,
    "sum": np.nansum,
}


def verdict(claim: Claim, measured: float) -> str:
    """`pass` within the tolerance, `warn` within the wider one, else `fail`, as is what could not
    be computed.
    """
    gap = measured - claim.published
    off = {"value": abs(gap), "at_least": max(0.0, -gap), "at_most": max(0.0, gap)}[claim.kind]
    if not np.isfinite(measured):
        return FAIL
    slack = 1e-6 * max(1.0, abs(claim.published))  # float32 has no 0.9
    return PASS if off <= claim.tolerance + slack else WARN if off <= claim.warn + slack else FAIL


def unmet(claim: Claim, claims: Mapping[str, Claim], verdicts: Mapping[str, str]) -> str:
    """Why a claim says nothing: what it requires does not pass, or what that requires does not.

    Empty if it does.
    """
    word, chain = PASS, [claim]
    while chain[-1].requires:
        chain.append(claims[chain[-1].requires])
    for needed in reversed(chain[1:]):
        word = verdicts[needed.id] if word == PASS else SKIP
    return "" if word == PASS else f"needs {claim.requires}, which does not pass ({word})"


def reading(claim: Claim, run: xr.Dataset, grids: dict[str, np.ndarray]) -> float:
    """The number that a claim is about.

    Raises:
        BadInput: a variable or head that the run does not have, or a question that it cannot
            answer.
    """
    where, name = claim.where, claim.where["variable"]
    if name not in run:
        known = ", ".join(
            str(one) for one in run.data_vars if not str(one).endswith(("_low", "_high"))
        )
        raise BadInput(f"claim {claim.id}: {claim.how['measure']} has no {name!r}; it has {known}")
    values = run[name]
    if not values.dims:
        return float(values)
    if set(values.dims) != {"layer", "head"}:
        raise BadInput(
            f"claim {claim.id}: {name} is by {', '.join(map(str, values.dims))}; expected layer and"
            " head"
        )
    table = values.transpose("layer", "head").values.astype(float)
    for head in where["heads"]:
        if head[0] >= table.shape[0] or head[1] >= table.shape[1]:
            raise BadInput(f"claim {claim.id}: this model has no head {head_name(*head)}")
    own = np.array([table[head] for head in where["heads"]])
    for question in OVER_HEADS:
        if question in where:
            return _among(table, where["heads"], where[question], question == "among_bottom")
    for question in ABOVE:
        if question in where:
            count = float((table > where[question]).sum())
            return count / table.size if question == "share_above" else count
    if "correlation" in where:
        return _correlation(claim, table, grids[where["correlation"]])
    if len(own) == 1 and "reduce" not in where:
        return float(own[0])
    if "reduce" not in where:
        raise BadInput(
            f"claim {claim.id}: {name} has a value for every head; name one, or say how to reduce"
            " them"
        )
    chosen = own if len(own) else table
    return float(REDUCE[where["reduce"]](chosen)) if np.isfinite(chosen).any() else float("nan")


def _among(table: np.ndarray, heads: list, count: int, lowest: bool) -> float:
    """How many of some heads are among the `count` strongest, or weakest."""
    best = {
        tuple(np.unravel_index(place, table.shape))
        for place in ranked(table, lowest=lowest)[:count]
    }
    return float(sum(tuple(head) in best and bool(np.isfinite(table[head])) for head in heads))


def _correlation(claim: Claim, table: np.ndarray, grid: np.ndarray) -> float:
    if grid.shape != table.shape:
        raise BadInput(
            f"claim {claim.id}: the grid is of {grid.shape[0]} layers of {grid.shape[1]} heads,"
            f" this model has {table.shape[0]} of {table.shape[1]}"
        )
    known = np.isfinite(table)
    if known.sum() < 3 or np.ptp(table[known]) == 0 or np.ptp(grid[known]) == 0:
        return float("nan")
    return float(np.corrcoef(table[known], grid[known])[0, 1])

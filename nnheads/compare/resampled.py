"""What heads score if other prompts had been drawn.

    interval(first, second, seed=0)  # of the rank correlation of two settings

Answers to one question are drawn together. A sample without a prompt that counts scores NaN.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from nnheads.stats import ends, resamples, spearman

CELL = ("layer", "head")
Counts = Float[np.ndarray, "draw prompt"]


def units_of(scores: xr.Dataset) -> Int[np.ndarray, " batch"]:
    """Return the number of what is drawn: a prompt, or a question with all its answers."""
    coordinate = "question" if "question" in scores.coords else "batch"
    known = coordinate in scores.coords
    values = scores[coordinate].values if known else np.arange(scores.sizes["batch"])
    return np.unique(values, return_inverse=True)[1]


def interval(
    first: xr.Dataset, second: xr.Dataset, seed: int, heads: np.ndarray | None = None
) -> tuple[float, float]:
    """Return the ends of the interval of the rank correlation of two sides.

    One prompt has none (NaN).

    Args:
        heads: bool [layer * head], which heads count; default all.
    """
    unit = units_of(first)
    units = int(unit.max()) + 1
    if units < 2:
        return float("nan"), float("nan")
    counts = resamples(units, seed)[:, unit].astype(float)
    chosen = slice(None) if heads is None else heads
    drawn = spearman(headline(first, counts)[:, chosen], headline(second, counts)[:, chosen])
    low, high = ends(drawn, skipna=True)
    return float(low), float(high)


def headline(scores: xr.Dataset, counts: Counts) -> Float[np.ndarray, "draw head"]:
    """Return what `calibrated` ranks heads by, if prompt b came `counts[draw, b]` times.

    Returns:
        [draw, layer * head].
    """
    values = scores[scores.attrs["headline"]].transpose("batch", *CELL).values
    values = values.reshape(scores.sizes["batch"], -1)
    if "counts" in scores.attrs:
        counts = counts * (scores[scores.attrs["counts"]].values == 1)
    if "contrast" not in scores.attrs:
        return _mean(values, counts)
    group = scores[scores.attrs["contrast"]].values.astype(bool)
    return _mean(values, counts * group) - _mean(values, counts * ~group)


def _mean(
    values: Float[np.ndarray, "prompt head"], counts: Counts
) -> Float[np.ndarray, "draw head"]:
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):  # no prompt left: NaN says it
        return (counts @ np.where(known, values, 0.0)) / (counts @ known)

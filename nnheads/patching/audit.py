"""What a screen missed: the heads just below its cut, and a bound on all the others.

    audit(scores, chosen)["missed_most"]

A screen misses most where its estimates are nearly large enough, so the next ones are all patched.
Of the rest a sample is drawn without replacement, so the bound is exact for the number of units
that there are: the largest number of strong units among them that would still leave so few in the
sample with a chance of 5%.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from nnheads.stats import CONFIDENCE, most_in_all, spearman

FOUND, DRAWN, NEXT = 1, 2, 3  # what `screening.choose` writes
MEANING = {
    "threshold": "mean size of an exact change above which a unit counts as missed",
    "others": "units outside the top",
    "audited": "units patched outside the top",
    "drawn": "of these, drawn at random; the others are next to the top",
    "missed": "of the audited, units above the threshold",
    "missed_most": f"most units outside the top that can be above it, {CONFIDENCE:.0%} bound",
    "missed_share": "the same as a share",
    "rank_correlation": "Spearman, estimated and exact size",
}


def audit(scores: xr.Dataset, chosen: xr.DataArray, threshold: float | None = None) -> xr.Dataset:
    """Return what a screen missed, judged by its sample.

    Args:
        scores: `size` and `change` (batch, layer[, unit]).
        chosen: (layer[, unit]), as `screening.choose` returns it.
        threshold: as for `screening.screen`.

    Returns:
        `chosen` and `exact_size` (layer[, unit]), the mean size of the exact change, NaN where
        nothing was patched. Scalars: `threshold`, `others` (units outside the top), `audited` (of
        these, patched), `drawn` (of these, at random), `missed` (of the audited, above the
        threshold), `missed_most` (bound on their number among the others) and `missed_share` (the
        same as a share; NaN without an audit or others);
        `rank_correlation` of estimated and exact sizes over all units that were patched, NaN with
        fewer than three.
    """
    exact_size = _mean_size(scores["change"])
    result = xr.Dataset({"chosen": chosen, "exact_size": exact_size})
    size = scores["size"].mean("batch").values
    for name, value in _judged(size, exact_size.values, chosen.values, threshold).items():
        units = scores["change"].attrs["units"] if name == "threshold" else "1"
        result[name] = ((), np.float32(value), {"long_name": MEANING[name], "units": units})
    return result


def _mean_size(change: xr.DataArray) -> xr.DataArray:
    """Return the mean size of exact changes (layer[, unit])."""
    size = abs(change).mean("batch").astype("float32").rename("exact_size")
    meaning = "mean size of the exact change"
    return size.assign_attrs(change.attrs).assign_attrs(
        long_name=meaning, cell_methods="batch: mean"
    )


def _judged(
    size: np.ndarray, exact: np.ndarray, chosen: np.ndarray, threshold: float | None
) -> dict[str, float]:
    """Return the scalars of `audit`, by the keys of MEANING; sizes and choice [layer, unit]."""
    found, drawn, following = (chosen == kind for kind in (FOUND, DRAWN, NEXT))
    patched = found | drawn | following
    limit = float(exact[found].min()) if threshold is None else float(threshold)
    others, sample, near = (int(one.sum()) for one in (~found, drawn, following))
    missed_drawn, missed_near = (int((exact[one] > limit).sum()) for one in (drawn, following))
    rest = others - near
    most = missed_near + (most_in_all(rest, sample, missed_drawn) if sample else rest)
    return {
        "threshold": limit,
        "others": others,
        "audited": sample + near,
        "drawn": sample,
        "missed": missed_drawn + missed_near,
        "missed_most": most,
        "missed_share": most / others if others and sample + near else np.nan,
        "rank_correlation": float(spearman(size[patched], exact[patched])),
    }

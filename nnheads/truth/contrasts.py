"""What an edit is compared with, and whether the difference is more than chance: paired, question
by question.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy import stats as scipy_stats

from nnheads import stats
from nnheads.truth.multiple_choice import CHOICES

EDIT, NONE = "edit", "none"
CONTROLS = {
    NONE: "no edit",
    "random_direction": "random directions in the same heads, pushed as far",
    "random_heads": "other heads, each along its own direction",
}
RESAMPLES = 9999


def by_kind(scores: xr.Dataset) -> xr.Dataset:
    """Scores (condition, ...) with the draws of each control averaged: (kind, ...)."""
    kinds = list(dict.fromkeys(scores["kind"].values.tolist()))
    parts = [
        scores.isel(condition=scores["kind"].values == kind).mean("condition", keep_attrs=True)
        for kind in kinds
    ]
    return xr.concat(parts, xr.DataArray(kinds, dims="kind", name="kind"))


def summary(scores: xr.Dataset, *, seed: int = 0) -> xr.Dataset:
    """Means with their intervals, and how far the edit lies from each control.

    Args:
        scores: CHOICES (condition, question), `cross_entropy` and `kl` (condition, fold, text);
            coordinate `kind` (condition): "edit" or a key of CONTROLS.

    Returns:
        (kind): every score with its interval over questions (over texts for the last two, of which
        each counts with its mean over folds); `<score>_gain`, the mean paired difference of the
        edit to that kind, with its interval and `<score>_p` (sign flips, two sided); NaN for the
        edit itself.
    """
    table = by_kind(scores)
    tables = [stats.mean(table[name], "question", seed=seed) for name in CHOICES]
    tables += [
        stats.mean(table[name].mean("fold", keep_attrs=True), "text", seed=seed)
        for name in ("cross_entropy", "kl")
        if name in table
    ]
    other = table["kind"] != EDIT
    for name in CHOICES:
        gain = (
            (table[name].sel(kind=EDIT, drop=True) - table[name])
            .where(other)
            .rename(f"{name}_gain")
        )
        gain.attrs = {
            **table[name].attrs,
            "long_name": f"{table[name].attrs['long_name']}: edit minus this",
        }
        tables.append(stats.mean(gain.transpose("kind", "question"), "question", seed=seed))
        p = [
            paired_p(one.values, seed) if one.notnull().all() else np.nan
            for one in gain.transpose("kind", "question")
        ]
        about = {"long_name": "p of no difference (paired, sign flips)", "units": "1"}
        tables.append(xr.Dataset({f"{name}_p": ("kind", np.array(p, np.float32), about)}))
    return xr.merge(tables, combine_attrs="drop_conflicts").assign_attrs(scores.attrs)


def paired_p(differences: np.ndarray, seed: int = 0) -> float:
    """Two-sided p of differences that are as likely to be above 0 as below: by flipping their
    signs.
    """
    if not differences.any():
        return 1.0
    found = scipy_stats.permutation_test(
        (differences.astype(float),),
        lambda values, axis: values.mean(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=1000,
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)

"""What an edit is compared with, and whether the difference is more than chance.

    table = summary(evaluate(model, material, settings, options))
    table["mc1_gain"].sel(kind="random_direction")

Differences are paired, question by question.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from nnheads import stats
from nnheads.truth.multiple_choice import CHOICES

EDIT, NONE = "edit", "none"
CONTROLS = {
    NONE: "no edit",
    "random_direction": "random directions in the same heads, pushed as far",
    "random_heads": "other heads, each along its own direction",
}
COSTS = ("cross_entropy", "kl")


def by_kind(scores: xr.Dataset) -> xr.Dataset:
    """Return scores (condition, ...) with the draws of each control averaged: (kind, ...)."""
    kind = scores["kind"].values
    kinds = list(dict.fromkeys(kind.tolist()))
    means = [scores.isel(condition=kind == one).mean("condition", keep_attrs=True) for one in kinds]
    return xr.concat(means, xr.DataArray(kinds, dims="kind", name="kind"))


def summary(scores: xr.Dataset, *, seed: int = 0) -> xr.Dataset:
    """Return means with their intervals, and how far the edit lies from each control.

    Args:
        scores: CHOICES (condition, question), `cross_entropy` and `kl` (condition, fold, text);
            coordinate `kind` (condition): "edit" or a key of CONTROLS.
        seed: of the bootstrap and of the sign flips.

    Returns:
        (kind): every score with its interval over questions (over texts for the last two, of which
        each counts with its mean over folds); `<score>_gain`, the mean paired difference of the
        edit to that kind, with its interval and `<score>_p` (sign flips, two sided); NaN for the
        edit itself.
    """
    table = by_kind(scores)
    tables = [stats.mean(table[name], "question", seed=seed) for name in CHOICES]
    for name in COSTS:
        if name in table:
            over_folds = table[name].mean("fold", keep_attrs=True)
            tables.append(stats.mean(over_folds, "text", seed=seed))
    for name in CHOICES:
        gain = _gain(table, name)
        tables += [stats.mean(gain, "question", seed=seed), _p_of(gain, name, seed)]
    return xr.merge(tables, combine_attrs="drop_conflicts").assign_attrs(scores.attrs)


def _gain(table: xr.Dataset, name: str) -> xr.DataArray:
    """Return the edit minus each kind (kind, question), NaN for the edit itself."""
    difference = table[name].sel(kind=EDIT, drop=True) - table[name]
    gain = difference.where(table["kind"] != EDIT).rename(f"{name}_gain")
    meaning = f"{table[name].attrs['long_name']}: edit minus this"
    gain.attrs = {**table[name].attrs, "long_name": meaning}
    return gain.transpose("kind", "question")


def _p_of(gain: xr.DataArray, name: str, seed: int) -> xr.Dataset:
    """Return the p of each kind's gains, NaN for a kind without them.

    Signs are flipped, because scores of a question are mostly 0 or 1, so that differences are far
    from normal where there are few questions.
    """
    p_value = [
        stats.sign_flips(one.values, seed) if one.notnull().all() else np.nan for one in gain
    ]
    attrs = {"long_name": "p of no difference (paired, sign flips)", "units": "1"}
    return xr.Dataset({f"{name}_p": ("kind", np.array(p_value, np.float32), attrs)})

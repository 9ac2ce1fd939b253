"""TODO docstring."""

from __future__ import annotations

import warnings

import numpy as np
import xarray as xr
from scipy import stats as scipy_stats

from nnheads.stats.bootstrap import CONFIDENCE, mean
from nnheads.stats.chance import _greater_than
from nnheads.stats.discovery import adjusted

MARGIN = 0.05  # of attention mass: less is no head type, however significant


def calibrate(
    scores: xr.Dataset, *, margin: float = MARGIN, rate: float = 0.05, seed: int = 0
) -> xr.Dataset:
    """Is a head's score more than chance? Scores (batch, layer, head) with `mass` and `null` in,
    heads out.

    A head is flagged when its mass exceeds that on random targets of the same queries by more than
    `margin`,
    at a false discovery rate of `rate` over all heads: a one-sided t test over the batch, corrected
        by
    Benjamini and Hochberg. Without the margin, any preference, however small, would be significant
    with enough prompts, in a random model too. Scores with `by_step` (batch, layer, head, step; NaN
    where a case has no such
    step) must also pass a t test over the steps: these stand at the same places in all prompts, so
        that a head which
    looks at the target of one step by accident does so in every prompt. Where cases have different
    numbers of steps,
    they must pass one over these numbers too: a head that looks a fixed distance back is right with
        one of them alone.

    Returns:
        (layer, head): every statistic's mean with its interval; `excess` (mass minus null) with its
        interval, `p_value`, `q_value` and `flag` (1 or 0).
    """
    steps = scores.get("by_step")
    scores = scores.drop_vars("by_step", errors="ignore")
    excess = (scores["mass"] - scores["null"]).rename("excess")
    excess.attrs = {
        **scores["mass"].attrs,
        "long_name": "mass beyond random targets",
        "valid_min": -1.0,
    }
    heads = xr.merge(
        [mean(scores[name], seed=seed) for name in scores.data_vars], combine_attrs="drop_conflicts"
    )
    heads = heads.merge(mean(excess, seed=seed), combine_attrs="drop_conflicts")
    dims = ("layer", "head")
    p_value = _greater_than(excess.transpose("batch", *dims).values, margin)
    if steps is not None:
        each = (steps - scores["null"]).mean("batch").transpose("step", *dims)
        p_value = np.maximum(p_value, _greater_than(each.values, margin))
        numbers = steps.notnull().any(dims).sum("step").values
        alike = [
            excess.isel(batch=numbers == number).mean("batch") for number in np.unique(numbers)
        ]
        if len(alike) > 1:
            p_value = np.maximum(
                p_value, _greater_than(np.stack([one.transpose(*dims) for one in alike]), margin)
            )
    q_value = adjusted(p_value)
    heads["p_value"] = (
        dims,
        p_value.astype("float32"),
        {"long_name": f"p of excess <= {margin}", "units": "1"},
    )
    heads["q_value"] = (
        dims,
        q_value.astype("float32"),
        {"long_name": "p adjusted for all heads", "units": "1"},
    )
    flag = {
        "long_name": "more than chance",
        "units": "1",
        "false_discovery_rate": rate,
        "margin": margin,
    }
    heads["flag"] = (dims, (q_value < rate).astype("int8"), flag)
    if steps is not None:
        heads["invariance"] = invariance(steps)
    return heads.assign_attrs(scores.attrs)


def invariance(by_step: xr.DataArray) -> xr.DataArray:
    """1 minus the mean over steps of the standard deviation over cases (Cabannes et al. 2024).

    A secondary column: a head that attends alike in every case scores 1 whatever it attends to.
        Steps that fewer than
    two cases have say nothing about it and are left out.
    """
    spread = by_step.where(by_step.notnull().sum("batch") > 1).std("batch").mean("step")
    about = {
        "long_name": "invariance over cases",
        "units": "1",
        "source": "Cabannes et al. 2024, arXiv 2406.02128",
    }
    return (1 - spread).astype("float32").assign_attrs(about)


def contrast(scores: xr.DataArray, groups: xr.DataArray, *, rate: float = 0.05) -> xr.Dataset:
    """Do two sorts of cases differ? Scores (batch, layer, head); `groups` (batch) is 1 or 0.

    Returns:
        (layer, head): `difference` (mean of group 1 minus group 0) with a 95% t interval, `p_value`
        (Welch, two sided), `q_value`, `flag`. NaN, and no flag, where a group has fewer than two
        cases.
    """
    values = scores.transpose("batch", "layer", "head").values.astype(float)
    own = groups.values.astype(bool)
    shape = values.shape[1:]
    low = high = p_value = np.full(shape, np.nan)
    value = np.full(shape, np.nan)
    if min(own.sum(), (~own).sum()) >= 2:
        with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # heads that never vary: NaN says it
            test = scipy_stats.ttest_ind(values[own], values[~own], equal_var=False)
            low, high = test.confidence_interval(CONFIDENCE)
        value, p_value = values[own].mean(0) - values[~own].mean(0), test.pvalue
    q_value = adjusted(p_value)
    about = {
        "units": str(scores.attrs.get("units", "1")),
        "source": str(scores.attrs.get("source", "")),
    }
    meaning = {
        "difference": (
            value,
            f"{scores.attrs.get('long_name', scores.name)}: {groups.name} minus not",
        ),
        "difference_low": (low, "lower end of its 95% interval"),
        "difference_high": (high, "upper end of its 95% interval"),
        "p_value": (p_value, "p of no difference"),
        "q_value": (q_value, "p adjusted for all heads"),
    }
    dims = ("layer", "head")
    heads = {
        name: (dims, np.asarray(a, np.float32), {"long_name": text, **about})
        for name, (a, text) in meaning.items()
    }
    flag = {"long_name": "the groups differ", "units": "1", "false_discovery_rate": rate}
    result = xr.Dataset({**heads, "flag": (dims, (q_value < rate).astype("int8"), flag)})
    return result.assign_coords({name: scores[name] for name in dims if name in scores.coords})

"""Is a head's score more than chance, and does it differ between two groups of cases?

    heads = calibrate(scores)  # mass, null (batch, layer, head) -> flag, q_value, ... (layer, head)

A head without enough cases gets no p and no flag; nothing here raises for what is not known.
"""

from __future__ import annotations

import warnings

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float
from scipy import stats as scipy_stats

from nnheads.stats.bootstrap import CONFIDENCE, mean
from nnheads.stats.chance import greater_than
from nnheads.stats.discovery import HEADS, RATE, discoveries

STRONG = 0.5  # of a share: most of the attention, or most of the queries
FEWEST = 5  # cases of a group, below which Welch's test has no footing
MARGIN = 0.05  # of attention mass: less is no head type, however significant


def calibrate(
    scores: xr.Dataset, *, margin: float = MARGIN, rate: float = RATE, seed: int = 0
) -> xr.Dataset:
    """Return which heads score more than chance, with every statistic's mean and interval.

    A head is flagged when its mass (or its hits, where these are the headline) exceeds that on
    random targets of the same queries by more than `margin`, at a false discovery rate of `rate`
    over all heads: a one-sided t test over the batch, corrected by Benjamini and Hochberg. Without
    the margin, any preference, however small, would be significant with enough prompts, in a random
    model too.

    Scores with `by_step` must also pass a t test over the steps: these stand at the same positions
    in all prompts, so that a head which looks at the target of one step by accident does so in
    every prompt. Where cases have different numbers of steps, they must pass one over these numbers
    too: a head that looks a fixed distance back is right with one of them alone.

    Args:
        scores: `mass` and `null` (batch, layer, head), further statistics, and perhaps `by_step`
            (batch, layer, head, step), NaN where a case has no such step.

    Returns:
        (layer, head): every statistic's mean with its interval; `excess` (mass minus null) with its
        interval, `p_value`, `q_value`, `flag` (1 or 0) and `strong` (flagged, and the headline of
        the type at least a half); with `by_step` also `invariance`.
    """
    steps = scores.get("by_step")
    scores = scores.drop_vars("by_step", errors="ignore")
    tested_by = "hit" if scores.attrs.get("headline") == "hit" else "mass"
    excess = (scores[tested_by] - scores["null"]).rename("excess")
    about = {"long_name": f"{tested_by} beyond random targets", "valid_min": -1.0}
    excess.attrs = {**scores[tested_by].attrs, **about}
    heads = xr.merge(
        [mean(scores[name], seed=seed) for name in scores.data_vars], combine_attrs="drop_conflicts"
    )
    heads = heads.merge(mean(excess, seed=seed), combine_attrs="drop_conflicts")
    p_value = greater_than(excess.transpose("batch", *HEADS).values, margin)
    if steps is not None:
        p_value = np.maximum(p_value, _over_steps(excess, steps, scores["null"], margin))
    meaning = f"p of excess <= {margin}"
    tested = discoveries(
        p_value, meaning, "more than chance", rate=rate, margin=margin, statistic=tested_by
    )
    heads = heads.assign(tested).assign(strong=_strong(heads, tested["flag"][1], scores))
    if steps is not None:
        heads["invariance"] = invariance(steps)
    return heads.assign_attrs(scores.attrs)


def _strong(heads: xr.Dataset, flag: np.ndarray, scores: xr.Dataset) -> xr.DataArray:
    """Return which flagged heads have a headline of at least STRONG: flags alone are many."""
    headline = scores.attrs.get("headline", "mass")
    strong: xr.DataArray = (heads[headline].transpose(*HEADS) >= STRONG) & (flag == 1)
    about = {"long_name": f"flagged, and {headline} at least {STRONG}", "least": STRONG}
    whole: xr.DataArray = strong.astype("int8").drop_attrs()
    return whole.assign_attrs(units="1", **about)


def _over_steps(
    excess: xr.DataArray, by_step: xr.DataArray, null: xr.DataArray, margin: float
) -> Float[np.ndarray, "layer head"]:
    """Return the larger p of the tests over steps and over numbers of steps."""
    each_step = (by_step - null).mean("batch").transpose("step", *HEADS)
    p_value = greater_than(each_step.values, margin)
    numbers = by_step.notnull().any(HEADS).sum("step").values
    each_number = [
        excess.isel(batch=numbers == number).mean("batch").transpose(*HEADS)
        for number in np.unique(numbers)
    ]
    if len(each_number) == 1:
        return p_value
    over_numbers = greater_than(np.stack(each_number), margin)
    larger: np.ndarray = np.maximum(p_value, over_numbers)
    return larger


def invariance(by_step: xr.DataArray) -> xr.DataArray:
    """Return 1 minus the mean over steps of the standard deviation over cases.

    A secondary column: a head that attends alike in every case scores 1 whatever it attends to.
    Steps that fewer than two cases have say nothing about it and are left out.

    Args:
        by_step: (batch, layer, head, step), NaN where a case has no such step.

    Source: Cabannes et al. 2024, arXiv 2406.02128.
    """
    spread = by_step.where(by_step.notnull().sum("batch") > 1).std("batch").mean("step")
    about = {
        "long_name": "invariance over cases",
        "units": "1",
        "source": "Cabannes et al. 2024, arXiv 2406.02128",
    }
    return (1 - spread).astype("float32").assign_attrs(about)


def contrast(
    scores: xr.DataArray, groups: xr.DataArray, *, margin: float = MARGIN, rate: float = RATE
) -> xr.Dataset:
    """Return how far two groups of cases differ, and which heads do by more than `margin`.

    Args:
        scores: (batch, layer, head). groups: (batch), 1 or 0.

    Returns:
        (layer, head): `difference` (mean of group 1 minus group 0) with a 95% t interval, `p_value`
        (Welch, two sided, of a difference of at most the margin either way), `q_value`, `flag`.
        NaN, and no flag, where a group has fewer than two cases, or where a head never varies; no
        flag where it has fewer than FEWEST.
    """
    values, first = scores.transpose("batch", *HEADS).values.astype(float), groups.values == 1
    difference, low, high, of_any = _welch(values, first)
    beyond = np.where(first[:, None, None], values - np.sign(difference) * margin, values)
    p_value = np.where(np.abs(difference) > margin, _welch(beyond, first)[3], 1.0)
    p_value = np.where(np.isnan(of_any), np.nan, p_value)
    meaning = f"p of a difference of at most {margin}"
    enough = bool(min(first.sum(), (~first).sum()) >= FEWEST)
    tested = discoveries(
        p_value,
        meaning,
        "the groups differ",
        rate=rate,
        also=enough,
        margin=margin,
        statistic="difference",
    )
    heads = _labelled_difference(scores, str(groups.name), difference, low, high).assign(tested)
    return heads.assign_coords({name: scores[name] for name in HEADS if name in scores.coords})


def _labelled_difference(
    scores: xr.DataArray,
    group: str,
    difference: Float[np.ndarray, "layer head"],
    low: Float[np.ndarray, "layer head"],
    high: Float[np.ndarray, "layer head"],
) -> xr.Dataset:
    """Return the difference of two groups and the ends of its interval (layer, head)."""
    about = {
        "units": str(scores.attrs.get("units", "1")),
        "source": str(scores.attrs.get("source", "")),
    }
    meaning = f"{scores.attrs.get('long_name', scores.name)}: {group} minus not"
    interval = f"end of its {CONFIDENCE:.0%} interval"
    measured = {
        "difference": (difference, meaning),
        "difference_low": (low, f"lower {interval}"),
        "difference_high": (high, f"upper {interval}"),
    }
    return xr.Dataset(
        {
            name: (HEADS, np.asarray(of, np.float32), {"long_name": text, **about})
            for name, (of, text) in measured.items()
        }
    )


def _welch(
    values: Float[np.ndarray, "case layer head"], first: Bool[np.ndarray, " case"]
) -> tuple[Float[np.ndarray, "layer head"], ...]:
    """Return the difference of two groups, the ends of its interval, and Welch's two-sided p."""
    if min(first.sum(), (~first).sum()) < 2:
        unknown = np.full(values.shape[1:], np.nan)
        return unknown, unknown, unknown, unknown
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # heads that never vary: NaN says it
        test = scipy_stats.ttest_ind(values[first], values[~first], equal_var=False)
        low, high = test.confidence_interval(CONFIDENCE)
    return values[first].mean(0) - values[~first].mean(0), low, high, test.pvalue

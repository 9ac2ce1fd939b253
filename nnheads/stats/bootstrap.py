"""Means over cases with percentile bootstrap intervals.

    reduced = mean(scores["effect"])  # effect, effect_low, effect_high (layer, head)

`mean` and `ratio_of_means` reduce labelled arrays. Other statistics of means draw `resamples` of
the cases, work on them and take the `ends` of what comes out. One case has no interval: its ends
are NaN. Cases without a value (NaN) are left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from scipy import stats as scipy_stats

CONFIDENCE = 0.95
RESAMPLES = 1000
# numbers in a block of resamples, so that memory does not grow with layers x heads x cases
BLOCK = 20_000_000

Array = np.ndarray


def mean(scores: xr.DataArray, dim: str = "batch", *, seed: int = 0) -> xr.Dataset:
    """Return the mean over `dim` with its interval.

    Args:
        scores: (`dim`, ...); NaN cases are left out.

    Returns:
        a dataset of the array's name and `<name>_low`, `<name>_high` without `dim`, float32.
    """
    low, high = _interval(_nanmean, [scores], dim, seed)
    value = scores.mean(dim, skipna=True)
    return _with_interval(scores, value, low, high, f"{dim}: mean")


def ratio_of_means(
    numerator: xr.DataArray, denominator: xr.DataArray, dim: str = "batch", *, seed: int = 0
) -> xr.Dataset:
    """Return sum(numerator) / sum(denominator) over `dim`, with its interval.

    It is far less noisy than the mean of ratios when some denominators are small. The interval
    resamples cases, numerator and denominator together.

    Args:
        numerator: (`dim`, ...). denominator: `dim` and any of its other dims, in the same unit.

    Returns:
        a dataset of the numerator's name and `<name>_low`, `<name>_high` without `dim`, float32.
    """
    denominator = denominator.broadcast_like(numerator).transpose(*numerator.dims)
    known = numerator.notnull() & denominator.notnull()  # a case counts in both sums or in neither
    numerator, denominator = (array.where(known) for array in (numerator, denominator))
    low, high = _interval(_ratio, [numerator, denominator], dim, seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = numerator.sum(dim) / denominator.sum(dim)
    numerator = numerator.assign_attrs(units="1")
    methods = f"{dim}: sum of numerators over sum of denominators"
    return _with_interval(numerator, value, low, high, methods)


def resamples(cases: int, draw: int | np.random.Generator) -> Int[np.ndarray, "draw case"]:
    """Return how often each of so many cases comes in each of RESAMPLES resamples of them all.

    Args:
        draw: a seed, or the generator to draw with.
    """
    generator = np.random.default_rng(draw)
    return generator.multinomial(cases, np.full(cases, 1 / cases), RESAMPLES)


def ends(
    drawn: Float[np.ndarray, "..."], axis: int = 0, *, skipna: bool = False
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Return the lower and upper end of the interval of a statistic from its resamples.

    Args:
        drawn: the statistic of each resample, along `axis`.
        skipna: leave resamples without a value out, instead of answering NaN.
    """
    shares = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    quantile = np.nanquantile if skipna and np.isnan(drawn).any() else np.quantile
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)  # NaN says it
        low, high = quantile(drawn, shares, axis=axis)
    return low, high


def names_of_ends(long_name: str) -> dict[str, str]:
    """Return the `long_name` of the `low` and the `high` end of a bootstrap interval."""
    interval = f"{CONFIDENCE:.0%} bootstrap interval of {long_name}"
    return {"low": f"lower end of the {interval}", "high": f"upper end of the {interval}"}


def _nanmean(values: Array, axis: int) -> Array:
    with warnings.catch_warnings():
        # all cases masked: NaN says it
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        return np.asarray(np.nanmean(values, axis))


def _ratio(numerator: Array, denominator: Array, axis: int) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.nansum(numerator, axis) / np.nansum(denominator, axis))


def _interval(
    statistic: Callable[..., Array], arrays: list[xr.DataArray], dim: str, seed: int
) -> tuple[Array, Array]:
    """Return the ends of a statistic over `dim`, with the same cases drawn from all arrays."""
    rest = [name for name in arrays[0].dims if name != dim]
    data = [array.transpose(*rest, dim).values.astype(float) for array in arrays]
    shape, known = data[0].shape[:-1], ~np.isnan(data[0])
    used = known.any(tuple(range(len(rest))))
    if used.sum() < 2:
        return np.full(shape, np.nan), np.full(shape, np.nan)
    drawn = _drawn(statistic, [values[..., used] for values in data], seed)
    low, high = np.where(known.sum(-1) >= 2, ends(drawn, -1, skipna=True), np.nan)
    return low, high


def _drawn(statistic: Callable[..., Array], data: list[Array], seed: int) -> Array:
    """Return the statistic of every resample of the last axis, [..., draw]."""
    block = max(1, BLOCK // max(1, data[0].size))
    with warnings.catch_warnings():
        # a cell without any case, or resamples without one: NaN says it
        warnings.filterwarnings("ignore", category=scipy_stats.DegenerateDataWarning)
        warnings.filterwarnings("ignore", "All-NaN slice encountered", RuntimeWarning)
        result = scipy_stats.bootstrap(
            data,
            statistic,
            n_resamples=RESAMPLES,
            batch=block,
            vectorized=True,
            axis=-1,
            paired=len(data) > 1,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
    return np.asarray(result.bootstrap_distribution)


def _with_interval(
    array: xr.DataArray, value: xr.DataArray, low: Array, high: Array, cell_methods: str
) -> xr.Dataset:
    """Return the reduced variable and its bounds, with attributes that are true of them."""
    name = str(array.name)
    meaning = names_of_ends(array.attrs.get("long_name", name))
    kept: dict[str, Any] = {
        key: text
        for key, text in array.attrs.items()
        if key not in ("cell_methods", "ancillary_variables")
    }
    attributes = {
        **array.attrs,
        "cell_methods": cell_methods,
        "ancillary_variables": f"{name}_low {name}_high",
    }
    reduced = xr.Dataset({name: value.astype("float32").assign_attrs(attributes)})
    for end, values in (("low", low), ("high", high)):
        bound = reduced[name].copy(data=np.float32(values))
        bound.attrs = {**kept, "long_name": meaning[end]}
        reduced[f"{name}_{end}"] = bound
    return reduced

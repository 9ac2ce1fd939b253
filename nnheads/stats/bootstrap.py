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

CONFIDENCE = 0.95
RESAMPLES = 1000

Array = np.ndarray


def mean(scores: xr.DataArray, dim: str = "batch", *, seed: int = 0) -> xr.Dataset:
    """Return the mean over `dim` with its interval.

    Args:
        scores: (`dim`, ...); NaN cases are left out.

    Returns:
        a dataset of the array's name and `<name>_low`, `<name>_high` without `dim`, float32.
    """
    low, high = _interval(_mean_of, [scores], dim, seed)
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
    low, high = _interval(_ratio_of, [numerator, denominator], dim, seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = numerator.sum(dim) / denominator.sum(dim)
    numerator = numerator.assign_attrs(units="1")
    methods = f"{dim}: sum of numerators over sum of denominators"
    return _with_interval(numerator, value, low, high, methods)


def resamples(cases: int, draw: int | np.random.Generator) -> Int[np.ndarray, "draw case"]:
    """Return how often each of so many cases comes in each of RESAMPLES resamples of them all.

    The cases are those that `scipy.stats.bootstrap` draws. A statistic of sums needs no more than
    these counts: one product of matrices, where gathering the cases takes as many times the memory.

    Args:
        draw: a seed, or the generator to draw with.
    """
    chosen = np.random.default_rng(draw).integers(0, cases, (RESAMPLES, cases))
    places = chosen + cases * np.arange(RESAMPLES)[:, None]
    return np.bincount(places.ravel(), minlength=RESAMPLES * cases).reshape(RESAMPLES, cases)


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
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)  # NaN says it
        low, high = quantile(drawn, shares, axis=axis)
    return low, high


def names_of_ends(long_name: str) -> dict[str, str]:
    """Return the `long_name` of the `low` and the `high` end of a bootstrap interval."""
    interval = f"{CONFIDENCE:.0%} bootstrap interval of {long_name}"
    return {"low": f"lower end of the {interval}", "high": f"upper end of the {interval}"}


def _sums(values: Array, counts: Array) -> Array:
    """Return the sum of every resample's known values, [..., draw].

    Args:
        values: [..., case]. counts: how often each resample has each case, [draw, case].
    """
    sums: Array = np.where(np.isfinite(values), values, 0.0) @ counts.T
    if np.isinf(values).any():
        above, below = ((values == end) @ (counts.T > 0) for end in (np.inf, -np.inf))
        sums[above] = np.inf
        sums[below] = np.where(above[below], np.nan, -np.inf)
    return sums


def _mean_of(values: Array, counts: Array) -> Array:
    """Return the mean of every resample's known values; NaN where it has none."""
    known = (~np.isnan(values)).astype(float)
    return _quotient(_sums(values, counts), known @ counts.T)


def _ratio_of(numerator: Array, denominator: Array, counts: Array) -> Array:
    return _quotient(_sums(numerator, counts), _sums(denominator, counts))


def _quotient(numerator: Array, denominator: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(numerator / denominator)


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
    counts = resamples(int(used.sum()), seed).astype(float)
    drawn = statistic(*(values[..., used] for values in data), counts)
    low, high = np.where(known.sum(-1) >= 2, ends(drawn, -1, skipna=True), np.nan)
    return low, high


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
    reduced = {name: value.variable.astype("float32")}
    reduced[name].attrs = attributes
    for end, values in (("low", low), ("high", high)):
        bound = {**kept, "long_name": meaning[end]}
        reduced[f"{name}_{end}"] = xr.Variable(value.dims, np.float32(values), bound)
    return xr.Dataset(reduced, value.coords)

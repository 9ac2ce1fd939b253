"""TODO docstring."""

from __future__ import annotations

import warnings

import numpy as np
import xarray as xr
from scipy import stats as scipy_stats

CONFIDENCE = 0.95


RESAMPLES = 1000


# numbers in a block of resamples, so that memory does not grow with layers x heads x cases
BLOCK = 20_000_000


def mean(scores: xr.DataArray, dim: str = "batch", *, seed: int = 0) -> xr.Dataset:
    """Mean over `dim` with a percentile bootstrap interval; NaN cases are left out.

    Returns:
        a dataset of the array's name and `<name>_low`, `<name>_high` without `dim`.
    """
    low, high = _interval(lambda a, axis: _nanmean(a, axis), [scores], dim, seed)
    value = scores.mean(dim, skipna=True)
    return _with_interval(scores, value, low, high, f"{dim}: mean")


def ratio_of_means(
    numerator: xr.DataArray, denominator: xr.DataArray, dim: str = "batch", *, seed: int = 0
) -> xr.Dataset:
    """sum(numerator) / sum(denominator) over `dim`: far less noisy than the mean of ratios when
    some gaps are small. The interval resamples cases, numerator and denominator together. Both have
    the same unit."""
    denominator = denominator.broadcast_like(numerator).transpose(*numerator.dims)
    known = numerator.notnull() & denominator.notnull()  # a case counts in both sums or in neither
    numerator, denominator = (array.where(known) for array in (numerator, denominator))

    def statistic(a, b, axis):
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.nansum(a, axis) / np.nansum(b, axis)

    low, high = _interval(statistic, [numerator, denominator], dim, seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = numerator.sum(dim) / denominator.sum(dim)
    numerator = numerator.assign_attrs(units="1")
    return _with_interval(
        numerator, value, low, high, f"{dim}: sum of numerators over sum of denominators"
    )


def _nanmean(values: np.ndarray, axis: int) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Mean of empty slice", RuntimeWarning
        )  # all cases masked: NaN says it
        return np.nanmean(values, axis)


def _interval(
    statistic, arrays: list[xr.DataArray], dim: str, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap over `dim`, paired between arrays. One case has no interval: NaN."""
    rest = [name for name in arrays[0].dims if name != dim]
    data = [array.transpose(*rest, dim).values.astype(float) for array in arrays]
    shape, known = data[0].shape[:-1], ~np.isnan(data[0])
    used = known.any(tuple(range(len(rest))))
    if used.sum() < 2:
        return np.full(shape, np.nan), np.full(shape, np.nan)
    data = [values[..., used] for values in data]
    block = max(1, BLOCK // max(1, data[0].size))
    with warnings.catch_warnings():
        # a cell without any case, or resamples without one: NaN says it
        warnings.filterwarnings("ignore", category=scipy_stats.DegenerateDataWarning)
        warnings.filterwarnings("ignore", "All-NaN slice encountered", RuntimeWarning)
        drawn = scipy_stats.bootstrap(
            data,
            statistic,
            n_resamples=RESAMPLES,
            batch=block,
            vectorized=True,
            axis=-1,
            paired=len(data) > 1,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).bootstrap_distribution
        quantile = np.nanquantile if np.isnan(drawn).any() else np.quantile
        ends = quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=-1)
    low, high = np.where(known.sum(-1) >= 2, ends, np.nan)
    return low, high


def _with_interval(
    array: xr.DataArray, value: xr.DataArray, low, high, cell_methods: str
) -> xr.Dataset:
    """The reduced variable and its bounds, with the attributes that the reduction makes false
    rewritten.
    """
    name = str(array.name)
    attributes = {
        **array.attrs,
        "cell_methods": cell_methods,
        "ancillary_variables": f"{name}_low {name}_high",
    }
    long_name = array.attrs.get("long_name", name)
    value = value.astype("float32").assign_attrs(attributes)
    bound = {key: attributes[key] for key in ("units", "source") if key in attributes}
    percent = f"{CONFIDENCE:.0%} bootstrap interval of {long_name}"
    return xr.Dataset(
        {
            name: value,
            f"{name}_low": value.copy(data=np.float32(low)).assign_attrs(
                {"long_name": f"lower end of the {percent}", **bound}
            ),
            f"{name}_high": value.copy(data=np.float32(high)).assign_attrs(
                {"long_name": f"upper end of the {percent}", **bound}
            ),
        }
    ).pipe(_only_bounds_plain)


def _only_bounds_plain(dataset: xr.Dataset) -> xr.Dataset:
    for name in dataset.data_vars:
        if str(name).endswith(("_low", "_high")):
            dataset[name].attrs.pop("cell_methods", None)
            dataset[name].attrs.pop("ancillary_variables", None)
    return dataset

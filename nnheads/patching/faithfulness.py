"""A circuit as numbers with intervals: faithfulness, its curve, completeness, minimality.

    numbers = judge(circuit_runs.study(...))
    numbers["faithfulness"], numbers["faithfulness_low"], numbers["faithfulness_high"]

Everything is computed from per-case metrics of runs with heads removed (`circuit_runs.study`) as a
ratio or difference of means. Intervals resample the cases, the same ones for all runs. A model that
does not do the task is refused, because shares of nothing mean nothing.
Sources: Wang et al. 2022, arXiv 2211.00593; Mueller et al. 2025, arXiv 2504.13151 (the curve and
its areas).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float

from nnheads.errors import RunError
from nnheads.patching.circuit import Heads, Remove
from nnheads.patching.circuit_numbers import Number, numbers, over
from nnheads.patching.circuit_runs import check_sizes
from nnheads.patching.head_sets import Head
from nnheads.stats import ends, names_of_ends, ranked_heads, resamples

Interval = tuple[np.ndarray, np.ndarray, np.ndarray]  # value, low, high


def knocked_out(remove: Remove, everything: Heads, *, seed: int = 0) -> xr.Dataset:
    """Return what the metric loses when one head is removed, for every head.

    Returns:
        `ranking` (layer, head), (F(M) - F(M without it)) / F(M), and its interval; positive where
        the head helps.
    """
    members = sorted(everything)
    values = remove([frozenset(), *(frozenset([head]) for head in members)])
    loss = [values[:, :1] - values[:, 1:], values[:, 0]]
    share = interval(over, loss, shares_of_cases(len(values), seed))
    layers, heads = (max(part) + 1 for part in zip(*members))
    value, low, high = (part.reshape(layers, heads) for part in share)
    meaning = "share of F(M) lost when the head is removed"
    number = Number("ranking", meaning, "1", over, (), ("layer", "head"))
    variables = _variables(number, (value, low, high))
    return xr.Dataset(variables).assign_coords(layer=range(layers), head=range(heads))


def order(values: xr.DataArray, *, signed: bool = False) -> list[Head]:
    """Return heads by value (layer, head), the largest in size first, or the highest if signed.

    Those without a value come last.
    """
    return ranked_heads(values if signed else abs(values), unknown=True)


def judge(scores: xr.Dataset, *, seed: int = 0) -> xr.Dataset:
    r"""Return the numbers of a circuit, with 95% intervals, from what `study` measured.

    Returns:
        each with `_low` and `_high`: `model`, `circuit`, `empty`, which are F(M), F(C) and F of no
        head; `gap`, |F(M) - F(C)|; `faithfulness`, F(C) / F(M), `random` (draw) and `helpers`, the
        same of other circuits; `recovered`, (F(C) - F(none)) / (F(M) - F(none)), and `curve`
        (size), the same of the ranking's first heads; `cpr` and `cmd`, the trapezoid areas under
        the curve and between it and 1, over the share of heads, and `cpr_log`, `cmd_log` over its
        logarithm, brought to a length of 1; `incompleteness` (cut), |F(C \ K) - F(M \ K)|;
        `minimality` (member), |F(C \ (K + v)) - F(C \ K)| / F(M) for the K that makes it largest.

    The interval of an absolute difference is that of the difference in the direction of its mean:
    one that reaches below 0 leaves the direction open. A K that is the worst of many was found on
    these same cases, which its interval does not take into account.

    Raises:
        RunError: a metric whose mean is not above 0 for the whole model, so that shares of it mean
            nothing. BadInput: sizes as `study` refuses them.
    """
    check_sizes(scores["size"].values.tolist())
    runs = {str(name): scores[name].values.astype(float) for name in scores.data_vars}
    _check_task(runs["model"].mean())
    weights, table = shares_of_cases(len(runs["model"]), seed), {}
    for number in numbers(scores["size"].values, scores["model"].attrs["units"]):
        if set(number.runs) <= set(runs):
            parts = [runs[run] for run in number.runs]
            found = interval(number.statistic, parts, weights, number.absolute)
            table.update(_variables(number, found))
    kept = {name: scores[name] for name in scores.coords if "batch" not in scores[name].dims}
    return xr.Dataset(table).assign_coords(kept).assign_attrs(scores.attrs)


def _check_task(full: float) -> None:
    """Refuse a model whose metric is not above 0."""
    if not full > 0:
        raise RunError(
            f"The model does not do this task: F(M) is {full:+.3f} on average, and shares of it"
            " mean nothing. Use other prompts, or a model that does it."
        )


def shares_of_cases(cases: int, seed: int) -> Float[np.ndarray, "draw case"]:
    """Return the weight of each case in resamples of all."""
    return resamples(cases, seed) / cases


def interval(
    statistic: Callable,
    parts: Sequence[Float[np.ndarray, "case ..."]],
    weights: Float[np.ndarray, "draw case"],
    absolute: bool = False,
) -> Interval:
    """Return (value, low, high) of a statistic of means over cases; NaN bounds with one case.

    The statistic also takes means with an axis of resamples in front.
    """
    with np.errstate(divide="ignore", invalid="ignore"):  # a share of nothing: NaN or infinity
        value = np.asarray(statistic(*(part.mean(0) for part in parts)))
        low = high = np.full(value.shape, np.nan)
        if weights.shape[1] > 1:
            low, high = ends(statistic(*(np.tensordot(weights, part, 1) for part in parts)))
    return _size(value, low, high) if absolute else (value, low, high)


def _size(value: np.ndarray, low: np.ndarray, high: np.ndarray) -> Interval:
    """Turn differences in the direction of their mean."""
    below = value < 0
    return np.abs(value), np.where(below, -high, low), np.where(below, -low, high)


def _variables(number: Number, found: Interval) -> dict[str, tuple]:
    """Label a number and its bounds."""
    about = {"units": number.units, "source": number.source}
    return {
        key: (number.dims, np.asarray(values, np.float32), {**attributes, **about})
        for (key, attributes), values in zip(_attributes(number).items(), found)
    }


def _attributes(number: Number) -> dict[str, dict[str, str]]:
    """Return what a number and its bounds are."""
    name, bounds = number.name, names_of_ends(number.meaning)
    return {
        name: {
            "cell_methods": "batch: mean",
            "ancillary_variables": f"{name}_low {name}_high",
            "long_name": number.meaning,
        },
        f"{name}_low": {"long_name": bounds["low"]},
        f"{name}_high": {"long_name": bounds["high"]},
    }

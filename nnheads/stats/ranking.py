"""Order heads by a score, and compare two orders.

    best = top_heads(heads, "effect", 5)  # a list of layer, head, value, low, high

Values that are not known (NaN) do not rank, or come last where `unknown` asks for them. Equal
values rank in the order of their indices.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from scipy import stats as scipy_stats

RankedHead = dict[str, Any]  # layer, head, value, low, high


def ranked(
    values: np.ndarray, *, lowest: bool = False, unknown: bool = False
) -> Int[np.ndarray, " value"]:
    """Return the flat indices of values, the highest (or lowest) first.

    Args:
        unknown: with those that are not known, last; default: without.
    """
    flat = np.asarray(values, float).ravel()
    order = np.argsort(flat if lowest else -flat, kind="stable")  # NaN comes last
    return order if unknown else order[: np.count_nonzero(~np.isnan(flat))]


def ranked_heads(
    values: xr.DataArray, *, lowest: bool = False, unknown: bool = False
) -> list[tuple[int, int]]:
    """Return the heads (layer, head), the highest (or lowest) value first.

    Args:
        values: (layer, head); its coordinates, where it has them, name layers and heads.
        unknown: as for `ranked`.
    """
    values = values.transpose("layer", "head")
    layers, heads = values["layer"].values, values["head"].values
    order = ranked(values.values, lowest=lowest, unknown=unknown)
    rows, columns = np.unravel_index(order, values.shape)
    return [(int(layers[row]), int(heads[column])) for row, column in zip(rows, columns)]


def top_heads(
    heads: xr.Dataset,
    name: str,
    k: int = 10,
    *,
    lowest: bool = False,
    by: xr.DataArray | None = None,
) -> list[RankedHead]:
    """Return the k heads with the highest (or lowest) value, as layer, head, value, low, high.

    Args:
        heads: `<name>`, `<name>_low` and `<name>_high` (layer, head).
        by: what else (layer, head) ranks them, such as the size of the value.
    """
    value, low, high = (
        heads[each].transpose("layer", "head") for each in (name, f"{name}_low", f"{name}_high")
    )
    layers, columns = value["layer"].values, value["head"].values
    order = value if by is None else by.transpose("layer", "head")
    chosen = ranked(order.values, lowest=lowest)[:k]
    return [
        {
            "layer": int(layers[place]),
            "head": int(columns[unit]),
            "value": float(value.values[place, unit]),
            "low": float(low.values[place, unit]),
            "high": float(high.values[place, unit]),
        }
        for place, unit in zip(*np.unravel_index(chosen, value.shape))
    ]


def spearman(
    first: Float[np.ndarray, "... value"], second: Float[np.ndarray, "... value"]
) -> Float[np.ndarray, "..."]:
    """Return the rank correlation over the last axis.

    NaN where there are fewer than three values, where one is missing, or where all are alike.
    """
    if first.shape[-1] < 3:
        return np.full(first.shape[:-1], np.nan)
    a, b = (scipy_stats.rankdata(one, axis=-1) for one in (first, second))
    a, b = a - a.mean(-1, keepdims=True), b - b.mean(-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        size = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
        return np.asarray((a * b).sum(-1) / size)

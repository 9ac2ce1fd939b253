"""TODO docstring."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy import stats as scipy_stats


def spearman(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Rank correlation over the last axis; NaN where there are fewer than three values, where one
    is missing, or where all are alike."""
    if first.shape[-1] < 3:
        return np.full(first.shape[:-1], np.nan)
    a, b = (scipy_stats.rankdata(one, axis=-1) for one in (first, second))
    a, b = a - a.mean(-1, keepdims=True), b - b.mean(-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return (a * b).sum(-1) / np.sqrt((a**2).sum(-1) * (b**2).sum(-1))


def top_heads(heads: xr.Dataset, name: str, k: int = 10, *, lowest: bool = False) -> list[dict]:
    """The k heads with the highest (or lowest) value: layer, head, value, low, high.

    NaN never ranks.
    """
    table = heads[[name, f"{name}_low", f"{name}_high"]].to_dataframe().dropna(subset=[name])
    table = table.sort_values(name, ascending=lowest, kind="stable").head(k).reset_index()
    return [
        {
            "layer": int(row["layer"]),
            "head": int(row["head"]),
            "value": row[name],
            "low": row[f"{name}_low"],
            "high": row[f"{name}_high"],
        }
        for _, row in table.iterrows()
    ]

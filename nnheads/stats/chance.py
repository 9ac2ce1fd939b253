"""TODO docstring."""

from __future__ import annotations

import warnings

import numpy as np
from scipy import stats as scipy_stats


def _greater_than(values: np.ndarray, margin: float) -> np.ndarray:
    """One-sided p of mean(values) <= margin over the first axis; NaN with fewer than two cases."""
    count = np.isfinite(values).sum(0)
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # too few cases, or all alike: handled below
        centre, spread = np.nanmean(values, 0) - margin, np.nanstd(values, 0, ddof=1)
        t = centre / (spread / np.sqrt(count))
        p = scipy_stats.t.sf(t, count - 1)
    alike = (count >= 2) & (spread == 0)
    return np.where(alike, np.where(centre > 0, 0.0, 1.0), np.where(count >= 2, p, np.nan))

"""TODO docstring."""

from __future__ import annotations

import numpy as np
from scipy import stats as scipy_stats


def adjusted(p_value: np.ndarray) -> np.ndarray:
    """p values adjusted for all that are known (Benjamini and Hochberg); NaN stays NaN."""
    known, q_value = np.isfinite(p_value), np.full_like(p_value, np.nan)
    if known.any():
        q_value[known] = scipy_stats.false_discovery_control(p_value[known])
    return q_value

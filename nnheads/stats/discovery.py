"""Which of many heads are beyond chance: one false discovery rate for every result.

    heads.update(discoveries(p_value, "p of no effect", "has an effect"))

p values are adjusted for all heads whose p is known (Benjamini and Hochberg); a head without a p is
never flagged.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy import stats as scipy_stats

RATE = 0.05  # of false discoveries among the flagged heads
COMMON = 0.5  # share of heads; flags of more do not single any out

Variable = tuple[tuple[str, ...], np.ndarray, dict[str, Any]]
HEADS = ("layer", "head")


def is_selective(flag: xr.DataArray) -> bool:
    """Return whether flags single heads out: at most COMMON of all have one.

    What nearly every head does, such as attending to the first token, says nothing about a head. A
    summary of flags leaves such a type out, and says so.
    """
    return int((flag == 1).sum()) <= COMMON * flag.size


def adjusted(p_value: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Return p values adjusted for all that are known (Benjamini and Hochberg); NaN stays NaN."""
    known, q_value = np.isfinite(p_value), np.full_like(p_value, np.nan)
    if known.any():
        q_value[known] = scipy_stats.false_discovery_control(p_value[known])
    return q_value


def discoveries(
    p_value: Float[np.ndarray, "layer head"],
    meaning: str,
    flagged: str,
    *,
    rate: float = RATE,
    also: np.ndarray | bool = True,
    **about: Any,
) -> dict[str, Variable]:
    """Return the variables `p_value`, `q_value` and `flag` (layer, head) of a test of every head.

    Args:
        meaning: what p is the probability of ("p of no change").
        flagged: what a flagged head does ("changes").
        rate: of false discoveries; a head is flagged where q is below it.
        also: what else a head must meet to be flagged.
        about: further attributes of `flag`, such as the margin of the test.
    """
    q_value = adjusted(p_value)
    flag = (q_value < rate) & also
    flag_attributes = {"long_name": flagged, "units": "1", "false_discovery_rate": rate, **about}
    return {
        "p_value": (HEADS, p_value.astype("float32"), {"long_name": meaning, "units": "1"}),
        "q_value": (
            HEADS,
            q_value.astype("float32"),
            {"long_name": "p adjusted for all heads", "units": "1"},
        ),
        "flag": (HEADS, flag.astype("int8"), flag_attributes),
    }

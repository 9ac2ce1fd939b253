"""Numbers as a page holds them: four digits, more than any interval here can tell apart."""

from __future__ import annotations

import math

import numpy as np

DIGITS = 4


def numbers(values: np.ndarray) -> list[float | None]:
    """Return numbers as JSON knows them, in one row: rounded, and nothing for what is none."""
    return [None if not math.isfinite(one) else shortest(one) for one in np.ravel(values).tolist()]


def shortest(value: float) -> float | int:
    rounded = float(f"{value:.{DIGITS}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e6 else rounded

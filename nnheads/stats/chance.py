"""Tests of a mean over cases against a number that chance would give.

    p = greater_than(values, 0.05)  # values [case, ...] -> p [...]

The policy, the same for every result:

* Cases without a value (NaN) are left out.
* Fewer than two known cases have no p (NaN), and what has no p is never flagged.
* Cases that are all alike within the rounding of single precision leave nothing to test: their
  value alone decides. p is 0 where it is beyond the margin by more than rounding, and 1 elsewhere.
* All others are tested by Student's t.

Where the values are differences of much larger numbers, their own size does not show how far
rounding reaches. Then give the `size` of these numbers: what is within the rounding of it counts
as nothing, because its sign differs from machine to machine.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats as scipy_stats

ROUNDING = 1e-6  # about eight units of single precision, as a share of a number's size

Cases = Float[np.ndarray, "case ..."]
Values = Float[np.ndarray, "..."]


class _Sample(NamedTuple):
    """What a test needs to know of the cases, for each head."""

    centre: Values  # their mean beyond the margin
    t: Values
    cases: Values  # of known cases
    alike: np.ndarray  # bool: they differ by no more than rounding
    rounding: Values  # how far it reaches


def greater_than(values: Cases, margin: float = 0.0, *, size: float = 0.0) -> Values:
    """Return the one-sided p of a mean over the first axis that is at most `margin`.

    Args:
        values: [case, ...]; the arithmetic is done in their precision.
        margin: in the unit of the values.
        size: of the numbers whose differences the values are; see the module.

    Returns:
        p [...]; NaN with fewer than two known cases.
    """
    sample = _sample(values, margin, size)
    p_value = scipy_stats.t.sf(sample.t, sample.cases - 1)
    return _decided(sample, p_value, beyond=sample.centre > sample.rounding)


def differs_from(values: Cases, value: float = 0.0, *, size: float = 0.0) -> Values:
    """Return the two-sided p of a mean over the first axis that is `value`.

    Arguments and result are those of `greater_than`.
    """
    sample = _sample(values, value, size)
    p_value = 2 * scipy_stats.t.sf(np.abs(sample.t), sample.cases - 1)
    return _decided(sample, p_value, beyond=np.abs(sample.centre) > sample.rounding)


def _sample(values: Cases, margin: float, size: float) -> _Sample:
    if size:
        values = np.where(np.abs(values) < ROUNDING * size, 0.0, values)
    cases = (~np.isnan(values)).sum(0)
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # too few cases, or all alike: see _decided
        centre = np.nanmean(values, 0) - margin
        spread = np.nanstd(values, 0, ddof=1)
        own_size = np.nanmax(np.abs(values), 0, initial=0.0)
        t = centre / (spread / np.sqrt(cases))
    alike = spread <= ROUNDING * own_size
    rounding = ROUNDING * np.maximum(own_size, max(abs(margin), size))
    return _Sample(centre, t, cases, alike, rounding)


def _decided(sample: _Sample, p_value: Values, beyond: np.ndarray) -> Values:
    """Let the value decide where the cases are alike, and say nothing of fewer than two."""
    by_value = np.where(beyond, 0.0, 1.0)
    known = np.where(sample.alike, by_value, p_value)
    return np.where(sample.cases >= 2, known, np.nan)

"""Tests of values that are far from normal: flipped signs, and ranks.

p = sign_flips(differences)              # paired differences, mostly 0 or 1
auc, p = separation(toward, away)        # two groups
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import stats as scipy_stats

FLIPS = 9999  # of signs, where there are too many cases to try all


def sign_flips(differences: Float[np.ndarray, " case"], seed: int = 0) -> float:
    """Return the two-sided p of differences that are as likely to be above 0 as below.

    Where there are few cases all flips of their signs are tried, and `FLIPS` of them elsewhere.
    """
    if not differences.any():
        return 1.0
    result = scipy_stats.permutation_test(
        (differences.astype(float),),
        lambda values, axis: values.mean(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=FLIPS,
        batch=1000,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def separation(
    toward: Float[np.ndarray, "_case ..."], away: Float[np.ndarray, "_case ..."]
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Return how often a case of the first group is the larger one, and its two-sided p.

    The first is the area under the curve, ties half; the p is Mann and Whitney's.
    """
    test = scipy_stats.mannwhitneyu(toward, away, axis=0)
    return test.statistic / (len(toward) * len(away)), np.asarray(test.pvalue, float)

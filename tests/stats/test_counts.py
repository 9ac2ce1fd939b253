"""Counts of hits against scipy, and a bound on what a sample missed against its definition."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from scipy import stats as scipy_stats

from nnheads.stats import more_hits_than, most_in_all, wilson


def test_wilson_is_scipys():
    for successes, count in ((0, 20), (7, 20), (20, 20)):
        low, high = wilson(np.array(successes), np.array(count))
        plain = scipy_stats.binomtest(successes, count).proportion_ci(method="wilson")
        assert (low, high) == pytest.approx((plain.low, plain.high), abs=1e-9)


@pytest.mark.parametrize(("hits", "null"), [(0, 0.2), (7, 0.2), (20, 0.9), (20, 0.0)])
def test_p_of_hits_is_scipys(hits, null):
    found = more_hits_than(np.array(hits), np.array(20), np.array(null), floor=0.01)
    plain = scipy_stats.binomtest(hits, 20, max(null, 0.01), alternative="greater").pvalue
    assert found == pytest.approx(plain, abs=1e-12)


@pytest.mark.parametrize(("others", "sample"), [(22, 20), (30, 5), (134, 20), (7, 1)])
def test_the_bound_holds_in_19_of_20_samples_whatever_the_truth(others, sample):
    bounds = np.array(
        [most_in_all(others, sample, missed) for missed in range(min(sample, others) + 1)]
    )
    for strong in range(others + 1):
        possible = np.arange(len(bounds))
        chance = scipy_stats.hypergeom.pmf(possible, others, strong, sample)
        assert chance[bounds >= strong].sum() >= 0.95 - 1e-9, strong


def test_the_bound_is_the_largest_number_that_is_not_refuted():
    def at_most(missed: int, strong: int) -> float:
        return sum(comb(strong, k) * comb(40 - strong, 12 - k) for k in range(missed + 1)) / comb(
            40, 12
        )

    for missed in (0, 1, 4):
        bound = most_in_all(40, 12, missed)
        assert at_most(missed, bound) > 0.05 >= at_most(missed, bound + 1)
    assert most_in_all(20, 20, 3) == 3

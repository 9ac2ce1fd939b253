"""Flipped signs against all flips, and ranks against counted pairs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nnheads.stats import separation, sign_flips


@pytest.mark.parametrize("seed", range(4))
def test_p_is_the_share_of_sign_flips_that_do_as_much(seed):
    differences = np.round(np.random.default_rng(seed).normal(0.4, 1, 8), 2)
    flips = np.array(list(itertools.product((1, -1), repeat=8))) * differences
    sums, own = flips.sum(1), differences.sum()
    exact = 2 * min((sums >= own - 1e-9).mean(), (sums <= own + 1e-9).mean())
    assert sign_flips(differences) == pytest.approx(min(1.0, exact), abs=1e-9)


def test_differences_that_are_all_nothing_are_no_evidence():
    assert sign_flips(np.zeros(10)) == 1.0


def test_chance_differences_are_rarely_called_more():
    drawn = np.random.default_rng(0).normal(size=(60, 30))
    assert sum(sign_flips(one) < 0.05 for one in drawn) <= 7


def test_separation_counts_pairs():
    toward, away = np.array([3.0, 1.0, 2.5])[:, None, None], np.array([0.0, 2.0])[:, None, None]
    auc, p_value = separation(toward, away)
    assert auc.shape == p_value.shape == (1, 1) and auc[0, 0] == pytest.approx(5 / 6)
    assert 0 < p_value[0, 0] < 1

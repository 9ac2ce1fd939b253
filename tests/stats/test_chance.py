"""The one policy of tests against chance: what is left out, what has no p, and what its value
decides.
"""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as some
from scipy import stats as scipy_stats

from nnheads import stats
from nnheads.stats import adjusted, differs_from, discoveries, ends, greater_than, resamples

TESTS = [greater_than, differs_from]


def rounded(value: float, cases: int = 20) -> np.ndarray:
    """So many float32 numbers that differ from a value by at most two units of rounding."""
    units = np.random.default_rng(0).integers(-2, 3, cases)
    return (np.float32(value) + units * np.spacing(np.float32(value))).astype(np.float32)


@given(some.sampled_from([-5.0, -0.1, 0.0, 0.3, 2.5]), some.integers(2, 8))
def test_p_of_a_mean_is_scipys_and_sure_where_nothing_varies(shift, count):
    values = np.stack(
        [np.linspace(-1, 2, count) + shift, np.full(count, shift), np.full(count, np.nan)], 1
    )
    p = greater_than(values)
    expected = scipy_stats.ttest_1samp(values[:, 0], 0, alternative="greater").pvalue
    np.testing.assert_allclose(p[0], expected, atol=1e-9)
    np.testing.assert_allclose(p[1], 0 if shift > 0 else 1, atol=1e-6)
    assert np.isnan(p[2]) and np.isnan(greater_than(values[:1])).all()
    both = differs_from(values)
    np.testing.assert_allclose(both[0], scipy_stats.ttest_1samp(values[:, 0], 0).pvalue, atol=1e-9)
    np.testing.assert_allclose(both[1], 0 if shift else 1, atol=1e-6)
    assert np.isnan(both[2]) and np.isnan(differs_from(values[:1])).all()


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cases_without_a_value_are_left_out(test, dtype):
    values = np.random.default_rng(1).normal(0.2, 1, (20, 3)).astype(dtype)
    gaps = np.concatenate([values[:19], np.full((1, 3), np.nan, dtype)])
    np.testing.assert_array_equal(test(gaps), test(values[:19]))
    assert np.isfinite(test(gaps)).all()


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize("known", [0, 1])
def test_fewer_than_two_known_cases_have_no_p_and_no_flag(test, known):
    values = np.full((5, 2, 3), np.nan)
    values[:known] = 9.0
    p = test(values)
    assert p.shape == (2, 3) and np.isnan(p).all()
    assert not discoveries(p, "p", "flagged")["flag"][1].any()
    assert np.isnan(test(np.empty((0, 2, 3)))).all()


@pytest.mark.parametrize("size", [1e-7, 0.3, 1e6])
def test_cases_that_differ_by_rounding_alone_are_decided_by_their_value(size):
    alike = np.stack([rounded(size), rounded(-size), np.zeros(20, np.float32)], 1)
    assert len(np.unique(alike[:, 0])) > 1, "or the comparison says nothing"
    for values in (alike, alike.astype(float)):
        assert greater_than(values).tolist() == [0, 1, 1]
        assert differs_from(values).tolist() == [0, 0, 1]
    with_a_gap = np.concatenate([alike[:19], np.full((1, 3), np.nan, np.float32)])
    assert greater_than(with_a_gap).tolist() == [0, 1, 1]


def test_a_value_within_rounding_of_the_margin_is_not_beyond_it():
    values = np.stack([rounded(0.05), rounded(0.0501), np.full(20, 0.05, np.float32)], 1)
    assert greater_than(values, 0.05).tolist() == [1, 0, 1]
    assert differs_from(values, 0.05).tolist() == [1, 0, 1]


def test_what_is_within_the_rounding_of_what_was_subtracted_is_nothing():
    noise = np.random.default_rng(2).normal(2e-7, 1e-7, (20, 1)).astype(np.float32)
    values = np.concatenate([noise, noise + np.float32(1e-4)], 1)
    assert greater_than(values)[0] < 0.01, "or the comparison says nothing"
    p = greater_than(values, size=1.0)
    assert p[0] == 1 and p[1] < 1e-9


def test_cases_that_differ_by_more_than_rounding_are_tested():
    values = 1 + np.linspace(-1e-4, 1e-4, 20)[:, None]
    expected = scipy_stats.ttest_1samp(values[:, 0], 1 - 1e-5, alternative="greater").pvalue
    np.testing.assert_allclose(greater_than(values, 1 - 1e-5), expected, rtol=1e-6)


def test_flags_are_those_of_the_adjusted_p_and_of_what_else_is_asked():
    p = np.array([[0.001, 0.2, np.nan], [0.004, 0.02, 0.9]])
    found = discoveries(p, "p of nothing", "something", rate=0.05, margin=0.1)
    expected = np.array(adjusted(p), np.float32)
    np.testing.assert_array_equal(found["q_value"][1], expected)
    assert found["flag"][1].tolist() == [[1, 0, 0], [1, 1, 0]]
    assert found["flag"][2]["false_discovery_rate"] == 0.05 and found["flag"][2]["margin"] == 0.1
    assert found["p_value"][2]["long_name"] == "p of nothing"
    less = discoveries(p, "p", "something", also=p < 0.002)
    assert less["flag"][1].tolist() == [[1, 0, 0], [0, 0, 0]]


def test_resamples_draw_all_cases_and_their_ends_are_those_of_the_bootstrap():
    counts = resamples(30, 3)
    assert counts.shape == (stats.RESAMPLES, 30) and (counts.sum(1) == 30).all()
    np.testing.assert_array_equal(counts, resamples(30, np.random.default_rng(3)))
    values = np.random.default_rng(4).normal(1, 2, 30)
    low, high = ends(counts @ values / 30)
    labelled = stats.mean(xr.DataArray(values, dims="batch", name="value"))
    assert abs(low - float(labelled["value_low"])) < 0.15
    assert abs(high - float(labelled["value_high"])) < 0.15


def test_ends_leave_resamples_without_a_value_out_only_where_told():
    drawn = np.stack([np.linspace(0, 1, 101), np.full(101, np.nan)], 1)
    drawn[100, 0] = np.nan
    assert np.isnan(np.stack(ends(drawn))).all()
    low, high = ends(drawn, skipna=True)
    assert np.isclose(low[0], 0.025 * 0.99) and np.isclose(high[0], 0.975 * 0.99)
    assert np.isnan([low[1], high[1]]).all()


def test_ranks_leave_out_what_is_not_known_or_put_it_last():
    values = np.array([[1.0, np.nan], [3.0, 1.0]])
    assert stats.ranked(values).tolist() == [2, 0, 3]
    assert stats.ranked(values, lowest=True).tolist() == [0, 3, 2]
    assert stats.ranked(values, unknown=True).tolist() == [2, 0, 3, 1]
    heads = xr.DataArray(values, {"layer": [4, 7]}, ("layer", "head"))
    assert stats.ranked_heads(heads) == [(7, 0), (4, 0), (7, 1)]
    assert stats.ranked_heads(heads.T, unknown=True) == [(7, 0), (4, 0), (7, 1), (4, 1)]

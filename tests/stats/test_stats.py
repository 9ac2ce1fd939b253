"""Means, intervals and rankings against closed forms and scipy, and what attributes become."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import xarray as xr
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from nnheads import stats
from nnheads.errors import BadInput
from nnheads.models.names import head_name, parse_head, parse_numbers
from nnheads.patching.metrics import normalised_effect

ATTRIBUTES = {
    "long_name": "effect of a head",
    "units": "logit",
    "source": "someone",
    "valid_min": 0.0,
}


def scores(values, name: str = "effect", **attributes) -> xr.DataArray:
    """(batch, layer, head) with the numbers of real layers and heads."""
    values = np.asarray(values, np.float32)
    dims = ("batch", "layer", "head")[: values.ndim]
    coordinates = {dim: range(size) for dim, size in zip(dims, values.shape)}
    return xr.DataArray(values, coordinates, dims, name, {**ATTRIBUTES, **attributes})


def normal(n: int, layers: int = 2, heads: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(1.0, 2.0, (n, layers, heads))


def close_to(interval, out: xr.Dataset, layer: int, head: int, tolerance: float) -> None:
    """Assert that a head's interval is SciPy's, as far as drawing allows."""
    assert abs(float(out["effect_low"][layer, head]) - interval.low) < tolerance
    assert abs(float(out["effect_high"][layer, head]) - interval.high) < tolerance


def test_the_mean_is_the_mean_and_its_interval_is_scipys():
    values = normal(30)
    out = stats.mean(scores(values), seed=5)
    assert out["effect"].dims == ("layer", "head") and out["effect"].dtype == np.float32
    np.testing.assert_allclose(out["effect"], values.mean(0), rtol=1e-5)
    plain = scipy_stats.bootstrap(
        (np.float32(values[:, 1, 2]).astype(float),),
        np.mean,
        n_resamples=20_000,
        method="percentile",
        rng=0,
    ).confidence_interval
    close_to(plain, out, 1, 2, 0.1)
    assert bool((out["effect_low"] < out["effect"]).all()) and bool(
        (out["effect"] < out["effect_high"]).all()
    )


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    out = stats.mean(scores(normal(40, 20, 25, seed=3)))
    covered = float(((out["effect_low"] <= 1.0) & (out["effect_high"] >= 1.0)).mean())
    assert 0.91 <= covered <= 0.97, "500 heads whose true mean is 1"


def test_the_same_seed_gives_the_same_interval_and_another_does_not():
    values = scores(normal(12))
    assert stats.mean(values, seed=1).identical(stats.mean(values, seed=1))
    assert not stats.mean(values, seed=1).identical(stats.mean(values, seed=2))


@pytest.mark.parametrize("cases", [2, 12, 301])
def test_the_same_cases_are_drawn_as_by_scipy(cases):
    """Every cell's ends, also with gaps, where a resample may hold no case with a value."""
    values, weights = np.float32(normal(cases)), np.random.default_rng(1).uniform(1, 2, cases)
    values[1::3, 0, 0] = np.nan
    together = np.moveaxis(values, 0, -1).astype(float)
    options = {"n_resamples": stats.RESAMPLES, "method": "percentile", "axis": -1}

    def ends_of(data, statistic):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of gaps
            options["rng"] = np.random.default_rng(7)
            drawn = scipy_stats.bootstrap(data, statistic, paired=True, vectorized=True, **options)
        ends = np.nanquantile(drawn.bootstrap_distribution, [0.025, 0.975], axis=-1)
        return np.where((~np.isnan(values)).sum(0) > 1, ends, np.nan)

    out = stats.mean(scores(values), seed=7)
    expected = ends_of((together,), lambda one, axis: np.nanmean(one, axis))
    found = [out["effect_low"], out["effect_high"]]
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-6)

    ratio = stats.ratio_of_means(scores(values), scores(weights, "gap"), seed=7)
    known = np.where(np.isnan(together), np.nan, weights)
    expected = ends_of(
        (together, known), lambda a, b, axis: np.nansum(a, axis) / np.nansum(b, axis)
    )
    found = [ratio["effect_low"], ratio["effect_high"]]
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-6)


def test_an_infinite_value_is_in_the_resamples_that_hold_it_alone():
    values = np.zeros((12, 2, 1))
    values[4, 1] = np.inf
    out = stats.mean(scores(values), seed=0)
    assert float(out["effect_low"][1, 0]) == 0 and not np.isfinite(out["effect_high"][1, 0])
    assert out["effect_low"][0, 0] == out["effect_high"][0, 0] == 0


def test_constant_scores_have_an_interval_of_no_width():
    out = stats.mean(scores(np.full((5, 2, 3), 0.25)))
    for name in ("effect", "effect_low", "effect_high"):
        np.testing.assert_array_equal(out[name], 0.25)


def test_cases_without_a_value_are_left_out():
    values = normal(20)
    values[10:] = np.nan
    with_gaps, without = stats.mean(scores(values)), stats.mean(scores(values[:10]))
    xr.testing.assert_identical(with_gaps, without)
    values = normal(20)
    values[3:, 0, 0] = np.nan
    values[:, 1, 1] = np.nan
    out = stats.mean(scores(values))
    np.testing.assert_allclose(out["effect"][0, 0], values[:3, 0, 0].mean(), rtol=1e-5)
    assert (
        float(out["effect_low"][0, 0])
        <= float(out["effect"][0, 0])
        <= float(out["effect_high"][0, 0])
    )
    assert all(np.isnan(float(out[name][1, 1])) for name in ("effect", "effect_low", "effect_high"))
    assert bool(np.isfinite(out["effect_low"]).sum() == 5)


@pytest.mark.parametrize(
    "values", [normal(1), np.where(np.arange(4)[:, None, None] == 2, normal(4), np.nan)]
)
def test_one_case_has_a_mean_and_no_interval(values):
    out = stats.mean(scores(values))
    np.testing.assert_allclose(out["effect"], np.nanmean(values, 0), rtol=1e-5)
    assert bool(out["effect_low"].isnull().all()) and bool(out["effect_high"].isnull().all())


def test_no_case_at_all_has_no_mean():
    for values in (np.full((3, 2, 2), np.nan), np.empty((0, 2, 2))):
        assert bool(stats.mean(scores(values)).to_dataarray().isnull().all())


def test_the_ratio_of_means_is_the_ratio_of_sums():
    top, bottom = normal(25), np.random.default_rng(1).normal(4.0, 1.0, 25)
    out = stats.ratio_of_means(scores(top), scores(bottom, "gap"))
    np.testing.assert_allclose(out["effect"], top.mean(0) / bottom.mean(), rtol=1e-5)
    plain = scipy_stats.bootstrap(
        (top[:, 0, 0], bottom),
        lambda a, b, axis: a.mean(axis) / b.mean(axis),
        paired=True,
        vectorized=True,
        n_resamples=20_000,
        method="percentile",
        rng=0,
    ).confidence_interval
    close_to(plain, out, 0, 0, 0.04)


def test_numerator_and_denominator_are_resampled_together():
    bottom = np.random.default_rng(1).uniform(1.0, 9.0, 15)
    out = stats.ratio_of_means(
        scores(np.float32(bottom)[:, None, None] * 0.5), scores(bottom, "gap")
    )
    for name in ("effect", "effect_low", "effect_high"):
        np.testing.assert_allclose(out[name], 0.5, rtol=1e-5)


def test_a_case_counts_in_both_sums_or_in_neither():
    top, bottom = normal(6), np.arange(1.0, 7.0)
    top[0], bottom[5] = np.nan, np.nan
    out = stats.ratio_of_means(scores(top), scores(bottom, "gap"))
    np.testing.assert_allclose(out["effect"], top[1:5].sum(0) / bottom[1:5].sum(), rtol=1e-5)
    one_head = normal(6)
    one_head[:3, 0, 0] = np.nan
    out = stats.ratio_of_means(scores(one_head), scores(np.arange(1.0, 7.0), "gap"))
    np.testing.assert_allclose(
        out["effect"][0, 0], one_head[3:, 0, 0].sum() / (4 + 5 + 6), rtol=1e-5
    )


def test_a_ratio_of_nothing_is_no_number():
    for top, bottom in (
        (np.full((3, 1, 1), np.nan), np.full(3, np.nan)),
        (np.zeros((3, 1, 1)), np.zeros(3)),
    ):
        out = stats.ratio_of_means(scores(top), scores(bottom, "gap"))
        assert bool(out.to_dataarray().isnull().all())


@pytest.mark.parametrize(
    ("out", "units", "method"),
    [
        (stats.mean(scores(normal(4))), "logit", "batch: mean"),
        (stats.mean(scores(normal(1))), "logit", "batch: mean"),
        (
            stats.ratio_of_means(scores(normal(4)), scores(np.ones(4), "gap")),
            "1",
            "batch: sum of numerators over sum of denominators",
        ),
    ],
    ids=["mean", "one case", "ratio"],
)
def test_attributes_stay_true_after_a_reduction(out, units, method):
    assert set(out.data_vars) == {"effect", "effect_low", "effect_high"} and "batch" not in out.dims
    value = out["effect"].attrs
    assert value["long_name"] == "effect of a head" and value["source"] == "someone"
    assert value["units"] == units and value["cell_methods"] == method
    assert value["ancillary_variables"] == "effect_low effect_high"
    for end in ("low", "high"):
        bound = out[f"effect_{end}"].attrs
        side = {"low": "lower", "high": "upper"}[end]
        assert bound["long_name"] == f"{side} end of the 95% bootstrap interval of effect of a head"
        assert bound["units"] == units and bound["source"] == "someone"
        assert not {"cell_methods", "ancillary_variables"} & set(bound)


def test_a_reduction_leaves_its_input_alone():
    values, before = scores(normal(4)), scores(normal(4))
    stats.mean(values)
    stats.ratio_of_means(values, scores(np.ones(4), "gap"))
    assert values.identical(before)


# ---- normalised effects


def test_effects_are_0_without_a_change_and_1_for_the_whole_difference():
    base, donor = scores([1.0, -2.0], "base"), scores([3.0, 2.0], "donor")
    swapped = scores(np.array([[[1.0, 3.0, 5.0]], [[-2.0, 2.0, -4.0]]]))
    effect = normalised_effect(swapped, base, donor, 0.1)
    np.testing.assert_allclose(effect, [[[0, 1, 2]], [[0, 1, -0.5]]])
    assert (
        effect.name == "effect"
        and effect.dtype == np.float32
        and effect.dims == ("batch", "layer", "head")
    )
    assert effect.attrs == {
        "long_name": "normalised effect",
        "units": "1",
        "cases_masked": 0,
        "gap_threshold": 0.1,
    }


@pytest.mark.parametrize(
    ("threshold", "masked"), [(0.0, 1), (0.05, 1), (0.1, 1), (0.5, 2), (1e9, 4)]
)
def test_small_gaps_are_masked_and_counted(threshold, masked):
    base, donor = scores([0.0, 0.0, 0.0, 0.0], "base"), scores([0.0, 0.125, -1.0, 2.0], "donor")
    effect = normalised_effect(scores(np.ones((4, 1, 2))), base, donor, threshold)
    assert effect.attrs["cases_masked"] == masked
    assert int(effect.isnull().all(["layer", "head"]).sum()) == masked
    assert not bool(np.isinf(effect).any()), "no gap at all says nothing, whatever the threshold"


def test_padding_stays_unknown_and_is_no_masked_case():
    swapped = scores(np.array([[[np.nan, 1.0]]]))
    effect = normalised_effect(swapped, scores([0.0]), scores([2.0]), 0.1)
    np.testing.assert_array_equal(effect, [[[np.nan, 0.5]]])
    assert effect.attrs["cases_masked"] == 0


# ---- more than chance


def masses(mass, null=0.1) -> xr.Dataset:
    mass = scores(mass, "mass")
    return xr.Dataset(
        {"mass": mass, "null": xr.full_like(mass, null).rename("null")}, attrs={"seed": 1}
    )


def test_p_values_are_those_of_a_one_sided_t_test_corrected_for_all_heads():
    values = np.random.default_rng(2).normal(0.2, 0.1, (12, 3, 4))
    out = stats.calibrate(masses(values), margin=0.05)
    plain = scipy_stats.ttest_1samp(
        np.float32(values) - np.float32(0.1), 0.05, axis=0, alternative="greater"
    ).pvalue
    np.testing.assert_allclose(out["p_value"], plain, rtol=1e-3)
    np.testing.assert_allclose(
        out["q_value"],
        scipy_stats.false_discovery_control(plain, axis=None).reshape(3, 4),
        rtol=1e-3,
    )
    assert ((out["flag"] == 1) == (out["q_value"] < 0.05)).all() and out.attrs == {"seed": 1}
    np.testing.assert_allclose(out["excess"], values.mean(0) - 0.1, atol=1e-5)
    assert {"mass_low", "null", "excess_high"} <= set(out.data_vars)
    for name in ("mass", "excess", "p_value", "flag"):
        assert out[name].attrs["long_name"] and out[name].attrs["units"]


def test_heads_at_chance_are_hardly_ever_flagged_and_strong_ones_always():
    values = np.random.default_rng(3).normal(0.15, 0.1, (20, 20, 20))
    values[:, 0, :5] += 0.5
    flag = stats.calibrate(masses(values), margin=0.05)["flag"]
    assert bool((flag[0, :5] == 1).all()) and int(flag.sum()) - 5 <= 2


def test_heads_without_spread_or_without_cases_are_judged_without_a_warning():
    values = np.full((4, 1, 3), 0.15)
    values[:, 0, 1], values[:, 0, 2] = 0.9, np.nan
    out = stats.calibrate(masses(values, 0.1), margin=0.1)
    assert out["flag"].values.tolist() == [[0, 1, 0]] and out["p_value"].values[0, :2].tolist() == [
        1.0,
        0.0,
    ]
    assert np.isnan(out["p_value"].values[0, 2])
    assert not stats.calibrate(masses(normal(1)))["flag"].any(), "one case proves nothing"


# ---- rankings and arguments


def test_heads_are_ranked_by_value_and_unknown_ones_never():
    table = np.array([[0.5, np.nan, -1.0], [2.0, 0.5, 0.0]], np.float32)
    dims = ("layer", "head")
    heads = xr.Dataset(
        {
            "effect": (dims, table),
            "effect_low": (dims, table - 1),
            "effect_high": (dims, table + 1),
        },
        {"layer": [4, 7], "head": [0, 1, 2]},
    )
    best = stats.top_heads(heads, "effect", 3)
    assert [(head["layer"], head["head"]) for head in best] == [
        (7, 0),
        (4, 0),
        (7, 1),
    ], "ties in order of place"
    assert best[0]["value"] == 2.0 and best[0]["low"] == 1.0 and best[0]["high"] == 3.0
    worst = stats.top_heads(heads, "effect", 2, lowest=True)
    assert [(head["layer"], head["head"]) for head in worst] == [(4, 2), (7, 2)]
    assert len(stats.top_heads(heads, "effect", 100)) == 5
    assert stats.top_heads(heads.where(False), "effect") == []
    assert stats.top_heads(stats.mean(scores(normal(1))), "effect", 1)[0]["low"] != 0


@given(st.integers(0, 999), st.integers(0, 999))
def test_a_head_is_read_back_from_both_ways_of_writing_it(layer, head):
    for text in (head_name(layer, head), f"{layer}.{head}", f" l{layer}h{head} "):
        assert parse_head(text) == (layer, head)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "9",
        "9.",
        ".9",
        "9.6.1",
        "L9",
        "H6",
        "L9.6",
        "-1.2",
        "9,6",
        "a.b",
        "9.6x",
        "9" * 5000 + ".1",
        "²." + "1",
    ],
)
def test_what_is_no_head_is_refused(text):
    with pytest.raises(BadInput, match="Not a head"):
        parse_head(text)


@given(st.text(max_size=8))
def test_any_text_is_a_head_or_refused(text):
    try:
        layer, head = parse_head(text)
    except BadInput:
        return
    assert layer >= 0 and head >= 0


@given(st.sets(st.integers(0, 30), min_size=1))
def test_numbers_and_ranges_are_read(wanted):
    ordered = sorted(wanted)
    assert parse_numbers(",".join(map(str, ordered)), "layer", 31) == ordered
    assert parse_numbers(f"{ordered[0]} - {ordered[-1]}", "layer", 31) == list(
        range(ordered[0], ordered[-1] + 1)
    )
    assert parse_numbers("0,2,5-8,2", "layer", 9) == [0, 2, 5, 6, 7, 8]


@given(st.text("0123456789,- x", max_size=8), st.integers(1, 20))
@example("9" * 5000, 3)
@example("0-999999999", 3)
def test_any_text_is_a_list_of_numbers_or_refused(text, limit):
    try:
        numbers = parse_numbers(text, "layer", limit)
    except BadInput as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert (
            numbers and numbers == sorted(set(numbers)) and 0 <= numbers[0] and numbers[-1] < limit
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Not a list of layers: ''"),
        ("0,,2", "Not a list of layers"),
        ("a", "Not a list of layers: 'a'"),
        ("-1", "Not a list of layers: '-1'"),
        ("1-", "Not a list of layers: '1-'"),
        ("3", "layer 3 does not exist"),
        ("0-3", "layer 3 does not exist"),
        ("2-1", "runs backwards"),
    ],
)
def test_what_is_no_list_of_numbers_is_refused(text, message):
    with pytest.raises(BadInput, match=message):
        parse_numbers(text, "layer", 3)


def test_rank_correlations_are_scipys_in_every_row():
    first, second = np.random.default_rng(0).integers(0, 9, (2, 5, 20)).astype(float)  # with ties
    found = stats.spearman(first, second)
    np.testing.assert_allclose(
        found, [scipy_stats.spearmanr(a, b).statistic for a, b in zip(first, second)], atol=1e-12
    )


def test_rank_correlations_that_say_nothing_are_not_numbers():
    assert np.isnan(stats.spearman(np.array([1.0, 2.0]), np.array([1.0, 2.0])))
    assert np.isnan(stats.spearman(np.zeros(5), np.arange(5.0)))
    assert stats.spearman(np.arange(5.0), -np.arange(5.0)) == pytest.approx(-1)


@pytest.mark.parametrize(("flagged", "expected"), [(0, True), (6, True), (7, False), (12, False)])
def test_flags_of_most_heads_single_none_out(flagged, expected):
    flag = xr.DataArray(np.arange(12).reshape(3, 4) < flagged, dims=("layer", "head"))
    assert stats.is_selective(flag.astype("int8")) is expected

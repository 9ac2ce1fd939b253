"""Comparing two lists of heads: known rankings, prompts that count in different ways, and what is
refused.
"""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from random_models import placed
from scipy import stats as scipy_stats

import nnheads
from nnheads.compare.drift import compare
from nnheads.compare.resampled import headline, interval
from nnheads.compare.settings import computed_in, settings
from nnheads.detectors._catalog import types
from nnheads.detectors._detect import calibrated
from nnheads.detectors._scores import raw_scores
from nnheads.errors import BadInput


def scores(values: np.ndarray, **attributes) -> xr.Dataset:
    """Scores (batch, layer, head) of a made-up type, against random targets that get nothing."""
    dims = ("batch", "layer", "head")
    about = {"long_name": "mass", "units": "1"}
    data = {
        "mass": (dims, values.astype("float32"), about),
        "null": (dims, np.zeros_like(values, "float32"), about),
    }
    index = {name: range(size) for name, size in zip(dims, values.shape)}
    return xr.Dataset(data, index, {"headline": "mass", "prompts_sha256": "same", **attributes})


def cases(means: list, count: int = 12, noise: float = 0.0) -> xr.Dataset:
    """Two layers of heads with these means."""
    wanted = np.array(means, float).reshape(2, -1)
    return scores(wanted + noise * np.random.default_rng(0).standard_normal((count, *wanted.shape)))


FIRST = [0.9, 0.8, 0.5, 0.3, 0.02, 0.01]


def test_numbers_by_hand():
    found = compare(cases(FIRST), cases([0.8, 0.9, 0.5, 0.02, 0.3, 0.01]), top=4)
    ranks = scipy_stats.spearmanr([6, 5, 4, 3, 2, 1], [5, 6, 4, 2, 3, 1]).statistic
    assert float(found["rank_correlation"]) == pytest.approx(ranks, abs=1e-6)
    assert float(found["overlap"]) == 0.75 and float(found["overlap_chance"]) == pytest.approx(
        4 / 6
    )
    assert float(found["largest"]) == pytest.approx(0.28, abs=1e-6)
    np.testing.assert_allclose(
        found["difference"].values.ravel(), [-0.1, 0.1, 0, -0.28, 0.28, 0], atol=1e-6
    )
    assert (int(found["gained"]), int(found["lost"])) == (1, 1)
    named = scipy_stats.spearmanr([5, 4, 3, 2, 1], [4, 5, 3, 1, 2]).statistic
    assert float(found["rank_correlation_named"]) == pytest.approx(named, abs=1e-6)
    assert found["named"].values.tolist() == [[1, 1, 1], [1, 1, 0]], "flagged on either side"
    assert found["flag"].values.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert found["flag_against"].values.tolist() == [[1, 1, 1], [0, 1, 0]]
    assert all(
        variable.attrs["long_name"] and variable.attrs["units"]
        for variable in found.data_vars.values()
    )
    assert "valid_min" not in found["difference"].attrs, "a difference has the ends of no score"


def test_the_same_scores_do_not_drift():
    same = compare(cases(FIRST, noise=0.1), cases(FIRST, noise=0.1), top=3)
    for name in (
        "overlap",
        *(f"rank_correlation{of}{end}" for of in ("", "_named") for end in ("", "_low", "_high")),
    ):
        assert float(same[name]) == pytest.approx(1), name
    assert float(same["largest"]) == float(same["gained"]) == float(same["lost"]) == 0


def test_heads_that_score_nothing_decide_no_ranks_of_those_that_do():
    """Forty heads near 0 whose order is noise, and four whose order is turned round."""
    generator = np.random.default_rng(1)
    noise = [generator.normal(0, 1e-3, 40) for _ in range(2)]
    sides = [
        cases([*first, *rest])
        for first, rest in zip(([0.9, 0.8, 0.7, 0.6], [0.6, 0.7, 0.8, 0.9]), noise)
    ]
    found = compare(*sides, top=4)
    assert int(found["named"].sum()) == 4
    assert float(found["rank_correlation_named"]) == -1 < -0.5 < float(found["rank_correlation"])


def test_without_flags_the_top_of_either_side_is_compared():
    quiet = cases([0.04, 0.03, 0.02, 0.01, 0.0, 0.0]), cases([0.04, 0.02, 0.03, 0.0, 0.01, 0.0])
    found = compare(*quiet, top=3)
    assert int(found["flag"].sum() + found["flag_against"].sum()) == 0
    assert found["named"].values.tolist() == [[1, 1, 1], [0, 0, 0]]
    assert float(found["rank_correlation_named"]) == pytest.approx(0.5)
    one = compare(cases([0.9, 0.02, 0.01, 0, 0, 0]), cases([0.9, 0.01, 0.02, 0, 0, 0]), top=3)
    assert int(one["flag"].sum()) == 1 and int(one["named"].sum()) == 3, (
        "one or two heads have no ranks to compare"
    )


def test_an_interval_covers_what_other_prompts_say():
    """Noise that differs between the sides; the truth is the correlation without noise."""
    generator, inside = np.random.default_rng(5), 0
    for trial in range(40):
        heads, other = generator.random(24), generator.normal(0, 0.2, 24)
        pair = [
            scores((mean + generator.normal(0, 0.05, (30, 24))).reshape(30, 2, 12))
            for mean in (heads, heads + other)
        ]
        low, high = interval(*pair, seed=trial)
        inside += low <= scipy_stats.spearmanr(heads, heads + other).statistic <= high
        assert low < high
    assert inside >= 34


def test_answers_to_one_question_are_drawn_together():
    alone, pair = [cases(FIRST, noise=noise) for noise in (0.6, 1.0)], []
    for one in alone:
        thrice = one.isel(batch=np.repeat(np.arange(12), 3))
        question = np.repeat(np.arange(12), 3)
        pair.append(thrice.assign_coords(batch=np.arange(36), question=("batch", question)))
    assert interval(*pair, seed=1) == pytest.approx(interval(*alone, seed=1), abs=1e-6)
    free = [one.drop_vars("question") for one in pair]
    free_width, pair_width = (
        np.mean([np.ptp(interval(*one, seed=seed)) for seed in range(8)]) for one in (free, pair)
    )
    assert free_width < 0.8 * pair_width


def test_one_prompt_has_no_interval():
    assert np.isnan(interval(cases(FIRST, count=1), cases(FIRST, count=1), 0)).all()


def test_nothing_to_compare_is_no_number():
    empty = scores(np.full((4, 2, 3), np.nan))
    found = compare(cases(FIRST, count=4), empty, top=3)
    ranks = [f"rank_correlation{of}{end}" for of in ("", "_named") for end in ("", "_low", "_high")]
    for name in (*ranks, "overlap", "largest"):
        assert np.isnan(float(found[name])), name
    assert int(found["lost"]) == 4 and int(found["gained"]) == 0


def test_prompts_that_count_differ_between_the_sides():
    """A contrast of answered and other prompts, where the sides do not answer the same."""
    raw = cases(FIRST, noise=0.3)
    for answered in ([1] * 6 + [0] * 6, [0, 1] * 6):
        for role in ("contrast", "counts"):
            own = raw.assign_coords(answered=("batch", answered)).assign_attrs({role: "answered"})
            heads = calibrated(own)
            once = headline(own, np.ones((1, 12)))
            np.testing.assert_allclose(
                once[0], heads[heads.attrs["headline"]].values.ravel(), atol=1e-6
            )


def test_every_type_is_ranked_by_its_own_headline():
    raw = raw_scores(
        nnheads.load(),
        list(types()),
        n=6,
        seed=0,
        batch_size=8,
        quiet=True,
        parts=None,
        lengths=[90],
    )
    assert {"induction", "truthfulness", "generated_retrieval"} <= set(raw)
    for kind, own in raw.items():
        heads = calibrated(own)
        once = headline(own, np.ones((1, own.sizes["batch"])))[0]
        np.testing.assert_allclose(
            once, heads[heads.attrs["headline"]].values.ravel(), atol=1e-6, err_msg=kind
        )


def test_other_prompts_and_too_many_heads_are_refused():
    with pytest.raises(BadInput, match="not scored on the same prompts"):
        compare(cases(FIRST), cases(FIRST).assign_attrs(prompts_sha256="other"))
    with pytest.raises(BadInput, match=r"--top 7.* 6"):
        compare(cases(FIRST), cases(FIRST), top=7)


PLAIN = {"dtype": "float32", "quantization": None, "attention": None, "remote": False}


@pytest.mark.parametrize(
    ("given", "second"),
    [
        (("float32", None, "bfloat16", False), {**PLAIN, "dtype": "bfloat16"}),
        (("float32", None, "eager", False), {**PLAIN, "attention": "eager"}),
        (("float32", None, "4bit", False), {**PLAIN, "dtype": "auto", "quantization": "4bit"}),
        (("float32", None, "remote", "http://x"), {**PLAIN, "remote": "http://x"}),
    ],
)
def test_the_sides_differ_in_what_was_named(given, second):
    assert settings(*given) == (PLAIN, second)


def test_weights_in_fewer_bits_are_compared_with_a_server_that_holds_its_own():
    first, second = settings("auto", "4bit", "remote", True)
    assert (
        first["quantization"] == "4bit"
        and second["quantization"] is None
        and second["remote"] is True
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_dtype_of_a_model_is_read_where_it_runs(dtype):
    model = nnheads.load(dtype=dtype)
    prompts = nnheads.ioi(model.tokenizer, n=2)
    assert computed_in(model, prompts) == placed("local", computed_in)(model, prompts) == dtype

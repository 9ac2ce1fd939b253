"""Results and their repetitions, made by hand: what is the same, what drifted, and what is said to
differ.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

from nnheads.compare.repeat import circumstances, compare, tolerance_of


def result(values, **changes) -> xr.Dataset:
    source = {
        "model": "m",
        "revision": "main",
        "commit": "a" * 40,
        "dtype": "float32",
        "attention": "sdpa",
    }
    attributes = {
        "history": "2026-01-01T00:00:00Z nnheads ioi",
        "arguments": {"limit": 4, "weights": "a", "output": "x"},
        "packages": {"torch": "2.6"},
        "git_commit": "b" * 40,
        "git_dirty": 0,
        "tokenizer_sha256": "c" * 64,
        "prompts_sha256": "d" * 64,
        "seed": 0,
        "device": "cpu",
        "kept": 4,
    }
    source |= changes.pop("source", {})
    attributes |= changes
    text = {
        key: json.dumps(value) if isinstance(value, dict) else value
        for key, value in attributes.items()
    }
    scores = xr.DataArray(np.asarray(values, "float32"), dims=("layer", "head"))
    return xr.Dataset(
        {"score": scores}, {"name": ("layer", list("ab"))}, {**text, "source": json.dumps(source)}
    )


BASE = np.array([[1.0, 2.0, 3.0], [4.0, np.nan, -5.0]])


def score(first, second, **options):
    return next(change for change in compare(first, second, **options) if change.name == "score")


def test_the_same_to_the_last_bit():
    assert {change.verdict for change in compare(result(BASE), result(BASE))} == {"exact"}
    assert circumstances(result(BASE), result(BASE)) == []


def test_rounding_is_drift_and_more_is_not():
    little = score(result(BASE), result(BASE + np.array([[0, 0, 0], [0, 0, 4e-4]])))
    assert little.verdict == "drift" and little.cells == 1 and little.size == 6
    np.testing.assert_allclose([little.largest, little.relative], [4e-4, 8e-5], rtol=1e-2)
    much = score(result(BASE), result(BASE + np.array([[0, 0, 0], [0, 0, 6e-4]])))
    assert much.verdict == "different" and not much.same
    assert score(result(BASE), result(BASE + 0.05), tolerance=0.02).verdict == "drift"


def test_the_coarser_dtype_decides_what_rounding_explains():
    coarse = result(BASE + 0.05, source={"dtype": "bfloat16"})
    assert score(result(BASE), coarse).verdict == score(coarse, result(BASE)).verdict == "drift"
    assert tolerance_of(
        result(BASE, source={"dtype": "float32, weights 4bit nf4"})
    ) == tolerance_of(coarse)


def test_ranks_say_whether_heads_stand_as_they_did():
    assert score(result(BASE), result(2 * BASE)).rank_correlation == pytest.approx(1)
    assert score(result(BASE), result(-BASE)).rank_correlation == pytest.approx(-1)


def test_values_that_come_and_go_are_no_drift():
    assert score(result(BASE), result(np.nan_to_num(BASE))).verdict == "different"
    assert score(result(np.zeros((2, 3))), result(np.full((2, 3), 1e-9))).verdict == "different"


def test_whole_numbers_and_words_are_the_same_or_not():
    flags = [result(BASE).assign(score=("layer", np.array([0, value], "int8"))) for value in (0, 1)]
    assert (
        score(*flags).verdict == "different" and score(*flags, tolerance=1.0).verdict == "different"
    )
    other = result(BASE).assign_coords(name=("layer", ["a", "c"]))
    (name,) = [change for change in compare(result(BASE), other) if change.name == "name"]
    assert (name.verdict, name.cells) == ("different", 1)


def test_variables_and_shapes_that_change():
    other = result(BASE).rename(score="points")
    assert {change.name: change.verdict for change in compare(result(BASE), other)} == {
        "score": "missing",
        "points": "new",
        "name": "exact",
    }
    assert score(result(BASE), result(BASE).isel(head=[0])).verdict == "different"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"source": {"commit": "e" * 40}}, "weights: aaaaaaaaaaaa -> eeeeeeeeeeee"),
        ({"source": {"dtype": "bfloat16"}}, "dtype: float32 -> bfloat16"),
        ({"source": {"attention": "eager"}}, "attention: sdpa -> eager"),
        ({"device": "cuda, NVIDIA H100"}, "device: cpu -> cuda, NVIDIA H100"),
        ({"tokenizer_sha256": "e" * 64}, "tokenizer: cccccccccccc -> eeeeeeeeeeee"),
        ({"prompts_sha256": "e" * 64}, "prompts: dddddddddddd -> eeeeeeeeeeee"),
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"arguments": {"limit": 6}}, "argument limit: 4 -> 6"),
        ({"packages": {"torch": "2.7"}}, "version of torch: 2.6 -> 2.7"),
        ({"packages": {"torch": "2.6", "numpy": "2"}}, "version of numpy: not recorded -> 2"),
        ({"git_commit": "f" * 40}, "commit of nnheads: bbbbbbbbbbbb -> ffffffffffff"),
        ({"git_dirty": 1}, "nnheads had changes that were not committed, here or there"),
        ({"kept": 3}, "kept: 4 -> 3"),
    ],
)
def test_everything_that_is_recorded_is_compared(change, line):
    assert circumstances(result(BASE), result(BASE, **change)) == [line]


def test_attributes_that_are_no_json_stop_nothing():
    assert circumstances(result(BASE, packages="{"), result(BASE, packages="[]")) == []

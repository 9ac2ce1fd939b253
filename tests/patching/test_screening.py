"""Screen and verify: the exact numbers are the sweep's, and the bound on what was missed keeps its
promise.
"""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from random_models import placed, tiny
from scipy.stats import spearmanr
from swaps import pairs

from nnheads.errors import BadInput, RunError
from nnheads.patching.attribution import attribute
from nnheads.patching.audit import DRAWN, FOUND, NEXT, audit
from nnheads.patching.patch import patch
from nnheads.patching.screening import choose, estimate, members, screen, usual_top
from nnheads.stats import most_in_all
from nnheads.writing.logit_attribution import direct_logit_attribution


def exact_change(prompts, site: str = "z", noising: bool = False) -> xr.DataArray:
    scores = patch(tiny("llama")[0], prompts, site=site, noising=noising, gap=0.0)
    return (
        scores["logit_difference"]
        - scores[f"{'clean' if noising else 'corrupted'}_logit_difference"]
    )


@pytest.mark.parametrize(
    ("site", "noising"), [("z", False), ("z", True), ("k", False), ("attn_out", False)]
)
def test_what_is_patched_is_exact_and_the_rest_is_left_open(site, noising, padded):
    prompts = pairs(padded)
    found = screen(tiny("llama")[0], prompts, site=site, noising=noising, top=2, sample=1, seed=3)
    chosen = found["chosen"]
    assert (chosen == FOUND).sum() == 2 and (chosen == DRAWN).sum() == 1
    exact = exact_change(prompts, site, noising)
    assert found["change"].dims == exact.dims
    np.testing.assert_allclose(found["change"], exact.where(chosen > 0), atol=2e-5)
    estimated = attribute(tiny("llama")[0], prompts, site=site, noising=noising)
    xr.testing.assert_allclose(found["estimate"], estimated["estimate"])
    least = estimated["size"].mean("batch").values[chosen.values == FOUND].min()
    assert (estimated["size"].mean("batch").values[chosen.values != FOUND] <= least).all()


def test_all_others_audited_is_the_whole_truth(padded):
    prompts = pairs(padded)
    truth = abs(exact_change(prompts)).mean("batch").values
    found = screen(tiny("llama")[0], prompts, method="atp", top=3, sample=99)
    top = found["chosen"].values == FOUND
    assert int(found["others"]) == int(found["audited"]) == 9
    assert float(found["threshold"]) == pytest.approx(truth[top].min(), abs=1e-5)
    assert (
        int(found["missed"])
        == int(found["missed_most"])
        == (truth[~top] > truth[top].min() + 1e-5).sum()
    )
    assert float(found["missed_share"]) == pytest.approx(int(found["missed"]) / 9)
    size = attribute(tiny("llama")[0], prompts, method="atp")["size"].mean("batch").values
    assert float(found["rank_correlation"]) == pytest.approx(
        spearmanr(size.ravel(), truth.ravel()).statistic, abs=1e-6
    )


def test_a_threshold_of_ones_own(padded):
    prompts = pairs(padded)
    model, _ = tiny("llama")
    every = screen(model, prompts, top=3, sample=99, threshold=0.0)
    assert int(every["missed"]) == 9 and float(every["threshold"]) == 0.0
    none = screen(model, prompts, top=3, sample=99, threshold=1e9)
    assert int(none["missed"]) == int(none["missed_most"]) == 0


def test_without_a_sample_nothing_is_known_of_the_others(padded):
    found = screen(tiny("llama")[0], pairs(padded), top=3, sample=0)
    assert (
        int(found["missed"]) == 0
        and int(found["missed_most"]) == 9
        and bool(found["missed_share"].isnull())
    )
    everything = screen(tiny("llama")[0], pairs(padded), top=99, sample=5)
    assert int(everything["others"]) == int(everything["missed_most"]) == 0


def sizes(values) -> xr.Dataset:
    return xr.Dataset(
        {"size": (("batch", "layer", "head"), np.asarray(values, np.float32))}
    ).assign_coords(batch=[0], layer=[2, 5], head=[0, 1, 2])


def test_the_top_is_the_top_and_the_sample_is_of_the_others():
    scores = sizes([[[1, 9, 2], [8, 3, 0]]])
    chosen = choose(scores, 2, 2, seed=1)
    assert np.argwhere(chosen.values == FOUND).tolist() == [[0, 1], [1, 0]]
    assert np.argwhere(chosen.values == NEXT).tolist() == [[1, 1]]
    assert (chosen == DRAWN).sum() == 1
    assert members(chosen)[0][0] in (2, 5) and (2, 1) in members(chosen)
    drawn = {tuple(members(choose(scores, 2, 2, seed=seed))) for seed in range(40)}
    assert len(drawn) == 3, "any of the three that are left can be drawn"
    assert choose(scores, 2, 2, seed=1).equals(chosen)


@pytest.mark.parametrize(("units", "expected"), [(32, 10), (144, 10), (270, 18), (1024, 69)])
def test_more_heads_of_a_larger_model_are_patched(units, expected):
    assert usual_top(units) == expected
    scores = xr.Dataset({"size": (("batch", "layer", "head"), np.random.rand(1, units, 1))})
    chosen = choose(scores.assign_coords(layer=range(units), head=[0]), None, 4)
    assert int((chosen == FOUND).sum()) == expected


def test_what_the_next_ones_miss_is_counted_and_the_rest_is_bounded():
    size = np.arange(40, 0, -1, dtype=np.float32).reshape(1, 40, 1)
    change = np.where(np.arange(40) == 11, 99, size[0, :, 0]).reshape(1, 40, 1)
    scores = sizes(np.zeros((1, 2, 3))).drop_vars(("size", "layer", "head"))
    scores["size"] = (("batch", "layer", "head"), size)
    scores = scores.assign_coords(layer=range(40), head=[0])
    chosen = choose(scores, 10, 8, seed=0)
    patched = np.where(chosen.values > 0, change, np.nan).astype(np.float32)
    scores["change"] = (("batch", "layer", "head"), patched, {"units": "logit"})
    found = audit(scores, chosen)
    assert [int(found[name]) for name in ("others", "audited", "drawn", "missed")] == [30, 8, 4, 1]
    assert int(found["missed_most"]) == 1 + most_in_all(26, 4, 0)


def test_an_audit_by_hand():
    scores = sizes([[[6, 5, 4], [3, 2, 1]]])
    change = np.array([[[-6, 2, np.nan], [3, 1, np.nan]]], np.float32)
    scores["change"] = (("batch", "layer", "head"), change, {"units": "logit"})
    chosen = scores["size"][0].copy(data=np.array([[1, 1, 0], [2, 2, 0]], np.int8))
    found = audit(scores, chosen)
    facts = {
        name: float(found[name])
        for name in ("threshold", "others", "audited", "missed", "missed_most")
    }
    assert facts == {"threshold": 2, "others": 4, "audited": 2, "missed": 1, "missed_most": 3}
    assert float(found["rank_correlation"]) == pytest.approx(0.8)
    np.testing.assert_array_equal(found["exact_size"], [[6, 2, np.nan], [3, 1, np.nan]])


@pytest.mark.parametrize("noising", [False, True])
def test_direct_estimates_are_what_the_source_text_writes_instead(noising, padded):
    model, prompts = tiny("llama")[0], pairs(padded)
    found = estimate(model, prompts, method="direct", noising=noising)
    clean, corrupted = (
        direct_logit_attribution(model, prompts, token=token) for token in ("token", "corrupted")
    )
    change = clean["attribution"] - corrupted["attribution"]
    np.testing.assert_allclose(found["estimate"], -change if noising else change)
    np.testing.assert_allclose(found["size"], abs(change))
    verified = screen(model, prompts, method="direct", top=2, sample=0, noising=noising)
    assert int((verified["chosen"] == FOUND).sum()) == 2 and verified.attrs["site_meaning"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "acdc"}, r"'acdc'.*atp, atp\*, direct"),
        (
            {"method": "direct", "site": "v"},
            r"direct.*site v.*site z",
        ),
        (
            {"method": "direct", "metric": "logit"},
            "direct.*metric logit_difference",
        ),
        (
            {"top": 0},
            "top 0, sample 30",
        ),
        ({"sample": -1}, "top 10, sample -1"),
        ({"metric": "accuracy"}, "accuracy.*gradient|gradient.*accuracy"),
    ],
)
def test_screens_that_cannot_be_are_refused(options, message, padded):
    with pytest.raises(BadInput, match=message):
        screen(tiny("llama")[0], pairs(padded), **options)


def test_rehearsed_remotely_screens_the_same(padded):
    here, there = (
        placed(remote, screen)(tiny("llama")[0], pairs(padded), top=2, sample=2)
        for remote in (False, "local")
    )
    xr.testing.assert_allclose(here, there, atol=1e-5)
    with pytest.raises(RunError, match="gradients do not run"):
        placed(True, screen)(tiny("llama")[0], pairs(padded))

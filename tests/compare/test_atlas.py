"""Atlas and stability against heads that are known, and numbers worked out by hand."""

from __future__ import annotations

import dataclasses

import headruns
import numpy as np
import pytest
import xarray as xr
from headruns import detected, planted, recorded
from scipy import stats as scipy_stats

from nnheads.compare import atlas, stability
from nnheads.compare.emergence import emergence, step_of
from nnheads.compare.entries import Entry, entries_of
from nnheads.compare.group_names import file_name, group_names
from nnheads.compare.overlap import depth_map, overlap
from nnheads.errors import BadInput
from nnheads.runs import store
from nnheads.runs.find import find_runs


def entries(folder) -> list[Entry]:
    return entries_of(find_runs([folder])[0])


@pytest.fixture
def pair(tmp_path):
    """Two types of one model that share one of two heads."""
    detected(tmp_path, "induction", planted(4, 5, (1, 2), (3, 0)))
    detected(tmp_path, "retrieval", planted(4, 5, (1, 2), (2, 4)))
    return entries(tmp_path)


def test_entries_hold_the_headline_and_relative_depth(pair):
    first = pair[0]
    assert (first.model, first.revision, first.type, first.shape) == (
        "owner--model",
        "main",
        "induction",
        (4, 5),
    )
    assert set(first.heads) == {"score", "low", "high", "null", "q_value", "flag"}
    np.testing.assert_allclose(first.heads["depth"], [0, 1 / 3, 2 / 3, 1], rtol=1e-6)
    assert first.heads.attrs["statistic"] == "mass" and first.scores.sizes["batch"] == 12


def test_overlap_of_heads(pair):
    found = overlap(pair, top=2)
    assert float(found["jaccard_flagged"][0, 1]) == pytest.approx(1 / 3)
    assert float(found["jaccard_top"][0, 1]) == pytest.approx(1 / 3)
    chance = 0.2 / (4 - 0.2)  # two of twenty: 0.2 heads shared
    assert float(found["jaccard_chance"][0, 1]) == pytest.approx(chance)
    np.testing.assert_allclose(np.diag(found["jaccard_top"]), 1)
    a, b = (one.heads["score"].values.ravel() for one in pair)
    assert float(found["spearman"][1, 0]) == pytest.approx(
        scipy_stats.spearmanr(a, b).statistic, abs=1e-6
    )
    assert found["kind"].values.tolist() == ["induction", "retrieval"]
    with pytest.raises(BadInput, match="list of 0"):
        overlap(pair, top=0)


def test_effects_of_either_sign_are_alike_by_their_size():
    """A path below zero helps as an effect above zero does: the same heads are the strongest."""
    helps = bump(7, 0.5)
    entries = [
        Entry("m", "main", name, name, (helps * sign).assign_attrs(first=first))
        for name, sign, first in (
            ("ioi", 1, "size"),
            ("path", -1, "size"),
            ("growth", -1, "lowest"),
        )
    ]
    found = overlap(entries, 3)
    for other in (1, 2):
        assert float(found["jaccard_top"][0, other]) == 1
        assert float(found["spearman"][0, other]) == pytest.approx(1)
        assert float(found["profile"][0, other]) == pytest.approx(1)


def test_chance_is_what_random_lists_share():
    generator = np.random.default_rng(0)
    drawn = [
        stability.jaccard(
            *(set(generator.choice(100, 20, replace=False).tolist()) for _ in range(2))
        )
        for _ in range(4000)
    ]
    assert stability.chance_jaccard(20, 100) == pytest.approx(np.mean(drawn), abs=0.01)


def bump(layers: int, at: float) -> xr.Dataset:
    """One head a layer, strongest about a relative depth."""
    depth = np.linspace(0, 1, layers)
    score = xr.DataArray(
        np.exp(-(((depth - at) / 0.15) ** 2))[:, None], {"layer": range(layers)}, ("layer", "head")
    )
    return xr.Dataset({"score": score.assign_coords(head=[0])}).assign_coords(
        depth=("layer", depth)
    )


def test_models_of_other_sizes_share_the_axis_of_depth():
    made = [
        Entry(f"m{i}", "main", "t", "t", bump(*how))
        for i, how in enumerate([(13, 0.4), (41, 0.4), (25, 0.6)])
    ]
    found = overlap(made, top=1)
    assert float(found["profile"][0, 1]) > 0.97 and float(found["shift"][0, 1]) == 0
    assert np.isnan(found["spearman"][0, 1]) and np.isnan(found["jaccard_top"][0, 1])
    # the third is strongest a fifth of the depth later: it must be moved up by as much
    assert float(found["shift"][1, 2]) == pytest.approx(-0.2) and float(
        found["shift"][2, 1]
    ) == pytest.approx(0.2)
    assert float(found["profile_shifted"][1, 2]) > 0.97 > float(found["profile"][1, 2]) + 0.2
    depth = depth_map({(one.model,): one.heads for one in made})
    assert depth.shape == (3, 21) and float(depth.max("depth").min()) == 1


def test_emergence_stands_in_the_order_of_steps(tmp_path):
    strengths = {"step143000": 0.9, "step2000": 0.4, "step1000": 0.01, "step10000": 0.02}
    for revision, by in strengths.items():
        detected(tmp_path, "induction", planted(3, 4, (1, 2), by=by), revision=revision)
    detected(tmp_path, "other", planted(3, 4, (1, 2)))
    ((place, curves),) = emergence(entries(tmp_path)).items()
    assert place == ("owner--model", "induction") and curves["step"].values.tolist() == [
        1000,
        2000,
        10000,
        143000,
    ]
    np.testing.assert_allclose(curves["strongest"], [0.013, 0.4, 0.02, 0.9], atol=0.01)
    assert curves["flagged"].values.tolist() == [0, 1, 0, 1]
    onset = curves["onset"].values  # flagged at 2000 and then no more does not count
    assert onset[1, 2] == 143000 and np.isnan(onset).sum() == 11


@pytest.mark.parametrize(
    ("revision", "step"),
    [
        ("step3000", 3000),
        ("stage1-step1000-tokens5B", 1000),
        ("step_7", 7),
        ("main", None),
        ("v2", None),
    ],
)
def test_steps_in_names(revision, step):
    assert step_of(revision) == step


def test_revisions_without_steps_keep_their_order(tmp_path):
    for revision in ("alpha", "beta"):
        detected(tmp_path, "induction", planted(3, 4, (1, 2)), revision=revision)
    (curves,) = emergence(entries(tmp_path)).values()
    assert "step" not in curves.coords and curves["revision"].values.tolist() == ["alpha", "beta"]
    assert curves["onset"].values[1, 2] == 0


def test_base_and_tuned_on_the_same_prompts(tmp_path):
    detected(tmp_path, "induction", planted(3, 4, (1, 2), (2, 0)), model="a--base", cases=30)
    detected(
        tmp_path, "induction", planted(3, 4, (1, 2), (0, 3)), model="b--tuned", cases=30, seed=1
    )
    base, tuned = entries(tmp_path)
    found = atlas.changes(base, tuned)
    assert found.attrs["paired"] == 1 and np.argwhere(found["flag"].values).tolist() == [
        [0, 3],
        [2, 0],
    ]
    assert float(found["difference"][0, 3]) == pytest.approx(0.74, abs=0.01)
    assert (
        float(found["difference_low"][0, 3])
        < float(found["difference"][0, 3])
        < float(found["difference_high"][0, 3])
    )
    each = (tuned.scores["mass"] - base.scores["mass"])[:, 1, 2]
    assert float(found["p_value"][1, 2]) == pytest.approx(
        scipy_stats.ttest_1samp(each, 0).pvalue, rel=1e-4
    )
    same = atlas.changes(base, base)
    assert int(same["flag"].sum()) == 0 and float(same["p_value"].min()) == 1


def test_base_and_tuned_on_other_prompts_have_no_test(tmp_path):
    detected(tmp_path, "induction", planted(3, 4, (1, 2)), model="a--base")
    detected(
        tmp_path, "induction", planted(3, 4), model="b--tuned", attrs={"prompts_sha256": "others"}
    )
    base, tuned = entries(tmp_path)
    found = atlas.changes(base, tuned)
    assert set(found) == {"difference"} and found.attrs["paired"] == 0
    np.testing.assert_allclose(found["difference"], tuned.heads["score"] - base.heads["score"])
    with pytest.raises(BadInput, match="cannot be compared"):
        atlas.changes(base, Entry("m", "main", "t", "t", bump(5, 0.5)))


def test_heads_with_several_roles(pair):
    found = atlas.roles(pair)
    assert (
        int(found["count"][1, 2]) == 2
        and str(found["which"][1, 2].values) == "induction; retrieval"
    )
    assert int(found["count"].sum()) == 4 and str(found["which"][0, 0].values) == ""
    with pytest.raises(BadInput, match="score of m flags heads"):
        atlas.roles([Entry("m", "main", "t", "t", bump(5, 0.5))])


def test_what_most_heads_do_is_no_role(pair):
    flag = xr.ones_like(pair[0].heads["flag"])
    sink = dataclasses.replace(
        pair[0], type="sink", kind="sink", heads=pair[0].heads.assign(flag=flag)
    )
    found = atlas.roles([*pair, sink])
    assert found.attrs["common"] == "sink" and int(found["flag"].sel(type="sink").sum()) == 20
    np.testing.assert_array_equal(found["count"], atlas.roles(pair)["count"])
    assert "sink" not in "".join(map(str, found["which"].values.ravel()))


def test_a_model_that_was_asked_twice_has_two_entries(tmp_path):
    for place, seed in (("first", 0), ("second", 1)):
        detected(tmp_path / place, "induction", planted(3, 4, (1, 2)), seed=seed)
    made = entries(tmp_path)
    assert [(one.type, one.kind) for one in made] == [
        ("induction", "induction"),
        ("induction (2)", "induction"),
    ]
    assert float(overlap(made, top=1)["jaccard_top"][0, 1]) == 1
    assert int(atlas.roles(made)["count"][1, 2]) == 1, "one type, however often it was asked"


def test_runs_without_heads_are_no_atlas(tmp_path):
    recorded(tmp_path / "run", "steer", [])
    with pytest.raises(BadInput, match="say nothing of single heads"):
        entries(tmp_path)


def test_names_of_groups_are_plain_and_different():
    places = [
        ("heads", "../a", "x/y"),
        ("heads", "../a", "x-y"),
        ("heads", "a", "x"),
        ("heads", "", "."),
    ]
    found = group_names(places)
    assert found == ["/heads/a/x-y", "/heads/a/x-y~2", "/heads/a~2/x", "/heads/unnamed/unnamed"]
    assert file_name("../a b") == "a-b" and file_name("...") == "unnamed"


def sample(strength: np.ndarray, cases: int, seed: int, noise: float = 0.35) -> xr.Dataset:
    """Prompts that differ a good deal."""
    made = headruns.scores(strength, cases=cases, noise=noise, seed=seed)
    mass = strength + np.random.default_rng(seed).normal(
        0, noise, made["mass"].shape
    )  # without ends at 0 and 1
    return made.assign(mass=made["mass"].copy(data=mass.astype(np.float32))).assign_attrs(
        headline="mass"
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_needed_n_predicts_how_alike_new_prompts_are(seed):
    """Predicted from one pilot, checked on pairs of samples that it never saw."""
    generator = np.random.default_rng(3)
    strength = 0.7 * generator.random((12, 12))
    pilot = stability.stability(sample(strength, 2000, seed), top=20, draws=40)
    for target in (0.6, 0.7):
        n = int(stability.needed_n(pilot["n"].values, pilot["jaccard"].values, target))
        assert 40 < n < 250
        each = []
        for number in range(40):
            pair = [
                sample(strength, n, 1000 + 2 * number + half)["mass"].mean("batch").values
                for half in (0, 1)
            ]
            each.append(
                stability.jaccard(*(stability.best(one.ravel(), 20, generator) for one in pair))
            )
        assert np.mean(each) == pytest.approx(target, abs=0.05)


def test_stability_rises_with_prompts_and_stops_at_one():
    found = stability.stability(
        sample(planted(5, 6, (1, 2), (3, 3)), 60, 0, noise=0.3), top=2, draws=40
    )
    curve = found["jaccard"].values
    assert found["n"].values[[0, -1]].tolist() == [2, 30] and curve[-1] > 0.99 and curve[0] < 0.97
    assert (found["jaccard_low"] <= found["jaccard"]).all() and (
        found["jaccard"] <= found["jaccard_high"]
    ).all()
    half = float(found["reliability"])
    assert float(found["reliability_all"]) == pytest.approx(2 * half / (1 + half), rel=1e-5)
    assert found.attrs["prompts"] == 60 and float(found["jaccard_chance"]) == pytest.approx(
        (4 / 30) / (4 - 4 / 30)
    )


def test_heads_that_all_score_nothing_are_no_stable_list():
    found = stability.stability(sample(np.zeros((5, 8)), 40, 0, noise=0.0), top=4, draws=60)
    assert float(found["jaccard"].max()) < 0.15 and found["needed_n"].isnull().all()


def test_spearman_brown_holds_for_twice_as_many():
    strength = np.random.default_rng(0).random((10, 10)) * 0.3
    whole = stability.stability(sample(strength, 200, 0), top=5, draws=30)
    half = stability.stability(sample(strength, 100, 0), top=5, draws=30)
    assert float(half["reliability_all"]) == pytest.approx(float(whole["reliability"]), abs=0.06)


def test_needed_n_is_read_off_a_curve_that_never_falls():
    sizes = np.array([2, 4, 8, 16])
    assert (
        stability.needed_n(sizes, np.array([0.2, 0.4, 0.6, 0.8]), 0.7) == 12
    )  # halfway in log n: 11.3
    assert stability.needed_n(sizes, np.array([0.9, 0.9, 0.9, 0.9]), 0.8) == 2
    assert np.isnan(stability.needed_n(sizes, np.array([0.2, 0.4, 0.6, 0.7]), 0.8))
    assert np.isnan(stability.needed_n(sizes, np.full(4, np.nan), 0.8))


def test_answers_to_one_question_stay_together():
    made = sample(planted(3, 4, (1, 2)), 12, 0).assign_coords(
        question=("batch", np.repeat(np.arange(4), 3))
    )
    assert stability.stability(made, top=1, draws=5)["n"].values.tolist() == [2]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"headline": "none"}, {}, "'none' is not known for single prompts"),
        ({}, {"top": 12}, "12 of the 12"),
        ({}, {"top": 0}, "0 of the 12"),
    ],
)
def test_stability_refuses(change, options, message):
    made = sample(planted(3, 4, (1, 2)), 12, 0)
    with pytest.raises(BadInput, match=message):
        stability.stability(made.assign_attrs(change), **{"top": 2, **options})
    with pytest.raises(BadInput, match="3 prompts cannot be split into halves"):
        stability.stability(made.isel(batch=slice(3)), top=2)


def test_stability_is_saved_and_read_again(tmp_path):
    made = stability.stability(sample(planted(3, 4, (1, 2)), 12, 0), top=2, draws=5)
    again = store.load(store.save(tmp_path / "stability.nc", made))
    xr.testing.assert_allclose(again, made)

"""Circuits: removed sets against plain hooks, measures against hand-made models, and what is
refused.
"""

from __future__ import annotations

import contextlib

import numpy as np
import oracle
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from random_models import VOCABULARY, placed, tiny
from swaps import ANSWERS, pairs, runs

from nnheads.errors import BadInput, RunError
from nnheads.patching import readings as engine
from nnheads.patching.circuit import alone, check_groups, every_head, removal
from nnheads.patching.circuit_cuts import Search, completeness, minimality, sampled
from nnheads.patching.circuit_numbers import area_to_one, area_under, numbers
from nnheads.patching.circuit_runs import SIZES, study
from nnheads.patching.faithfulness import interval, judge, knocked_out, order, shares_of_cases

FAMILIES = ["gpt2", "llama", "bloom", "falcon", "gptj", "gemma2", "gpt_oss", "qwen3"]
EVERYTHING = frozenset((layer, head) for layer in range(3) for head in range(4))


def mean_set(prompts: xr.Dataset) -> xr.Dataset:
    """Three other prompts of each prompt's length."""
    generator = torch.Generator().manual_seed(5)
    rows = prompts.isel(batch=[0, 1, 0, 1, 1, 0])
    drawn = torch.randint(4, VOCABULARY, rows["token"].shape, generator=generator).numpy()
    return rows.assign(token=(("batch", "position"), drawn * rows["mask"].values)).assign_coords(
        batch=range(6)
    )


def ablated(model_type: str, prompts: xr.Dataset, reference: xr.Dataset, removed) -> np.ndarray:
    """Logit difference [case] with the removed heads at the mean over reference rows of the same
    length.
    """
    _, module = tiny(model_type)
    ids, mask = (torch.from_numpy(reference[name].values).long() for name in ("token", "mask"))
    others = oracle.fed(model_type, ids, mask)
    _, clean = runs(model_type, prompts)
    means = {}
    for layer in {layer for layer, _ in removed}:
        z = oracle.value_at(module, model_type, others, layer, "z")
        means[layer] = torch.stack(
            [z[mask.sum(1) == own].mean(0) for own in clean["attention_mask"].sum(1)]
        )
    with contextlib.ExitStack() as stack:
        for layer, mean in means.items():
            heads = [head for own, head in sorted(removed) if own == layer]

            def exchange(value, mean=mean, heads=heads):
                value, shape = value.clone(), (*value.shape[:2], 4, -1)
                value.view(shape)[:, :, heads] = mean.view(shape)[:, :, heads]
                return value

            stack.enter_context(oracle.hooked(module, model_type, layer, "z", exchange))
        own = oracle.end_logits(module, clean).gather(-1, ANSWERS)
    return (own[:, 0] - own[:, 1]).numpy()


@pytest.mark.parametrize("model_type", FAMILIES)
def test_an_ablated_complement_equals_plain_hooks(model_type, padded):
    prompts, (model, _) = pairs(padded), tiny(model_type)
    reference = mean_set(prompts)
    remove = removal(model, prompts, reference=reference)
    circuits = [frozenset({(0, 1), (2, 3)}), frozenset({(1, 0)}), frozenset()]
    found = remove([alone(EVERYTHING, circuit) for circuit in circuits])
    for column, circuit in enumerate(circuits):
        expected = ablated(model_type, prompts, reference, EVERYTHING - circuit)
        np.testing.assert_allclose(found[:, column], expected, atol=3e-5)
    assert np.ptp(found, axis=1).min() > 1e-4, (
        "circuits must differ, or the comparison says nothing"
    )


@pytest.mark.parametrize("model_type", ["gpt2", "llama", "bloom"])
def test_rehearsed_remotely_gives_the_same_numbers(model_type, padded):
    prompts, (model, _) = pairs(padded), tiny(model_type)
    sets = [EVERYTHING, EVERYTHING - {(0, 1), (2, 3)}, frozenset()]
    here, there = (
        placed(where, lambda m: removal(m, prompts, reference=mean_set(prompts))(sets))(model)
        for where in (False, "local")
    )
    np.testing.assert_allclose(here, there, atol=1e-5)


def test_the_whole_model_as_circuit_is_the_model_exactly(model_type, padded):
    model, _ = tiny(model_type)
    assert every_head(model) == EVERYTHING
    remove = removal(model, pairs(padded), reference=mean_set(pairs(padded)))
    whole, none = remove([alone(EVERYTHING, EVERYTHING), frozenset()]).T
    _, clean = runs(model_type, pairs(padded))
    own = oracle.end_logits(tiny(model_type)[1], clean).gather(-1, ANSWERS)
    assert np.array_equal(whole, none)
    np.testing.assert_allclose(whole, own[:, 0] - own[:, 1], atol=1e-5)


@pytest.mark.parametrize("ablation", ["zero", "uniform", "corrupted", "mean", "resample"])
def test_every_ablation_runs_and_is_of_its_own(ablation, padded):
    prompts = pairs(padded)
    model, module = tiny("llama")
    fresh = prompts.assign(token=prompts["corrupted"]) if ablation in ("mean", "resample") else None
    found = removal(model, prompts, ablation=ablation, reference=fresh)([frozenset({(1, 2)})])[:, 0]
    assert (
        np.abs(found - removal(model, prompts, ablation="zero")([frozenset()])[:, 0]).max() > 1e-5
    )
    if ablation in (
        "corrupted",
        "mean",
        "resample",
    ):  # one prompt of each length: its own corrupted text
        base, clean = runs("llama", prompts)
        where = torch.zeros(2, 9, 4, dtype=torch.bool)
        where[..., 2] = True
        own = oracle.patched_logits(module, "llama", clean, base, 1, "z", where).gather(-1, ANSWERS)
        np.testing.assert_allclose(found, own[:, 0] - own[:, 1], atol=2e-5)


def test_a_set_is_measured_once_and_taken_up_from_its_part(padded, monkeypatch, tmp_path):
    model, _ = tiny("llama")
    sets = [frozenset({(0, 1)}), frozenset({(0, 2), (1, 1)})]
    remove = removal(model, pairs(padded), ablation="zero", parts=tmp_path, batch_size=1)
    first = remove(sets)
    assert len(list(tmp_path.glob("*.nc"))) == 2
    monkeypatch.setattr(engine, "sweep", lambda *_, **__: pytest.fail("measured again"))
    assert np.array_equal(remove(sets[::-1])[:, ::-1], first)
    again = removal(model, pairs(padded), ablation="zero", parts=tmp_path, batch_size=1)
    assert np.array_equal(again(sets), first)


def test_slices_of_the_prompts_share_one_mean_set(padded):
    prompts, (model, _) = pairs(padded), tiny("gpt2")
    alike = prompts.isel(batch=[0, 0, 0]).assign_coords(batch=range(3))
    alike["token"][1:, 6] += 1
    alike["token"][2:, 7] += 1
    whole, sliced = (removal(model, alike, batch_size=size)([EVERYTHING]) for size in (3, 1))
    np.testing.assert_allclose(whole, sliced, atol=1e-5)


def made(worth, cases: int = 6):
    """A model made by hand: the metric is `worth(heads that are left)`, in every case."""
    return lambda sets: np.stack(
        [np.full(cases, float(worth(EVERYTHING - one))) for one in sets], 1
    )


def backup(left) -> float:
    """Head 0.0 does the task with 1.1; where 0.0 is gone, 2.2 does its part."""
    return 2.0 * ((0, 0) in left or (2, 2) in left) + 1.0 * ((1, 1) in left)


def test_a_circuit_that_lacks_a_backup_is_incomplete():
    cuts = completeness(made(backup), EVERYTHING, {"all": [(0, 0), (1, 1)]}, Search(0, 2))
    worst = cuts.worst
    assert cuts.cut[worst] == {(0, 0)} and cuts.kind[worst] == "greedy"
    assert (cuts.first[0, worst], cuts.second[0, worst]) == (1.0, 3.0)
    assert cuts.kind[0] == "none" and cuts.first[0, 0] == cuts.second[0, 0] == 3.0
    whole = completeness(made(backup), EVERYTHING, {"all": sorted(EVERYTHING)}, Search(9))
    assert np.array_equal(whole.first, whole.second)


@pytest.mark.parametrize("options", [{"subsets": 0, "steps": 1}, {"subsets": 40, "steps": 0}])
def test_a_backup_matters_once_what_it_backs_up_is_cut(options):
    groups = {"first": [(0, 0)], "other": [(1, 1)], "spare": [(2, 2)], "idle": [(1, 3)]}
    heads = minimality(made(backup), EVERYTHING, groups, Search(**options))
    change = {
        head: float(np.abs(cuts.first - cuts.second)[0, cuts.worst]) for head, cuts in heads.items()
    }
    assert change == {(0, 0): 2.0, (1, 1): 1.0, (1, 3): 0.0, (2, 2): 2.0}
    assert (0, 0) in heads[2, 2].cut[heads[2, 2].worst] and (2, 2) in heads[0, 0].cut[
        heads[0, 0].worst
    ]


def test_groups_are_cut_as_wholes():
    groups = {"first": [(0, 0), (2, 2)], "other": [(1, 1)]}
    cuts = completeness(made(backup), EVERYTHING, groups, Search(0, 0))
    assert cuts.kind == ["none", "group", "group"] and cuts.cut[1:] == [{(0, 0), (2, 2)}, {(1, 1)}]
    heads = minimality(made(backup), EVERYTHING, groups, Search(0, 0))
    assert heads[0, 0].cut == [frozenset(), {(2, 2)}, {(1, 1)}], "a head is never cut before itself"


@given(
    st.dictionaries(st.text(max_size=3), st.sets(st.sampled_from(sorted(EVERYTHING))), max_size=4),
    st.integers(0, 9),
)
def test_what_is_cut_is_part_of_the_circuit(groups, count):
    circuit = {head for heads in groups.values() for head in heads}
    cuts = sampled(
        {name: sorted(heads) for name, heads in groups.items()}, count, np.random.default_rng(0)
    )
    assert all(cut <= circuit for _, cut in cuts) and cuts[0] == ("none", frozenset())
    assert sum(kind == "random" for kind, _ in cuts) == (count if circuit else 0)


def areas(share: np.ndarray, curve: np.ndarray) -> tuple:
    return area_under(share, curve), area_to_one(share, curve)


def test_areas_over_the_logarithm_are_mean_heights():
    share = np.array(SIZES)
    each = {number.name: number for number in numbers(share, "logit")}
    whole, nothing = np.array([2.0]), np.array([0.0])
    for height, expected in ((1.0, (1.0, 0.0)), (0.25, (0.25, 0.75))):
        values = np.full((1, 10), 2.0 * height)
        for name, value in zip(("cpr_log", "cmd_log"), expected):
            np.testing.assert_allclose(each[name].statistic(values, whole, nothing), value)
    rising = 2.0 * (np.log(share) - np.log(share[0]))[None] / np.log(1000)
    np.testing.assert_allclose(each["cpr_log"].statistic(rising, whole, nothing), 0.5)


def test_areas_are_known():
    share = np.array(SIZES)
    np.testing.assert_allclose(areas(share, np.ones(10)), (0.999, 0.0))
    np.testing.assert_allclose(areas(share, share), (0.4999995, 0.4990005))
    np.testing.assert_allclose(areas(np.log(share), np.ones(10)), (np.log(1000), 0.0))
    np.testing.assert_allclose(
        areas(share, 3 * np.ones(10)), (2.997, 1.998)
    )  # more than the model is no credit in CMD
    np.testing.assert_allclose(
        areas(np.array([0.5, 1.0]), np.array([[0.0, 1.0], [1.0, 1.0]])), [[0.25, 0.5], [0.25, 0]]
    )


def additive(cases: int = 8):
    """Every head adds its layer + 1, times a factor of the case."""
    factor = np.arange(1, cases + 1)
    return lambda sets: np.stack(
        [factor * sum(layer + 1 for layer, _ in EVERYTHING - one) for one in sets], 1
    )


def test_numbers_of_a_model_that_adds_up():
    ranking = sorted(EVERYTHING, reverse=True)
    scores = study(
        additive(), EVERYTHING, {"late": ranking[:4], "one": [(0, 0)]}, ranking, subsets=5, steps=1
    )
    found = judge(scores)
    assert float(found["faithfulness"]) == pytest.approx(13 / 24) and float(
        found["gap"]
    ) == pytest.approx(11 * 4.5)
    assert float(found["faithfulness_low"]) == pytest.approx(13 / 24), (
        "all cases agree on the ratio"
    )
    assert float(found["gap_low"]) < float(found["gap"]) < float(found["gap_high"])
    assert list(found["heads"].values) == [0, 0, 0, 0, 0, 0, 1, 2, 6, 12]
    np.testing.assert_allclose(found["curve"], [0] * 6 + [3 / 24, 6 / 24, 16 / 24, 1], rtol=1e-6)
    members = list(zip(found["member_layer"].values, found["member_head"].values))
    assert members == [(0, 0), (2, 0), (2, 1), (2, 2), (2, 3)]
    np.testing.assert_allclose(found["minimality"], [1 / 24, *[3 / 24] * 4], rtol=1e-6)
    assert set(found["cut_kind"].values) == {"none", "group", "random", "greedy"}
    (
        np.testing.assert_allclose(found["incompleteness"], 11 * 4.5, rtol=1e-6),
        "what is missing is always the same",
    )
    np.testing.assert_allclose(found["random"].mean(), 10 / 24, atol=0.1)
    for name, values in found.data_vars.items():
        assert values.dtype == np.float32 and {"long_name", "units", "source"} <= set(
            values.attrs
        ), name


def test_the_whole_model_is_perfectly_faithful_and_nothing_is_not():
    ranking = sorted(EVERYTHING)
    options = {"subsets": 3, "steps": 1, "draws": 2}
    whole = judge(study(additive(), EVERYTHING, {"all": ranking}, ranking, **options))
    assert float(whole["faithfulness"]) == 1.0 and float(whole["gap"]) == 0.0
    assert float(whole["incompleteness"].max()) == 0.0
    nothing = judge(study(additive(), EVERYTHING, {}, ranking, **options))
    assert float(nothing["faithfulness"]) == 0.0 and "minimality" not in nothing
    assert float(nothing["circuit"]) == float(nothing["empty"]) == 0.0


def test_heads_are_ranked_by_what_is_lost_without_them():
    ranking = knocked_out(additive(), EVERYTHING)
    np.testing.assert_allclose(
        ranking["ranking"], np.repeat([[1 / 24], [2 / 24], [3 / 24]], 4, 1), rtol=1e-6
    )
    assert order(ranking["ranking"])[:4] == [(2, 0), (2, 1), (2, 2), (2, 3)]
    values = xr.DataArray(
        [[0.1, -0.9, np.nan, 0.3]] * 1,
        dims=("layer", "head"),
        coords={"layer": [0], "head": range(4)},
    )
    assert order(values) == [(0, 1), (0, 3), (0, 0), (0, 2)]
    assert order(values, signed=True) == [(0, 3), (0, 0), (0, 1), (0, 2)]


def test_intervals_resample_cases_and_keep_the_direction():
    generator = np.random.default_rng(0)
    drawn = generator.normal(-2.0, 1.0, 400)
    weights = shares_of_cases(400, 0)
    np.testing.assert_allclose(weights.sum(1), 1.0)
    value, low, high = interval(lambda mean: mean, [drawn], weights)
    assert value == drawn.mean() and low < value < high
    assert high - low == pytest.approx(2 * 1.96 * drawn.std() / 20, rel=0.1)
    assert interval(lambda mean: mean, [drawn], weights, absolute=True) == (-value, -high, -low)
    one = interval(lambda mean: mean, [drawn[:1]], shares_of_cases(1, 0))
    assert one[0] == drawn[0] and np.isnan(one[1:]).all()


def test_another_circuit_stands_beside():
    ranking = sorted(EVERYTHING)
    options = {"subsets": 1, "steps": 0, "draws": 1}
    scores = study(
        additive(), EVERYTHING, {"early": ranking[:3]}, ranking, helpers=ranking[-3:], **options
    )
    found = judge(scores)
    assert (float(found["faithfulness"]), float(found["helpers"])) == pytest.approx(
        (3 / 24, 9 / 24)
    )
    assert "helpers" not in judge(
        study(additive(), EVERYTHING, {"early": ranking[:3]}, ranking, **options)
    )
    with pytest.raises(BadInput, match="L0H9"):
        study(additive(), EVERYTHING, {}, ranking, helpers=[(0, 9)])


@pytest.mark.parametrize(
    ("sizes", "shown"),
    [
        ([0, 0.5, 1], "0, 0.5, 1"),
        ([0.5, 0.2, 1], "0.5, 0.2, 1"),
        ([0.5, 0.5], "0.5, 0.5"),
        ([0.5, 1.5], "0.5, 1.5"),
        ([-0.1, 1], "-0.1, 1"),
        ([float("nan"), 1], "nan, 1"),
        ([0.1, float("nan"), 1], "0.1, nan, 1"),
        ([1.0], "1"),
        ([], "none"),
    ],
)
def test_sizes_that_make_no_curve_are_refused(sizes, shown):
    """A share of 0 has no logarithm, and areas over one size, or over sizes back and forth, are
    none.
    """
    message = f"sizes of a curve: {shown}"
    with pytest.raises(BadInput, match=message):
        study(
            lambda sets: pytest.fail("refused too late"),
            EVERYTHING,
            {},
            sorted(EVERYTHING),
            sizes=sizes,
        )
    if sizes:
        scores = study(additive(), EVERYTHING, {}, sorted(EVERYTHING), subsets=0, steps=0, draws=1)
        other = scores.isel(size=slice(len(sizes))).assign_coords(size=sizes)
        with pytest.raises(BadInput, match=message):
            judge(other)


def test_heads_that_make_no_difference_leave_the_curve_open():
    ranking = sorted(EVERYTHING)
    found = judge(
        study(
            made(lambda left: 1.0),
            EVERYTHING,
            {"all": ranking[:3]},
            ranking,
            subsets=2,
            steps=1,
            draws=1,
        )
    )
    assert float(found["faithfulness"]) == 1.0 and float(found["minimality"].max()) == 0.0
    assert (
        bool(found["curve"].isnull().all())
        and np.isnan(float(found["cpr"]))
        and np.isnan(float(found["cmd"]))
    )


def test_shares_of_nothing_are_refused():
    ranking = sorted(EVERYTHING)
    scores = study(
        made(lambda left: -0.5), EVERYTHING, {"all": ranking}, ranking, subsets=1, steps=0, draws=1
    )
    with pytest.raises(RunError, match=r"does not do this task: F\(M\) is -0\.500"):
        judge(scores)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"a": [(0, 1), (0, 1)]}, "L0H1.* twice in a"),
        (
            {"a": [(0, 1)], "b": [(1, 1), (0, 1)]},
            "L0H1.* two groups, a and b",
        ),
        ({"a": [(0, 4)]}, "L0H4"),
    ],
)
def test_groups_that_cannot_be_are_refused(groups, message):
    with pytest.raises(BadInput, match=message):
        check_groups(groups, EVERYTHING)


def test_other_refusals(padded):
    model, _ = tiny("llama")
    with pytest.raises(BadInput, match=r"'shuffle'.* mean, zero"):
        removal(model, pairs(padded), ablation="shuffle")
    other = mean_set(pairs(padded)).assign_coords(template=("batch", [7] * 6))
    with pytest.raises(BadInput, match="template 0"):
        removal(model, pairs(padded), reference=other)([EVERYTHING])
    with pytest.raises(BadInput, match=r"ranking names 2 heads.* 12"):
        study(additive(), EVERYTHING, {}, [(0, 0), (0, 1)])

"""Effects of heads alone, together and after each other: known answers, plain hooks, and the
shipped model.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
import xarray as xr
from random_models import placed, tiny
from swaps import pairs
from test_knockout import alike, hooked_difference

import nnheads
from nnheads.errors import BadInput
from nnheads.patching import interaction
from nnheads.patching.adding_up import is_at_end, verdict
from nnheads.patching.behaviours import ask_for
from nnheads.patching.interaction import candidates, interactions, stepping_in, summary

LIST = [(0, 1), (1, 2), (2, 3)]
CASES = 12


def readings_of(monkeypatch, effect, metric: str = "logit", base: float = 10.0):
    """Put a rule in place of the model: `effect(heads, case)` is the change that ablating these
    heads makes.
    """

    def without(model, prompts, lists, **_):
        change = np.array(
            [[effect(set(one), case) for one in lists] for case in range(CASES)], np.float32
        )
        before = np.full(CASES, base, np.float32)
        about = {"units": "logit", "long_name": "a number"}
        data = {"change": (("batch", "group"), change), f"base_{metric}": ("batch", before, about)}
        data[metric] = (("batch", "group"), change + before[:, None], about)
        return xr.Dataset(data, {"batch": range(CASES)}, {"metric": metric})

    monkeypatch.setattr(interaction, "without", without)


def found(**options) -> tuple[xr.Dataset, xr.Dataset]:
    scores = interactions(tiny("llama")[0], None, LIST, pairs=True, backup=True, **options)
    return scores, summary(scores)


def weight(head: tuple[int, int], case: int) -> float:
    return -0.25 * (1 + head[0] + 4 * head[1]) * (1 + case)


def test_what_adds_up_has_no_interactions(monkeypatch):
    readings_of(monkeypatch, lambda heads, case: sum(weight(head, case) for head in heads))
    scores, reduced = found()
    for name in ("shift", "surplus"):
        np.testing.assert_array_equal(scores[name], 0)
    assert np.isnan(scores["pair"].values[:, range(3), range(3)]).all()
    np.testing.assert_array_equal(scores["pair_surplus"].fillna(0), 0)
    np.testing.assert_array_equal(scores["growth"].fillna(0), 0)
    for place, head in enumerate(LIST):
        expected = [weight(head, case) for case in range(CASES)]
        np.testing.assert_array_equal(scores["alone"].isel(member=place), expected)
        np.testing.assert_array_equal(scores["last"].isel(member=place), expected)
        assert scores["growth"].sel(layer=head[0], head=head[1]).isnull().all(), (
            "a head of the list cannot step in"
        )
    assert int(scores["growth"].notnull().all("batch").sum()) == 12 - 3
    assert reduced.attrs["adds_up"] == 1 and "warning" not in reduced.attrs
    assert stepping_in(reduced, 5) == [] and candidates(reduced, 5) == []


def test_pairs_are_symmetric_and_each_has_its_own_number(monkeypatch):
    readings_of(
        monkeypatch,
        lambda heads, case: -float(sum(1 + 10 * layer + head for layer, head in heads) ** 2),
    )
    scores, _ = found()
    own = [1 + 10 * layer + head for layer, head in LIST]
    for a in range(3):
        for b in range(3):
            one = scores["pair_surplus"].isel(member=a, other=b)
            if a != b:
                np.testing.assert_allclose(one, -2.0 * own[a] * own[b])
                np.testing.assert_allclose(
                    scores["pair"].isel(member=a, other=b), -((own[a] + own[b]) ** 2.0)
                )
    assert list(scores["member"].values) == list(scores["other"].values) == ["L0H1", "L1H2", "L2H3"]


def test_heads_that_stand_in_for_each_other_are_said_to(monkeypatch):
    """Nothing is lost until all of the list and one more head are gone."""
    readings_of(
        monkeypatch,
        lambda heads, case: -8.0 * ({*LIST, (2, 0)} <= heads) - 1.0 * (set(LIST) <= heads),
    )
    scores, reduced = found()
    assert (
        (scores["alone"] == 0).all()
        and (scores["last"] == -1).all()
        and (scores["shift"] == -1).all()
    )
    assert reduced["joint"] == -1 and reduced["sum_of_parts"] == 0 and reduced["surplus"] == -1
    assert reduced.attrs["adds_up"] == 0 and "stand in for each other" in reduced.attrs["warning"]
    (one,) = stepping_in(reduced, 5)
    assert (one["layer"], one["head"], one["value"]) == (2, 0, -8)
    assert candidates(reduced, 5) == [{**one, "flag": True}]
    unsure = reduced.assign(flag=reduced["flag"] * 0)
    assert candidates(unsure, 5) == [{**one, "flag": False}], "named, and not said to step in"
    assert candidates(unsure.assign(growth=unsure["growth"] * 1e-3), 5) == [], "next to no growth"
    assert int(reduced["flag"].sum()) == 1 and reduced["before"].sel(layer=2, head=0) == 0


@pytest.mark.parametrize(
    ("joint", "parts", "said"),
    [
        (-0.6, -0.9, "cannot be said"),
        (-0.59, -0.6, "cannot be said"),
        (-0.6, -0.1, "stand in"),
        (-0.3, -0.6, "work through one another"),
        (-0.3, -0.3, ""),
    ],
)
def test_at_the_end_of_a_range_nothing_is_said_of_the_sum(joint, parts, said):
    values = {"base_accuracy": 0.6, "joint": joint, "sum_of_parts": parts, "surplus": joint - parts}
    effects = [name for name in values if name != "base_accuracy"]
    ends = {f"{name}_low": values[name] - 0.01 for name in effects}
    ends |= {f"{name}_high": values[name] + 0.01 for name in effects}
    reduced = xr.Dataset({**values, **ends}, attrs={"metric": "accuracy"})
    reduced = reduced.assign(alone_low=("member", [-0.2, -0.1]), alone_high=("member", [-0.1, 0.1]))
    found = verdict(reduced, sign=-1, cases=20)
    assert said in found.get("warning", "") and bool(said) == ("warning" in found)
    assert found.get("adds_up") == {"cannot be said": None, "": 1}.get(said, 0)


@pytest.mark.parametrize(("joint", "parts"), [(-0.4, -0.1), (-0.1, -0.4)])
def test_no_self_repair_is_said_of_heads_that_pull_both_ways(joint, parts):
    values = {"joint": joint, "sum_of_parts": parts, "surplus": joint - parts}
    ends = {f"{name}_low": value - 0.01 for name, value in values.items()}
    ends |= {f"{name}_high": value + 0.01 for name, value in values.items()}
    reduced = xr.Dataset(
        {**values, **ends, "base_logit_difference": 3.0}, attrs={"metric": "logit_difference"}
    )
    mixed = reduced.assign(alone_low=("member", [-0.5, 0.1]), alone_high=("member", [-0.3, 0.3]))
    said = verdict(mixed, sign=-1, cases=20)
    assert said["adds_up"] == 0
    assert "for it and some against it" in said["warning"] and "repair" not in said["warning"]
    unsure = mixed.assign(alone_low=("member", [-0.5, -0.1]))
    assert "against it" not in verdict(unsure, sign=-1, cases=20)["warning"]


def test_of_few_prompts_nothing_is_said_of_the_sum():
    values = {"joint": -1.0, "sum_of_parts": -0.1, "surplus": -0.9, "alone": -0.05}
    ends = {f"{name}_low": value - 0.01 for name, value in values.items()}
    ends |= {f"{name}_high": value + 0.01 for name, value in values.items()}
    about = {"metric": "logit_difference"}
    reduced = xr.Dataset({**values, **ends, "base_logit_difference": 3.0}, attrs=about)
    few = verdict(reduced, sign=-1, cases=2)
    assert set(few) == {"warning"} and few["warning"].startswith("2 prompts are too few")
    assert verdict(reduced, sign=-1, cases=5)["adds_up"] == 0


def test_links_of_one_chain_are_said_to_be(monkeypatch):
    readings_of(monkeypatch, lambda heads, case: -10.0 * bool(heads & set(LIST)))
    _, reduced = found()
    assert (
        reduced["joint"] == -10 and reduced["sum_of_parts"] == -30 and (reduced["last"] == 0).all()
    )
    assert reduced.attrs["adds_up"] == 0 and "work through one another" in reduced.attrs["warning"]
    assert stepping_in(reduced, 5) == []


def test_a_head_that_ceases_to_work_against_the_answer_does_not_step_in(monkeypatch):
    readings_of(monkeypatch, lambda heads, case: 3.0 * ((2, 0) in heads and not heads & set(LIST)))
    _, reduced = found()
    growth = reduced["growth"].sel(layer=2, head=0)
    assert (
        growth == -3
        and reduced["after"].sel(layer=2, head=0) == 0
        and int(reduced["flag"].sum()) == 0
    )


def test_where_less_is_better_a_larger_value_is_the_harm(monkeypatch):
    readings_of(
        monkeypatch,
        lambda heads, case: 5.0 * ({*LIST, (1, 0)} <= heads) + (set(LIST) <= heads),
        "kl",
        base=0.0,
    )
    _, reduced = found()
    assert "stand in for each other" in reduced.attrs["warning"]
    assert [(one["layer"], one["head"], one["value"]) for one in stepping_in(reduced, 5)] == [
        (1, 0, 5)
    ]


def test_noise_is_no_interaction(monkeypatch):
    noise = np.random.default_rng(0).normal(size=(CASES, 64))

    def effect(heads, case):
        return -1.0 * len(heads) + noise[case, sum(4 * layer + head for layer, head in heads) % 64]

    readings_of(monkeypatch, effect)
    _, reduced = found()
    assert int(reduced["flag"].sum()) == 0
    assert (reduced["surplus_low"] < 0 < reduced["surplus_high"]) == bool(reduced.attrs["adds_up"])


def test_every_effect_equals_plain_hooks(model_type, padded):
    prompts = alike(padded)

    def effect(*heads):
        return (hooked_difference(model_type, prompts, list(heads), zero) - intact).numpy()

    def zero(view, layer):
        return torch.zeros_like(view)

    intact = hooked_difference(model_type, prompts, [], zero)
    scores = interactions(
        tiny(model_type)[0], prompts, LIST, pairs=True, backup=True, ablation="zero"
    )
    a, b, c = LIST
    close = functools.partial(np.testing.assert_allclose, atol=1e-4)
    close(scores["joint"], effect(a, b, c))
    close(scores["alone"].isel(member=1), effect(b))
    close(scores["last"].isel(member=1), effect(a, b, c) - effect(a, c))
    close(scores["surplus"], effect(a, b, c) - effect(a) - effect(b) - effect(c))
    close(scores["pair"].sel(member="L0H1", other="L2H3"), effect(a, c))
    close(
        scores["pair_surplus"].sel(member="L2H3", other="L0H1"),
        effect(a, c) - effect(a) - effect(c),
    )
    for layer, head in ((0, 0), (2, 2)):
        before, after = effect((layer, head)), effect(a, b, c, (layer, head)) - effect(a, b, c)
        one = scores.sel(layer=layer, head=head)
        close(one["before"], before)
        close(one["after"], after)
        close(one["growth"], after - before)


def test_what_is_drawn_by_head_has_a_name_that_fits_beside_a_colour_bar(monkeypatch):
    readings_of(monkeypatch, lambda heads, case: sum(weight(head, case) for head in heads))
    scores, _ = found()
    names = {str(name): values.attrs["long_name"] for name, values in scores.data_vars.items()}
    assert (
        names["growth"] == "growth of effect"
        and names["joint"] == "effect of the list together on logit"
    )
    assert all(len(names[name]) <= 24 for name, values in scores.items() if "layer" in values.dims)


def test_a_rehearsal_gives_the_same_numbers(padded):
    model, _ = tiny("gpt2")
    here, there = (
        placed(remote, interactions)(model, pairs(padded), LIST, backup=True, ablation="uniform")
        for remote in (False, "local")
    )
    for name in ("alone", "last", "joint", "growth"):
        np.testing.assert_allclose(here[name], there[name], atol=1e-5)


LISTED = [(1, 0), (1, 1), (2, 4)]  # the induction heads of the shipped model


@pytest.fixture(scope="module")
def copying():
    model = nnheads.load("reference")
    prompts, others = ask_for("induction", model.tokenizer, 24, seed=3, length=30)
    return functools.partial(interactions, model, prompts, reference=others, metric="accuracy")


def test_the_redundant_induction_heads_of_the_shipped_model_do_not_add_up(copying):
    reduced = summary(copying(LISTED))
    assert float(abs(reduced["alone"]).max()) < 0.05, "any one of them can be spared"
    assert float(reduced["joint"]) < -0.9 and float(reduced["last"].max()) < -0.8
    assert reduced.attrs["adds_up"] == 0 and "stand in for each other" in reduced.attrs["warning"]


def test_the_third_steps_in_for_two_of_them(copying):
    reduced = summary(copying([(1, 0), (1, 1)], backup=True))
    best = stepping_in(reduced, 3)
    assert (best[0]["layer"], best[0]["head"]) == (2, 4) and best[0]["high"] < -0.9
    assert all(one["value"] > -0.05 for one in best[1:]), "no other one does"


def test_self_repair_at_the_top_of_a_range_may_be_slack(copying):
    """Heads that add up in log-odds do not in a share that is near 1."""
    assert (
        "or the intact accuracy of 1.00 is so near the end"
        in summary(copying(LISTED)).attrs["warning"]
    )
    unbounded = summary(copying(LISTED, metric="log_probability"))
    assert unbounded.attrs["warning"].endswith("each one's own effect says too little")
    assert is_at_end("accuracy", 0.96) and not is_at_end("accuracy", 0.9)
    assert not is_at_end("logit_difference", 0.0), "it has no range"


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ([], "the list is empty"),
        ([(0, 4)], "L0H4"),
        ([(0, 1), (0, 1)], "L0H1.* twice"),
    ],
)
def test_lists_that_cannot_be_are_refused(heads, message, padded):
    with pytest.raises(BadInput, match=message):
        interactions(tiny("llama")[0], alike(padded), heads)


def test_where_nothing_is_sure_nothing_is_said_of_the_sum():
    """A surplus may be sure where neither the list nor its heads do anything for sure."""
    values = {"surplus": -0.4, "joint": -0.1, "sum_of_parts": 0.3}
    ends = {"surplus": 0.1, "joint": 0.3, "sum_of_parts": 0.6}
    both = {f"{name}_low": values[name] - by for name, by in ends.items()}
    both |= {f"{name}_high": values[name] + by for name, by in ends.items()}
    table = {**values, **both, "base_logit_difference": 0.2}
    found = verdict(xr.Dataset(table, attrs={"metric": "logit_difference"}), -1, cases=20)
    assert set(found) == {"warning"} and "cannot be said" in found["warning"]

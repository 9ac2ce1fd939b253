"""Knocking out lists of heads: against plain hooks, and random lists that match the real one layer
by layer.
"""

from __future__ import annotations

import contextlib
from collections import Counter

import numpy as np
import oracle
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as some
from random_models import APART, placed, tiny
from swaps import ANSWERS, pairs, runs

from nnheads.errors import BadInput
from nnheads.models.names import parse_head
from nnheads.patching import ablate as module_of_ablate
from nnheads.patching import head_sets
from nnheads.patching.ablation_values import resampled, same_text
from nnheads.patching.cost import cost
from nnheads.patching.head_sets import plan_without
from nnheads.patching.knockout import (
    KS,
    chosen_lists,
    counts_of,
    curve,
    knockout,
    ranked_heads,
)
from nnheads.patching.random_lists import lent, random_lists

LIST = [(0, 1), (2, 3), (1, 2)]


def alike(padded) -> xr.Dataset:
    """Two pairs of equal length, so that each has another of its kind."""
    prompts = pairs(padded).isel(position=slice(4, None))
    prompts["mask"][:] = 1
    return prompts


def hooked_difference(
    model_type: str, prompts: xr.Dataset, heads: list[tuple[int, int]], new
) -> torch.Tensor:
    """Logit difference of the clean run where each head's output is `new(z)`."""
    _, module = tiny(model_type)
    _, clean = runs(model_type, prompts)
    with contextlib.ExitStack() as stack:
        for layer in {layer for layer, _ in heads}:
            own = [head for other, head in heads if other == layer]

            def exchange(value, own=own, layer=layer):
                value = value.clone()
                view = value.view(*value.shape[:2], 4, -1)
                view[:, :, own] = new(view, layer)[:, :, own]
                return value

            stack.enter_context(oracle.hooked(module, model_type, layer, "z", exchange))
        own = oracle.end_logits(module, clean).gather(-1, ANSWERS)
    return own[:, 0] - own[:, 1]


def intact_means(model_type: str, prompts: xr.Dataset) -> dict[int, torch.Tensor]:
    """Each layer's head outputs in the intact run, for each prompt averaged over the others."""
    _, module = tiny(model_type)
    _, clean = runs(model_type, prompts)
    values = [oracle.value_at(module, model_type, clean, layer, "z") for layer in range(3)]
    split = [value.view(*value.shape[:2], 4, -1) for value in values]
    return {layer: (value.sum(0) - value) / (len(value) - 1) for layer, value in enumerate(split)}


@pytest.mark.parametrize("model_type", APART)
@pytest.mark.parametrize("ablation", ["zero", "mean"])
def test_every_list_equals_plain_hooks(model_type, ablation, padded):
    prompts = alike(padded)
    means = intact_means(model_type, prompts)

    def new(view, layer):
        return torch.zeros_like(view) if ablation == "zero" else means[layer]

    scores = knockout(
        tiny(model_type)[0], prompts, LIST, ks=[0, 1, 3], draws=2, ablation=ablation, seed=4
    )
    assert scores["logit_difference"].dims == ("batch", "k") and list(scores["k"].values) == [
        0,
        1,
        3,
    ]
    assert scores["random_logit_difference"].dims == ("batch", "k", "draw")
    for k in (0, 1, 3):
        expected = hooked_difference(model_type, prompts, LIST[:k], new)
        np.testing.assert_allclose(scores["logit_difference"].sel(k=k), expected, atol=3e-5)
        for draw in (0, 1):
            heads = [parse_head(name) for name in scores["drawn"].sel(draw=draw).values[:k]]
            assert [layer for layer, _ in heads] == [layer for layer, _ in LIST[:k]] and not set(
                heads
            ) & set(LIST)
            expected = hooked_difference(model_type, prompts, heads, new)
            np.testing.assert_allclose(
                scores["random_logit_difference"].sel(k=k, draw=draw), expected, atol=3e-5
            )
    np.testing.assert_allclose(
        scores["base_logit_difference"], scores["logit_difference"].sel(k=0), atol=1e-6
    )


@pytest.mark.parametrize("ablation", ["mean", "uniform"])
def test_a_rehearsal_gives_the_same_numbers(ablation, padded):
    model, _ = tiny("llama")
    here, there = (
        placed(remote, knockout)(
            model, alike(padded), LIST, draws=2, ablation=ablation, metric="log_probability"
        )
        for remote in (False, "local")
    )
    for name in ("log_probability", "random_log_probability"):
        np.testing.assert_allclose(here[name], there[name], atol=1e-5)


def test_lists_that_are_drawn_twice_run_once(padded, monkeypatch):
    asked, real = [], head_sets.ablate
    monkeypatch.setattr(
        head_sets,
        "ablate",
        lambda *a, groups, **o: asked.append(groups) or real(*a, groups=groups, **o),
    )
    scores = knockout(tiny("llama")[0], alike(padded), [(1, 2)], draws=20, ablation="zero")
    assert len(asked) == 1 and sorted(asked[0]) == [[], [(1, 0)], [(1, 1)], [(1, 2)], [(1, 3)]]
    by_name = {}
    for draw in range(20):
        value = scores["random_logit_difference"].sel(k=1, draw=draw).values
        by_name.setdefault(str(scores["drawn"].sel(draw=draw).values[0]), value)
        np.testing.assert_array_equal(value, by_name[str(scores["drawn"].sel(draw=draw).values[0])])
    assert sorted(by_name) == ["L1H0", "L1H1", "L1H3"]


@pytest.mark.parametrize("ablation", ["mean", "zero", "uniform", "resample"])
def test_the_plan_is_the_job_that_runs(ablation, padded, monkeypatch):
    model, _ = tiny("llama")
    prompts, jobs, real = alike(padded), [], module_of_ablate.measure
    monkeypatch.setattr(
        module_of_ablate, "measure", lambda model, job: jobs.append(job) or real(model, job)
    )
    options = {"ablation": ablation, "metric": "log_probability", "seed": 2}
    knockout(model, prompts, LIST, draws=4, **options)
    counts, listed, random = chosen_lists(model, LIST, None, 4, 2)
    lists = [one[:k] for one in (listed, *random) for k in counts]
    planned = plan_without(model, prompts, lists, reference=None, at=None, **options)
    assert len(jobs) == 1 and cost(model, planned) == cost(model, jobs[0])
    assert cost(model, planned).cells == len({frozenset(one) for one in lists})


def test_no_random_lists_and_one_role_alone(padded):
    prompts = pairs(padded).assign_coords(role_S2=("batch", [5, 6]))
    model, _ = tiny("llama")
    everywhere = knockout(model, prompts, LIST, draws=0, ablation="zero")
    at_role = knockout(model, prompts, LIST, draws=0, ablation="zero", at="S2")
    assert "random_logit_difference" not in everywhere and "draw" not in everywhere.dims
    change = abs(at_role["logit_difference"] - at_role["base_logit_difference"]).sel(k=3)
    assert float(change.min()) > 1e-4 and not np.allclose(
        everywhere["logit_difference"], at_role["logit_difference"]
    )
    assert "random_median" not in curve(everywhere)


@some.composite
def lists(draw):
    """Heads of a model in some order, at most half of each layer."""
    layers, per_layer = draw(some.integers(1, 5)), draw(some.integers(2, 9))
    heads = []
    for layer in range(layers):
        most = per_layer // 2
        heads += [
            (layer, h) for h in draw(some.sets(some.integers(0, per_layer - 1), max_size=most))
        ]
    return draw(some.permutations(heads)), per_layer


@given(lists(), some.integers(0, 6), some.integers(0, 9))
def test_random_lists_match_the_real_one_place_by_place(drawn, draws, seed):
    heads, per_layer = drawn
    found = random_lists(heads, (5, per_layer), draws, seed)
    assert len(found) == draws and found == random_lists(heads, (5, per_layer), draws, seed)
    assert lent(heads, found) == 0
    for one in found:
        assert [layer for layer, _ in one] == [layer for layer, _ in heads]
        assert len(set(one)) == len(one) and not set(one) & set(heads)
        assert all(0 <= head < per_layer for _, head in one)


@given(
    some.permutations([(layer, head) for layer in range(3) for head in range(6)]),
    some.integers(1, 18),
)
def test_a_layer_with_too_few_others_borrows_from_the_nearest(heads, count):
    heads = heads[:count]
    if count > 9:
        with pytest.raises(BadInput, match="Take the first 9 heads"):
            random_lists(heads, (3, 6), 1, 0)
        return
    (one,) = random_lists(heads, (3, 6), 1, 0)
    assert len(set(one)) == count and not set(one) & set(heads)
    listed = Counter(layer for layer, _ in heads)
    own = sum(layer == other for (layer, _), (other, _) in zip(one, heads))
    assert own == sum(min(number, 6 - number) for number in listed.values())
    assert lent(heads, [one]) == count - own


def test_what_is_borrowed_is_of_the_nearest_layer():
    heads = [(4, head) for head in range(5)]  # of nine: four others
    (one,) = random_lists(heads, (9, 9), 1, 3)
    assert [layer for layer, _ in one[:4]] == [4] * 4 and one[4][0] in (3, 5)


def test_a_curve_says_how_many_heads_were_borrowed(padded):
    heads = [(1, 0), (1, 1), (1, 2)]  # of four
    scores = knockout(tiny("llama")[0], pairs(padded), heads, draws=2, ablation="zero")
    assert scores.attrs["random_lent"] == 2


def test_random_lists_differ_between_draws_and_seeds():
    heads = [(0, 0), (0, 1), (5, 7)]
    found = random_lists(heads, (12, 12), 20, 0)
    assert len({tuple(one) for one in found}) > 10 and found != random_lists(heads, (12, 12), 20, 1)


@given(some.integers(1, 200))
def test_default_numbers_of_heads_end_with_the_list(length):
    counts = counts_of(None, length)
    assert counts[0] == 0 and counts[-1] == length and counts == sorted(set(counts))
    assert set(counts) - {length} == {k for k in KS if k < length}


def test_the_curve_is_means_a_band_and_a_share():
    base = np.array([4.0, 6.0], np.float32)
    found = np.stack([base, base - 4], 1)  # without the list, 4 less
    drops = np.array([0, 1, 4, 2], np.float32)  # without each random list
    random = np.stack([np.tile(base[:, None], 4), base[:, None] - drops], 1)
    units = {"units": "logit", "long_name": "a number"}
    scores = xr.Dataset(
        {
            "logit": (("batch", "k"), found, units),
            "random_logit": (("batch", "k", "draw"), random, units),
            "base_logit": ("batch", base, units),
        },
        {"k": [0, 3], "draw": range(4)},
        {"metric": "logit"},
    )
    reduced = curve(scores)
    assert reduced["logit"].values.tolist() == [5, 1] and reduced["base_logit"] == 5
    assert reduced["random_logit"].sel(k=3).values.tolist() == [5, 4, 1, 3]
    assert float(reduced["random_median"].sel(k=3)) == 3.5
    assert (
        float(reduced["random_lowest"].sel(k=3)),
        float(reduced["random_highest"].sel(k=3)),
    ) == (1, 5)
    # the list and the one random list that does as much, of five in all
    np.testing.assert_allclose(reduced["p_value"], [1, 2 / 5])
    assert reduced["logit_low"].dims == ("k",) and reduced["random_logit_low"].dims == ("k", "draw")
    assert float(reduced["logit_low"].sel(k=3)) == 0 and float(reduced["logit_high"].sel(k=3)) == 2


def heads_of(**values) -> xr.Dataset:
    return xr.Dataset(
        {name: (("layer", "head"), np.array(value, np.float32)) for name, value in values.items()}
    ).assign_coords(layer=[2, 3], head=[0, 1])


def test_a_ranking_follows_the_headline_or_the_effect():
    table = heads_of(effect=[[0.1, -0.9], [0.7, np.nan]], mass=[[0.9, 0.8], [0.7, 0.6]])
    assert ranked_heads(table) == ([(3, 0), (2, 0), (2, 1)], "effect")
    assert ranked_heads(table, "mass")[0] == [(2, 0), (2, 1), (3, 0), (3, 1)]
    assert ranked_heads(table.assign_attrs(headline="mass")) == (
        [(2, 0), (2, 1), (3, 0), (3, 1)],
        "mass",
    )
    turned = table.transpose("head", "layer")
    assert ranked_heads(turned) == ranked_heads(table)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            heads_of(mass=[[1, 2], [3, 4]]),
            "'effect' by layer and head.*mass",
        ),
        (
            heads_of(mass=[[1, 2], [3, 4]]).rename(head="kv_head"),
            "nothing by layer and head",
        ),
        (heads_of(effect=np.full((2, 2), np.nan)), "Not a number.*'effect'"),
    ],
)
def test_tables_that_rank_no_heads_are_refused(table, message):
    with pytest.raises(BadInput, match=message):
        ranked_heads(table)


@pytest.mark.parametrize(
    ("heads", "options", "message"),
    [
        ([], {}, "the list is empty"),
        ([(3, 0)], {}, "L3H0"),
        ([(1, 0), (1, 0)], {}, "L1H0.* twice"),
        (
            [(1, 0)],
            {"ks": [2]},
            "2, and the list has 1",
        ),
        ([(1, 0)], {"ks": [0]}, r"heads.*: \[0\]"),
        ([(1, 0)], {"ks": [-1, 1]}, r"heads.*: \[-1, 1\]"),
        ([(1, 0)], {"ks": []}, r"heads.*: \[\]"),
        ([(1, 0)], {"draws": -1}, "random lists: -1"),
        (
            [(layer, head) for layer in (0, 1) for head in range(4)],
            {},
            r"8 of 12 heads.*the first 6 heads",
        ),
        ([(1, 0)], {"ablation": "median"}, "ablation.*'median'|'median'.*ablation"),
        ([(1, 0)], {"metric": "loss"}, "'loss'"),
        ([(1, 0)], {"at": "S9"}, "'S9'"),
    ],
)
def test_knockouts_that_cannot_be_are_refused(heads, options, message, padded):
    with pytest.raises(BadInput, match=message):
        knockout(tiny("llama")[0], alike(padded), heads, **options)


def test_a_long_list_of_one_layer_can_be_cut_or_go_without_random_ones(padded):
    heads = [(1, 0), (1, 1), (1, 2)]
    scores = knockout(tiny("llama")[0], alike(padded), heads, draws=0, ablation="zero")
    short = knockout(tiny("llama")[0], alike(padded), heads, ks=[1, 2], draws=3, ablation="zero")
    assert list(scores["k"].values) == [0, 1, 2, 3] and short.sizes["place"] == 2
    np.testing.assert_allclose(
        scores["logit_difference"].sel(k=[1, 2]), short["logit_difference"], atol=1e-6
    )


def test_what_is_drawn_for_a_case_does_not_depend_on_its_batch(padded):
    many = xr.concat(
        [alike(padded)] * 4, "batch", data_vars="minimal", join="override"
    ).assign_coords(batch=range(8))
    many["token"][2:, 1:3] = torch.randint(
        4, 400, (6, 2), generator=torch.Generator().manual_seed(0)
    ).numpy()
    whole = resampled(many, many, 3)
    parts = [resampled(many.isel(batch=slice(first, first + 3)), many, 3) for first in (0, 3, 6)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert (whole.sum(1) == 1).all() and not whole[same_text(many, many)].any()

"""Cross-validation of the edit: nothing that is tested was fitted, chosen or scaled by what it is
tested on.
"""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
import xarray as xr
from random_models import placed, tiny
from statements import statements

from nnheads.errors import RunError
from nnheads.interventions import Intervention
from nnheads.models.geometry import geometry
from nnheads.truth import crossval
from nnheads.truth.activations import last_outputs
from nnheads.truth.conditions import conditions, final
from nnheads.truth.contrasts import EDIT, NONE, summary
from nnheads.truth.crossval import choose, evaluate, grid, transfer
from nnheads.truth.directions import FITTED, question_ids
from nnheads.truth.folds import folds
from nnheads.truth.iti import heads_of
from nnheads.truth.iti_cost import cost
from nnheads.truth.material import Material, Options, orders
from nnheads.truth.multiple_choice import CHOICES, score
from nnheads.truth.neutral import neutral_texts
from nnheads.truth.probes import scores_of

QUESTIONS = 20
LAYOUT = tuple(
    (q, label, best, 4, 2 + q % 2, 0)
    for q in range(QUESTIONS)
    for label, best in ((1, 1), (0, 0), (0, 0))
)
TEXTS = ["John and Mary went to the market", "the code of Anna is 4 ."]
OPTIONS = Options(draws=2, batch_size=64)


@pytest.fixture(scope="module")
def model():
    return tiny("llama")[0]


@pytest.fixture(scope="module")
def given(model) -> Material:
    prompts = statements(4, LAYOUT).assign_attrs(questions=QUESTIONS)
    parts = folds(QUESTIONS)
    z = last_outputs(model, prompts)
    probes = scores_of(z, prompts, parts)
    accuracy = np.random.default_rng(0).uniform(size=(2, 3, 4)).astype("float32")
    probes["validation"] = ("fold", "layer", "head"), accuracy
    names = [f"question {number}" for number in range(QUESTIONS)]
    return Material(
        prompts, z, names, parts, probes, neutral_texts(model, TEXTS), orders(z, probes, parts)
    )


@pytest.fixture(scope="module")
def found(model, given) -> xr.Dataset:
    return evaluate(model, given, [(1.0, 3), (2.0, 2)], OPTIONS)


def test_every_question_is_tested_once_under_every_condition(found, given):
    assert sorted(found["question"].values.tolist()) == list(range(QUESTIONS))
    for fold, one in enumerate(given.folds):
        assert set(found["question"].values[found["in_fold"].values == fold].tolist()) == set(
            one.test
        )
    kinds = [NONE, EDIT, "random_direction", "random_heads", "random_direction", "random_heads"]
    assert found["kind"].values.tolist() == kinds
    assert dict(found["kl"].sizes) == {"fold": 2, "condition": 6, "text": 2}
    assert json.loads(found.attrs["settings"]) == [
        {"alpha": 1.0, "heads": 3},
        {"alpha": 2.0, "heads": 2},
    ]
    assert found.attrs["reached"] == 1.0 and all(
        found[name].notnull().all() for name in found.data_vars
    )


def test_scores_are_those_of_each_fold_s_own_edit(model, found, given):
    for fold, (alpha, count) in enumerate([(1.0, 3), (2.0, 2)]):
        directions, change = final(given, fold, alpha, count, OPTIONS)
        own = score(model, change, given.rows(given.folds[fold].test))
        for name in CHOICES:
            there = found[name].sel(condition=EDIT).isel(question=found["in_fold"].values == fold)
            np.testing.assert_allclose(there.values, own[name].values, atol=1e-5)
        assert set(heads_of(change)) == set(given.order[fold][:count])
        known = [
            given.names[number]
            for number in (*given.folds[fold].train, *given.folds[fold].validation)
        ]
        assert set(directions["fitted"].values.tolist()) == set(question_ids(known).tolist())
    plain = score(model, Intervention(), given.prompts)
    there = found["mc2"].sel(condition=NONE).sortby("question")
    np.testing.assert_allclose(there.values, plain["mc2"].values, atol=1e-5)
    assert (found["kl"].sel(condition=NONE) == 0).all() and (
        found["kl"].sel(condition=EDIT) > 0
    ).all()


def test_head_outputs_of_test_questions_change_nothing(model, found, given):
    """Directions, spreads and the order of heads come from the other questions alone."""
    for fold, one in enumerate(given.folds):
        spoiled = given.z.copy(deep=True)
        spoiled[np.isin(spoiled["question"].values, one.test)] = 1e4
        other = dataclasses.replace(given, z=spoiled)
        assert orders(spoiled, given.probes, given.folds)[fold] == given.order[fold]
        for name, (_, change) in conditions(other, fold, 1.0, 3, OPTIONS).items():
            assert change == conditions(given, fold, 1.0, 3, OPTIONS)[name][1]


def test_an_edit_that_saw_its_test_questions_is_refused(model, given, monkeypatch):
    monkeypatch.setattr(Material, "known", lambda own, fold: range(QUESTIONS))
    with pytest.raises(
        RunError, match="10 of 10 test questions gave the edit its direction or strength"
    ):
        evaluate(model, given, [(1.0, 3), (2.0, 2)], OPTIONS)


def test_validation_questions_give_no_directions_while_they_choose(model, given, monkeypatch):
    seen = []
    plain = crossval.edit
    monkeypatch.setattr(
        crossval, "edit", lambda found, *rest: (seen.append(found), plain(found, *rest))[1]
    )
    grid(model, given, [1.0], [2], OPTIONS)
    for fold, one in enumerate(given.folds):
        own = question_ids([given.names[number] for number in one.train])
        assert set(seen[fold]["fitted"].values.tolist()) == set(own.tolist())
    leaky = dataclasses.replace(
        given.folds[0], train=(*given.folds[0].train, *given.folds[0].validation)
    )
    with pytest.raises(RunError, match="2 of 2 test questions"):
        grid(model, dataclasses.replace(given, folds=[leaky, given.folds[1]]), [1.0], [2], OPTIONS)


def test_the_grid_holds_every_strength_with_every_number(model, given):
    table = grid(model, given, [0.5, 2.0], [1, 2, 4], OPTIONS)
    assert dict(table["mc1"].sizes) == {"alpha": 2, "heads": 3, "question": 4}
    assert dict(table["kl"].sizes) == {"fold": 2, "alpha": 2, "heads": 3, "text": 2}
    directions = given.directions(1, given.folds[1].train, OPTIONS)
    change = crossval.edit(directions, given.heads(1, 4), 2.0, "all")
    own = score(model, change, given.rows(given.folds[1].validation))
    cell = table.sel(alpha=2.0, heads=4).isel(question=table["in_fold"].values == 1)
    np.testing.assert_allclose(cell["mc2"].values, own["mc2"].values, atol=1e-5)
    plain = score(model, Intervention(), given.rows(given.folds[0].validation))
    first = table["original_ratio"].isel(question=table["in_fold"].values == 0)
    np.testing.assert_allclose(first.values, plain["ratio"].values, atol=1e-4)


def test_controls_are_as_strong_as_the_edit(given):
    made = conditions(given, 0, 1.5, 3, OPTIONS)
    dim = given.z.sizes["dim"]

    def lengths(change: Intervention) -> dict:
        return {
            (one.layer, head): float(part.norm()) * one.do.scale
            for one in change.edits
            for head, part in zip(one.units or (), change.tensors[one.do.value].split(dim))
        }

    own, drawn = lengths(made[EDIT][1]), lengths(made["random_direction 0"][1])
    assert own.keys() == drawn.keys() and len(own) == 3
    assert all(drawn[head] == pytest.approx(own[head], rel=1e-5) for head in own)
    assert made["random_direction 0"][1] != made["random_direction 1"][1]
    for draw in range(2):
        assert not set(heads_of(made[f"random_heads {draw}"][1])) & set(own)
    assert all(FITTED in change.tensors for kind, change in made.values() if kind != NONE)


def test_the_weakest_of_the_equally_good_settings_is_chosen():
    """In fold 1, 0.6 lies within a standard error (0.2) of 0.8, and 0.4 does not; of the two, 0.6
    costs less.
    """
    right = {(1.0, 2): 2, (1.0, 4): 3, (2.0, 2): 3, (2.0, 4): 4}
    price = {(1.0, 2): 0.1, (1.0, 4): 0.5, (2.0, 2): 0.2, (2.0, 4): 0.9}
    mc1, kl = np.zeros((2, 2, 10)), np.zeros((2, 2, 2, 1))
    for row, alpha in enumerate((1.0, 2.0)):
        for column, count in enumerate((2, 4)):
            mc1[row, column, 5 : 5 + right[alpha, count]] = 1
            kl[1, row, column] = price[alpha, count]
    table = xr.Dataset(
        {
            "mc1": (("alpha", "heads", "question"), mc1),
            "kl": (("fold", "alpha", "heads", "text"), kl),
        },
        {
            "alpha": [1.0, 2.0],
            "heads": [2, 4],
            "fold": [0, 1],
            "in_fold": ("question", [0] * 5 + [1] * 5),
        },
    )
    assert choose(table, 1) == (2.0, 2)
    assert choose(table.isel(question=slice(4, 6)), 1) == (1.0, 2), (
        "a single question has no standard error"
    )


def test_one_fold_alone_is_the_same_fold(given):
    own = given.only(1)
    assert own.folds == given.folds[1:] and own.order == [given.order[1]]
    options = dataclasses.replace(OPTIONS, kind="probe")
    assert (
        final(own, 0, 1.0, 2, options)[1]
        == final(given, 1, 1.0, 2, options)[1]
        != final(given, 0, 1.0, 2, options)[1]
    )


def test_transfer_tests_an_edit_on_other_questions_and_refuses_its_own(model, given):
    _, change = final(given, 0, 1.0, 2, OPTIONS)
    names = [f"another {number}" for number in range(QUESTIONS)]
    found = transfer(model, change, given.prompts, names, given.neutral, OPTIONS)
    assert found["kind"].values.tolist() == [NONE, EDIT, "random_direction", "random_direction"]
    assert found.sizes["question"] == QUESTIONS and found.sizes["fold"] == 1
    own = score(model, change, given.prompts)
    np.testing.assert_allclose(found["mc2"].sel(condition=EDIT), own["mc2"], atol=1e-5)
    assert set(summary(found)["kind"].values.tolist()) == {NONE, EDIT, "random_direction"}
    with pytest.raises(RunError, match="1 of 20 test questions"):
        transfer(
            model,
            change,
            given.prompts,
            [*names[:-1], given.names[given.folds[0].train[0]]],
            given.neutral,
            OPTIONS,
        )


def test_the_cost_that_is_planned_is_the_cost(model, given):
    """Tokens that go through the model, counted on the way."""
    tokens: list[int] = []

    def count(_, arguments, keywords):
        mask, depth = keywords["attention_mask"], keywords["position_ids"]
        if mask.dim() == 4:  # padding is seen by itself alone
            mask = (mask[:, 0].sum(1) > 1) | (depth > 0)
        tokens.append(int(mask.sum()))

    handle = model._module.register_forward_pre_hook(count, with_kwargs=True)
    last_outputs(model, given.prompts, batch_size=64)
    grid(model, given, [0.5, 1.0], [2, 3], OPTIONS)
    evaluate(model, given, [(1.0, 3), (2.0, 2)], OPTIONS)
    handle.remove()
    lengths = given.neutral["mask"].values.sum(1).tolist()
    sizes = {"folds": 2, "val_ratio": 0.2, "seed": 42, "draws": 2, "neutral": lengths}
    planned = cost(model, given.prompts, geometry(model), cells=4, **sizes)
    assert planned.tokens == sum(tokens)
    neutral, validated = 2 * 2 * (4 + 6), sum(len(fold.validation) for fold in given.folds)
    assert planned.rows == 60 + 60 * 6 + 3 * validated * 5 + neutral * len(lengths)
    assert planned.output_bytes == given.z.values.nbytes
    alone = cost(model, given.prompts, geometry(model), cells=0, **sizes)
    assert alone.rows == 60 + 60 * 6 + 2 * 2 * 6 * 2


def test_a_rehearsed_remote_run_says_the_same(model, given):
    options = Options(draws=0, batch_size=64)
    here, there = (
        placed(remote, evaluate)(model, given.only(0), [(1.0, 3)], options)
        for remote in (False, "local")
    )
    xr.testing.assert_allclose(here, there, atol=1e-5)


def test_what_is_there_is_not_computed_again(model, found, given, tmp_path, monkeypatch):
    options = dataclasses.replace(OPTIONS, parts=tmp_path)
    first = evaluate(model, given, [(1.0, 3), (2.0, 2)], options)
    monkeypatch.setattr(
        type(model), "trace", lambda *_, **__: pytest.fail("nothing is left to be run")
    )
    xr.testing.assert_identical(first, evaluate(model, given, [(1.0, 3), (2.0, 2)], options))
    assert torch.is_grad_enabled()


def test_a_question_is_one_question_however_it_is_written():
    from nnheads.prompts.questions import said_by
    from nnheads.truth.directions import question_ids

    ways = ["What is X?", "What is X", "what  is x ?", " What is X. ", "Ｗhat is X？"]
    assert {said_by(one) for one in ways} == {"what is x"}
    assert len(set(question_ids(ways).tolist())) == 1
    assert said_by("...") == "..." and said_by("What is Y?") != said_by("What is X?")

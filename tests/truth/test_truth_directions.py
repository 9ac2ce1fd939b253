"""Directions, spreads, the guard against leaks, and the edit that they make."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from random_models import tiny

from nnheads import interventions as iv
from nnheads.errors import BadInput, RunError
from nnheads.interventions.apply import run
from nnheads.interventions.files import load, save
from nnheads.truth.directions import (
    FITTED,
    KINDS,
    directions,
    fitted_on,
    guard,
    of_length_one,
    question_ids,
    random_directions,
)
from nnheads.truth.iti import SCOPES, edit, gap, heads_of, ordered, random_heads, rescoped

LAYERS, HEADS, DIM, QUESTIONS = 2, 3, 5, 8
NAMES = [f"what is {number} ?" for number in range(QUESTIONS)]


def outputs(seed: int = 0) -> xr.DataArray:
    """Head outputs of two true and one false answer to each question; truth moves head L1H2 along
    its first axis.
    """
    generator = np.random.default_rng(seed)
    label = np.tile([1, 1, 0], QUESTIONS)
    values = generator.normal(size=(len(label), LAYERS, HEADS, DIM))
    values[label == 1, 1, 2, 0] += 9
    coordinates = {
        "label": ("batch", label),
        "question": ("batch", np.repeat(np.arange(QUESTIONS), 3)),
        "layer": range(LAYERS),
        "head": range(HEADS),
    }
    return xr.DataArray(values.astype(np.float32), coordinates, ("batch", "layer", "head", "dim"))


@pytest.mark.parametrize("kind", ["mass_mean", "pca"])
def test_directions_point_from_false_to_true(kind):
    found = directions(outputs(), use=range(6), names=NAMES, kind=kind)
    assert float(found["direction"].sel(layer=1, head=2)[0]) > 0.95
    np.testing.assert_allclose((found["direction"] ** 2).sum("dim"), 1, atol=1e-6)


def test_mass_mean_and_its_spread_by_hand():
    z, use = outputs(), [0, 3, 5]
    found = directions(z, use=use, names=NAMES)
    own = z.values[np.isin(z["question"], use)]
    label = z["label"].values[np.isin(z["question"], use)]
    for layer in range(LAYERS):
        for head in range(HEADS):
            rows = own[:, layer, head]
            toward = rows[label == 1].mean(0) - rows[label == 0].mean(0)
            toward /= np.linalg.norm(toward)
            np.testing.assert_allclose(found["direction"][layer, head], toward, atol=1e-5)
            assert float(found["sigma"][layer, head]) == pytest.approx(
                float(np.std(rows @ toward)), rel=1e-5
            )


def test_pca_by_hand():
    z = outputs(1)
    found = directions(z, use=range(QUESTIONS), names=NAMES, kind="pca")["direction"].values
    cell = z.values[:, 0, 1].reshape(QUESTIONS, 3, DIM)
    differences = cell[:, :2].mean(1) - cell[:, 2]
    values, vectors = np.linalg.eigh(differences.T @ differences)
    wanted = vectors[:, np.argmax(values)]
    wanted = wanted * np.sign((differences @ wanted).sum())
    np.testing.assert_allclose(found[0, 1], wanted, atol=1e-5)


def test_probe_weights_and_random_directions():
    weight = xr.DataArray(np.full((LAYERS, HEADS, DIM), 3.0), dims=("layer", "head", "dim"))
    found = directions(outputs(), use=range(4), names=NAMES, kind="probe", weight=weight)
    np.testing.assert_allclose(found["direction"], DIM**-0.5, rtol=1e-6)
    one, same, other = (
        directions(outputs(), use=range(4), names=NAMES, kind="random", seed=s) for s in (1, 1, 2)
    )
    xr.testing.assert_identical(one, same)
    assert not np.allclose(one["direction"], other["direction"])
    np.testing.assert_allclose(
        one["direction"], random_directions((LAYERS, HEADS, DIM), 1), atol=1e-6
    )


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_questions_that_may_not_be_used_change_nothing(kind):
    z, weight = (
        outputs(),
        xr.DataArray(np.ones((LAYERS, HEADS, DIM)), dims=("layer", "head", "dim")),
    )
    spoiled = z.copy()
    spoiled[spoiled["question"].values >= 6] = 1e6
    one, other = (
        directions(a, use=range(6), names=NAMES, kind=kind, weight=weight) for a in (z, spoiled)
    )
    xr.testing.assert_identical(one, other)
    assert one["fitted"].values.tolist() == question_ids(NAMES[:6]).tolist()


def test_a_sigma_that_saw_test_questions_fails_loudly():
    """honest_llama, issue 46: the standard deviation was that of all questions, the tested ones
    among them.
    """
    found = directions(outputs(), use=range(6), names=NAMES)
    guard(found, NAMES[6:])
    guard(edit(found, [(1, 2)], 1.0), NAMES[6:])
    every = directions(outputs(), use=range(QUESTIONS), names=NAMES)
    leaky = found.assign(sigma=every["sigma"], fitted=every["fitted"])
    for one in (leaky, edit(leaky, [(1, 2)], 1.0)):
        with pytest.raises(
            RunError,
            match=r"2 of 2 test questions gave the edit .*: 'what is 6 \?', 'what is 7 \?'",
        ):
            guard(one, NAMES[6:])
    with pytest.raises(RunError, match=r"8 of 8 .*'what is 4 \?' and 3 more"):
        guard(every, NAMES)


def test_the_guard_knows_a_question_from_another_file_and_an_edit_from_disk(tmp_path):
    found = directions(outputs(), use=range(6), names=NAMES)
    place = save(edit(found, [(0, 0), (1, 2)], 2.0), tmp_path / "edit")
    with pytest.raises(RunError, match="1 of 2 test questions"):
        guard(load(place), ["What  IS 3 ?", "something else"])
    assert fitted_on(iv.Intervention(iv.Edit("z", iv.Add(1.0), layer=0))) is None
    guard(iv.Intervention(iv.Edit("z", iv.Add(1.0), layer=0)), NAMES)


@given(st.lists(st.text(), max_size=6))
def test_ids_of_any_texts_are_stable_whole_numbers(texts):
    found = question_ids(texts)
    assert (
        found.dtype == np.int64
        and found.tolist() == question_ids([f"  {text} " for text in texts]).tolist()
    )
    assert len(set(found.tolist())) == len({" ".join(text.casefold().split()) for text in texts})


def test_heads_without_a_direction_stay_at_zero():
    z = outputs() * 0
    for kind in ("mass_mean", "pca"):
        found = directions(z, use=range(6), names=NAMES, kind=kind)
        assert float(np.abs(found["direction"]).max()) == 0 and float(found["sigma"].max()) == 0
    np.testing.assert_array_equal(of_length_one(np.zeros((2, 3))), 0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "ccs"}, "direction 'ccs' is not known; use one of mass_mean, probe, pca, random"),
        ({"kind": "probe"}, "direction 'probe' needs the weights of a probe"),
        ({"use": []}, "0 questions have no true answer to use"),
    ],
)
def test_directions_that_are_not_possible_are_refused(options, said):
    with pytest.raises(BadInput, match=said):
        directions(outputs(), **{"use": range(4), "names": NAMES, **options})


def test_one_sort_of_answers_is_refused():
    z = outputs()
    for label, word in ((1, "false"), (0, "true")):
        with pytest.raises(BadInput, match=f"8 questions have no {word} answer to use"):
            directions(z.isel(batch=z["label"].values == label), use=range(QUESTIONS), names=NAMES)
    apart = z.isel(batch=[0, 5])  # a true answer to one question, a false one to another
    with pytest.raises(BadInput, match="no question has both a true and a false answer"):
        directions(apart, use=range(QUESTIONS), names=NAMES, kind="pca")


def test_the_edit_is_alpha_sigma_theta_on_the_chosen_heads_alone():
    found = directions(outputs(), use=range(6), names=NAMES)
    made = edit(found, [(1, 2), (0, 1), (1, 0)], 15.0)
    assert [(one.layer, one.units, one.at, one.do.scale) for one in made.edits] == [
        (0, (1,), iv.ALL, 15.0),
        (1, (0, 2), iv.ALL, 15.0),
    ]
    wanted = (found["sigma"] * found["direction"]).values
    np.testing.assert_allclose(
        made.tensors["layer 1"], np.concatenate([wanted[1, 0], wanted[1, 2]]), rtol=1e-6
    )
    assert heads_of(made) == [(0, 1), (1, 0), (1, 2)]


def test_the_edit_moves_z_by_alpha_sigma_theta():
    from nnheads.interventions import Collect

    model, _ = tiny("llama")
    generator = np.random.default_rng(2)
    theta = of_length_one(generator.normal(size=(3, 4, 16))).astype(np.float32)
    sigma = generator.uniform(1, 2, (3, 4)).astype(np.float32)
    found = xr.Dataset(
        {
            "direction": (("layer", "head", "dim"), theta),
            "sigma": (("layer", "head"), sigma),
            "fitted": ("fitted", question_ids(["a"])),
        }
    )
    made = edit(found, [(1, 3), (1, 1)], 2.5)
    seen = iv.Edit("z", Collect("z"), layer=1)
    place = ("batch", "position")
    prompts = xr.Dataset(
        {"token": (place, [[5, 6, 7]]), "mask": (place, [[1, 1, 1]])}, {"batch": [0]}
    )
    with torch.no_grad():
        before = run(model, iv.Intervention(seen), prompts, original=False).collected["z"]
        after = run(
            model, iv.Intervention(*made.edits, seen, tensors=made.tensors), prompts, original=False
        ).collected["z"]
    moved = (after - before).unflatten(-1, (4, 16)).numpy()
    wanted = np.zeros((4, 16), np.float32)
    wanted[[1, 3]] = 2.5 * sigma[1, [1, 3], None] * theta[1, [1, 3]]
    np.testing.assert_allclose(moved, np.broadcast_to(wanted, moved.shape), atol=1e-5)


def test_scopes_are_named_and_can_be_changed():
    found = directions(outputs(), use=range(6), names=NAMES)
    wanted = {
        "all": iv.ALL,
        "answering": iv.ANSWERING,
        "answer": iv.ANSWER,
        "decode": iv.DECODE,
        "prompt": iv.PROMPT,
        "last": iv.index(-1),
    }
    assert wanted == SCOPES
    for name, at in SCOPES.items():
        made = edit(found, [(0, 0)], 1.0, name)
        assert made.edits[0].at == at and rescoped(edit(found, [(0, 0)], 1.0), name) == made
    for call in (
        lambda: edit(found, [(0, 0)], 1.0, "here"),
        lambda: rescoped(edit(found, [(0, 0)], 1.0), "here"),
    ):
        with pytest.raises(
            BadInput,
            match=(
                "scope 'here' is not known; use one of all, answering, answer, decode, prompt, last"
            ),
        ):
            call()


@pytest.mark.parametrize(
    ("heads", "alpha", "said"),
    [
        ([], 1.0, "0 heads, 0 of them different, cannot be edited"),
        ([(0, 0), (0, 0)], 1.0, "2 heads, 1 of them different"),
        ([(2, 0)], 1.0, "L2H0 has no direction; there are layers 0 to 1, heads 0 to 2"),
        ([(0, 3)], 1.0, "L0H3 has no direction"),
        ([(0, 0)], float("nan"), "strength nan is no number"),
        ([(0, 0)], float("inf"), "strength inf is no number"),
    ],
)
def test_edits_that_are_not_possible_are_refused(heads, alpha, said):
    with pytest.raises(BadInput, match=said):
        edit(directions(outputs(), use=range(6), names=NAMES), heads, alpha)


def test_an_edit_of_many_heads_is_a_small_file(tmp_path):
    """48 heads of a 7B shape, and the ids of 400 questions."""
    sizes = (32, 32, 128)
    found = xr.Dataset(
        {
            "direction": (("layer", "head", "dim"), random_directions(sizes, 0).astype(np.float32)),
            "sigma": (("layer", "head"), np.ones(sizes[:2], np.float32)),
            "fitted": ("fitted", question_ids(map(str, range(400)))),
        }
    )
    made = edit(found, random_heads(32, 32, 48, seed=1), 15.0)
    place = save(made, tmp_path / "edit")
    assert sum(path.stat().st_size for path in place.iterdir()) < 60_000
    assert load(place) == made and FITTED in made.tensors
    assert json.loads((place / "intervention.json").read_text())["version"] == 1


def test_heads_are_ranked_by_accuracy_then_by_how_far_apart_decisions_lie():
    dims = ("layer", "head")
    accuracy, apart = (
        xr.DataArray(values, dims=dims)
        for values in ([[0.9, 1.0], [1.0, 0.5]], [[9.0, 2.0], [3.0, 9.0]])
    )
    assert ordered(accuracy, apart) == [(1, 0), (0, 1), (0, 0), (1, 1)]
    assert ordered(accuracy, apart * 0) == [(0, 1), (1, 0), (0, 0), (1, 1)]


def test_how_far_apart_decisions_lie_by_hand():
    values, label = np.array([1.0, 3.0, -1.0, -3.0])[:, None, None, None], ("batch", [1, 1, 0, 0])
    z = xr.DataArray(values, {"label": label}, ("batch", "layer", "head", "dim"))
    weight = xr.DataArray(np.full((1, 1, 1), 2.0), dims=("layer", "head", "dim"))
    assert float(gap(z, weight)[0, 0]) == pytest.approx(4.0)  # 8 apart, 2 within
    assert float(gap(z * 0, weight)[0, 0]) == 0


def test_random_heads_avoid_the_chosen_ones_where_they_can():
    chosen = [(0, 0), (0, 1), (1, 2)]
    drawn = [random_heads(2, 3, 3, without=chosen, seed=seed) for seed in range(5)]
    assert all(not set(one) & set(chosen) and len(set(one)) == 3 for one in drawn)
    assert len(set(random_heads(2, 3, 4, without=chosen, seed=0))) == 4, "three others are too few"
    assert (
        random_heads(4, 8, 5, seed=1)
        == random_heads(4, 8, 5, seed=1)
        != random_heads(4, 8, 5, seed=2)
    )
    for count in (0, 7):
        with pytest.raises(BadInput, match=f"{count} heads cannot be chosen from 6; use 1 to 6"):
            random_heads(2, 3, count)

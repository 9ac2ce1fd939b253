"""Alignment at every layer and place of the reference model: a variable is where it is known to be,
nowhere else.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from random_models import tiny

from nnheads import interventions as iv
from nnheads.errors import BadInput
from nnheads.interventions import localise as localised
from nnheads.interventions.causal_model import draw_counterfactuals
from nnheads.interventions.localise import CONDITIONS, localise, reduced, site_features
from nnheads.interventions.tasks import TASKS

FAST = {"steps": 12, "every": 6, "batch_size": 24, "learning_rate": 0.03}


def pairs(model, name: str, n: int, seed: int, variable: str | None = None):
    task = TASKS[name]
    drawn = task.draw(model.tokenizer, n, seed)
    return drawn.pairs(
        draw_counterfactuals(task.model, drawn.inputs, variable or task.variable, n, seed=seed)
    )


def test_the_position_of_the_indirect_object_is_at_the_repeated_name_behind_layer_1(reference):
    fit, test = (pairs(reference, "ioi", n, seed) for n, seed in ((96, 0), (48, 1)))
    scores, best = localise(
        reference, fit, test, {"S2": iv.role("S2"), "END": iv.role("END")}, layers=[0, 1], **FAST
    )
    assert dict(scores.sizes) == {"batch": 48, "layer": 2, "place": 2} and set(CONDITIONS) < set(
        scores
    )
    table = reduced(scores)
    here, elsewhere = table.sel(layer=1, place="S2"), table.sel(layer=0, place="END")
    assert float(here["trained"]) > 0.9 and float(here["whole"]) > 0.9
    assert float(here["trained_low"]) > max(float(here["random_high"]), float(here["shuffled"]))
    assert float(elsewhere["trained"]) == float(elsewhere["none"]) == 0.5, (
        "half of the pairs keep the answer"
    )
    assert (scores.attrs["best_layer"], scores.attrs["best_place"]) == (1, "S2")
    assert (best.edits[0].layer, best.edits[0].at, best.tensors["rotation"].shape) == (
        1,
        iv.role("S2"),
        (128, 1),
    )
    for name in table.data_vars:
        assert table[name].attrs["long_name"] and table[name].attrs["units"]


def test_the_running_parity_is_at_the_last_state_and_the_next_input_at_its_own_place(reference):
    for variable, place in (("state", "END"), ("bit", "INPUT")):
        fit, test = (
            pairs(reference, "parity", n, seed, variable) for n, seed in ((64, 0), (32, 1))
        )
        places = {name: iv.role(name) for name in ("INPUT", "END")}
        scores, _ = localise(reference, fit, test, places, layers=[0], **FAST)
        found = scores["trained"].mean("batch").sel(layer=0)
        assert float(found.sel(place=place)) > 0.9
        assert float(found.drop_sel(place=place).max()) < 0.7


def test_an_interrupted_search_goes_on_with_the_next_place(reference, tmp_path, monkeypatch):
    fit, test = (pairs(reference, "ioi", n, seed) for n, seed in ((24, 0), (8, 1)))
    options = {**FAST, "steps": 4, "every": 2, "layers": [1, 2]}
    places = {"S2": iv.role("S2"), "-1": iv.index(-1)}
    whole, best = localise(reference, fit, test, places, **options)
    calls, plain = [], localised.train

    def stopping(*arguments, **given):
        calls.append(given["checkpoint"])
        if len(calls) == 4:  # two trainings a place
            raise KeyboardInterrupt
        return plain(*arguments, **given)

    monkeypatch.setattr(localised, "train", stopping)
    with pytest.raises(KeyboardInterrupt):
        localise(reference, fit, test, places, parts=tmp_path, **options)
    assert len(list(tmp_path.glob("*/cell.nc"))) == 1
    resumed, again = localise(reference, fit, test, places, parts=tmp_path, **options)
    assert len(calls) == 4 + 6 and calls[4] == calls[2], "the finished place is read"
    xr.testing.assert_equal(resumed, whole)
    assert again == best
    assert (
        localise(reference, fit, test, places, parts=tmp_path, **options)[1] == best
        and len(calls) == 10
    )


def drawn_pairs() -> iv.Pairs:
    """Six pairs of five random tokens each, and an answer for each."""
    place = ("batch", "position")
    base, source = (
        xr.Dataset({"token": (place, one), "mask": (place, np.ones_like(one))})
        for one in np.random.default_rng(0).integers(4, 500, (2, 6, 5))
    )
    return iv.Pairs(base, (source,), torch.tensor([5, 6, 7, 8, 9, 10]))


def test_every_kind_is_trained_at_every_sort_of_site():
    model, _ = tiny("llama")
    given = drawn_pairs()
    widths = {"resid_post": 48, "z": 64, "v": 32, "mlp_hidden": 40}
    for (site, width), kind in zip(widths.items(), ("boundless", "mask", "lowrank", "das")):
        assert site_features(model, site, 1) == width
        few = 2 if kind == "lowrank" else None
        scores, best = localise(
            model,
            given,
            given,
            {"-1": iv.index(-1)},
            site=site,
            layers=[1],
            kind=kind,
            directions=few,
            steps=1,
            batch_size=2,
            held_out=0.5,
        )
        assert scores.sizes["batch"] == 6 and next(iter(best.tensors.values())).shape[0] == width


def test_nowhere_to_look_and_sites_without_features_are_refused(reference):
    given = pairs(reference, "ioi", 8, 0)
    with pytest.raises(BadInput, match="4 layers and 0 positions leave nowhere to look"):
        localise(reference, given, given, {})
    with pytest.raises(BadInput, match="site 'pattern' has no features to rotate"):
        site_features(reference, "pattern", 0)


def test_numbers_out_of_arrays_are_numbers(tmp_path):
    """Layers, directions, steps and seeds of NumPy's kinds: the same training, and its settings can
    be written down.
    """
    model, _ = tiny("llama")
    given = drawn_pairs()
    found = []
    for kind, name in ((int, "plain"), (np.int64, "numpy")):
        numbers = {
            "directions": kind(2),
            "steps": kind(1),
            "batch_size": kind(2),
            "seed": kind(3),
            "every": kind(1),
        }
        place = {"-1": iv.index(kind(-1))}
        scores, best = localise(
            model, given, given, place, layers=[kind(1)], parts=tmp_path / name, **numbers
        )
        found.append((scores, best))
    xr.testing.assert_identical(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


def test_pairs_that_keep_their_answer_are_left_out_of_a_second_accuracy(reference):
    """Half of the pairs are answered alike without any edit: with them nothing can score below a
    half.
    """
    fit, test = (pairs(reference, "ioi", n, seed) for n, seed in ((48, 0), (40, 1)))
    scores, _ = localise(reference, fit, test, {"S2": iv.role("S2")}, layers=[1], **FAST)
    table, none = (
        reduced(scores).isel(layer=0, place=0),
        scores["none"].isel(layer=0, place=0).values,
    )
    assert table.attrs["pairs_changed"] == int((none == 0).sum()) == 20
    for name in ("trained", "shuffled", "random", "whole"):
        own = scores[name].values[none == 0, 0, 0]
        value, low, high = (float(table[f"{name}_changed{end}"]) for end in ("", "_low", "_high"))
        assert value == pytest.approx(own.mean(), abs=1e-6) and low <= value <= high
        assert float(table[name]) == pytest.approx(
            (own.mean() + scores[name].values[none == 1].mean()) / 2, abs=1e-6
        )
    assert "none_changed" not in table
    assert float(table["trained_changed"]) > 0.6 > 0.3 > float(table["random_changed"])


def test_where_no_pair_changes_its_answer_there_is_no_number(reference):
    given = pairs(reference, "ioi", 24, 0)
    scores, _ = localise(
        reference,
        given,
        given,
        {"S2": iv.role("S2")},
        layers=[1],
        **{**FAST, "steps": 1, "every": 1},
    )
    same = scores.isel(batch=np.flatnonzero(scores["none"].values[:, 0, 0] == 1))
    table = reduced(same)
    assert table.attrs["pairs_changed"] == 0 and np.isnan(table["trained_changed"]).all()

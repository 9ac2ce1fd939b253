"""Alignment: a variable whose subspace is known is found, controls find nothing, and training
repeats and goes on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math

import numpy as np
import pytest
import torch
import xarray as xr
from random_models import placed, tiny
from swaps import pairs as two_pairs
from torch.nn.functional import cross_entropy

from nnheads import interventions as iv
from nnheads.errors import BadInput, RunError
from nnheads.interventions import beginnings
from nnheads.interventions.alignment import aligned, evaluate, orthonormal, random_directions
from nnheads.interventions.checkpoints import CHECKPOINT
from nnheads.interventions.counterfactuals import Pairs
from nnheads.interventions.files import load, save
from nnheads.interventions.predictions import frozen, predicted, read_sources
from nnheads.interventions.training import train
from nnheads.models.families import FAMILIES

WIDTH = 8


class TwoVariables(torch.nn.Module):
    """Says which of four quarters each of two hidden variables points to: 16 answers. `mix` is a
    random rotation, so
    that the variables lie along no neuron: the first in its columns 0 and 1, the second in 2 and
        3."""

    def __init__(self):
        super().__init__()
        self.mix = torch.nn.Linear(WIDTH, WIDTH, bias=False)
        self.readout = torch.nn.Linear(WIDTH, 16, bias=False)
        rotation = orthonormal(
            torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(7))
        )
        quarters = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
        reads = torch.zeros(16, WIDTH)
        reads[:, :2], reads[:, 2:4] = quarters.repeat_interleave(4, 0), quarters.repeat(4, 1)
        with torch.no_grad():
            self.mix.weight.copy_(rotation)
            self.readout.weight.copy_(4 * reads @ rotation.T)

    def forward(self, rows):
        return self.readout(self.mix(rows))

    @property
    def subspace(self) -> torch.Tensor:
        return self.mix.weight[:, :2].detach()


def quarter(values: torch.Tensor) -> torch.Tensor:
    angle = torch.atan2(values[:, 1], values[:, 0])
    return (angle / (math.pi / 2)).round().long() % 4


@pytest.fixture(scope="module")
def network() -> TwoVariables:
    return TwoVariables()


@pytest.fixture(scope="module")
def counterfactuals() -> Pairs:
    """The first variable of the source, the second of the base."""
    base, source = torch.randn(2, 640, WIDTH, generator=torch.Generator().manual_seed(1))
    return Pairs(base, (source,), 4 * quarter(source[:, :2]) + quarter(base[:, 2:4]))


def start(kind: str = "das", directions: int | None = 2, seed: int = 0) -> iv.Intervention:
    return aligned(
        "output", None, features=WIDTH, kind=kind, directions=directions, path="mix", seed=seed
    )


def largest_angle(one: torch.Tensor, other: torch.Tensor) -> float:
    """Largest principal angle between two spans of orthonormal columns, from its sine: cosines near
    1 are blunt.
    """
    return float(
        torch.asin(torch.linalg.matrix_norm(one - other @ (other.T @ one), 2).clamp(max=1))
    )


FAST = {"learning_rate": 0.03, "batch_size": 64}
LONG = {**FAST, "steps": 400, "sparsity": 1.0}


@pytest.mark.parametrize("kind", ["das", "lowrank"])
def test_training_finds_the_subspace_of_the_variable(network, counterfactuals, kind):
    before = start(kind)
    found, log = train(network, before, counterfactuals, steps=200, **FAST)
    rotation = found.tensors["rotation"]
    assert (
        largest_angle(rotation, network.subspace)
        < 0.1
        < 1
        < largest_angle(before.tensors["rotation"], network.subspace)
    )
    torch.testing.assert_close(rotation.T @ rotation, torch.eye(2), atol=1e-6, rtol=0)
    fresh = torch.randn(2, 300, WIDTH, generator=torch.Generator().manual_seed(2))
    others = Pairs(fresh[0], (fresh[1],), 4 * quarter(fresh[1][:, :2]) + quarter(fresh[0][:, 2:4]))
    assert float(evaluate(network, found, others)["score"].mean()) > 0.95
    assert float(evaluate(network, random_directions(found, 3), others)["score"].mean()) < 0.6
    assert (
        log["loss"][-20:].mean() < log["loss"][:20].mean() / 2
        and float(log["held_out_accuracy"][-1]) > 0.9
    )


def test_shuffled_answers_lead_nowhere(network, counterfactuals):
    found, log = train(network, start(), counterfactuals.shuffled(), steps=200, **FAST)
    assert largest_angle(found.tensors["rotation"], network.subspace) > 0.5
    assert float(log["held_out_accuracy"].max()) < 0.2


def test_boundless_learns_how_many_directions_and_hardens(network, counterfactuals):
    found, log = train(network, start("boundless", None), counterfactuals, **LONG, share_rate=0.02)
    rotation, taken = found.tensors["rotation"], round(float(found.tensors["boundary"]) * WIDTH)
    torch.testing.assert_close(rotation.T @ rotation, torch.eye(WIDTH), atol=1e-6, rtol=0)
    assert float(evaluate(network, found, counterfactuals)["score"].mean()) > 0.9
    assert 2 <= taken < WIDTH and float(found.tensors["boundary"]) != 0.5
    temperatures = log["temperature"].values
    assert temperatures[0] == pytest.approx(50) and temperatures[-1] == pytest.approx(0.1)
    assert (np.diff(temperatures) < 0).all() and found.edits[0].do.temperature == pytest.approx(0.1)


def test_a_mask_opens_for_the_neurons_of_the_variable(counterfactuals):
    plain = TwoVariables()
    with torch.no_grad():
        plain.readout.weight.copy_(plain.readout.weight @ plain.mix.weight)
        plain.mix.weight.copy_(torch.eye(WIDTH))
    found, _ = train(
        plain,
        start("mask", None),
        counterfactuals,
        steps=200,
        share_rate=0.05,
        sparsity=0.5,
        batch_size=64,
    )
    mask = found.tensors["mask"]
    assert (mask[:2] > 0.5).all() and (mask[2:4] < -0.5).all()
    assert float(evaluate(plain, found, counterfactuals)["score"].mean()) > 0.95


def test_boundless_puts_the_variable_before_its_boundary(network, counterfactuals):
    found, _ = train(network, start("boundless", None), counterfactuals, **LONG, share_rate=0.02)
    taken = found.tensors["rotation"][:, : round(float(found.tensors["boundary"]) * WIDTH)]
    outside = network.subspace - taken @ (taken.T @ network.subspace)
    assert float(torch.linalg.matrix_norm(outside, 2)) < 0.1  # the sine of the largest angle
    other = network.mix.weight[:, 2:4].detach()
    assert float(torch.linalg.matrix_norm(other - taken @ (taken.T @ other), 2)) > 0.9


def test_a_mask_over_trained_directions_opens_for_those_of_the_variable(network, counterfactuals):
    found, _ = train(
        network, start("mask", WIDTH), counterfactuals, **{**LONG, "sparsity": 0.5}, share_rate=0.05
    )
    open_ones = found.tensors["rotation"][:, found.tensors["mask"] > 0]
    outside = network.subspace - open_ones @ (open_ones.T @ network.subspace)
    assert open_ones.shape[1] < WIDTH and float(torch.linalg.matrix_norm(outside, 2)) < 0.1
    assert float(evaluate(network, found, counterfactuals)["score"].mean()) > 0.9


@pytest.mark.parametrize("kind", ["das", "boundless"])
def test_kept_sources_change_nothing(network, counterfactuals, kind):
    options = {"steps": 20, "every": 5, **FAST}
    (one, log), (other, again) = (
        train(network, start(kind, None), counterfactuals, keep_sources=keep, **options)
        for keep in (True, False)
    )
    np.testing.assert_allclose(log["loss"], again["loss"], rtol=1e-5)
    for name, tensor in one.tensors.items():
        torch.testing.assert_close(tensor, other.tensors[name], atol=1e-5, rtol=0)


def test_what_is_trained_is_saved_and_used_as_it_is(network, counterfactuals, tmp_path):
    found, _ = train(network, start(), counterfactuals, steps=10)
    again = load(save(found, tmp_path))
    assert again == found
    torch.testing.assert_close(
        predicted(network, again, counterfactuals),
        predicted(network, found, counterfactuals),
        atol=0,
        rtol=0,
    )


def test_training_repeats_and_goes_on_where_it_stopped(network, counterfactuals, tmp_path):
    options = {"steps": 12, "every": 4, **FAST}
    whole, log = train(network, start("boundless", None), counterfactuals, **options)
    calls = []

    def stopping(logits, answer):
        calls.append(len(answer))
        if len(calls) == 12:  # each measurement takes two calls
            raise KeyboardInterrupt
        return cross_entropy(logits, answer)

    stopping.__name__ = "cross_entropy"
    with pytest.raises(KeyboardInterrupt):
        train(
            network,
            start("boundless", None),
            counterfactuals,
            loss=stopping,
            checkpoint=tmp_path,
            **options,
        )
    assert (tmp_path / CHECKPOINT).exists()
    resumed, second = train(
        network, start("boundless", None), counterfactuals, checkpoint=tmp_path, **options
    )
    assert resumed == whole
    xr.testing.assert_identical(second, log)
    assert train(network, start("boundless", None), counterfactuals, seed=1, **options)[0] != whole


def test_all_pairs_are_trained_on_where_none_is_held_out(network, counterfactuals):
    found, log = train(network, start(), counterfactuals, steps=60, held_out=0, **FAST)
    assert log.attrs["pairs_fitted"] == len(counterfactuals) and log.sizes["evaluation"] == 0
    again, _ = train(network, start(), counterfactuals, steps=60, held_out=0, every=7, **FAST)
    assert again == found  # the last state, however often it was looked at
    assert float(evaluate(network, found, counterfactuals)["score"].mean()) > 0.6


def test_it_stops_when_nothing_improves(network, counterfactuals):
    _, log = train(
        network, start(), counterfactuals, steps=400, every=5, patience=3, learning_rate=1.0
    )
    assert log.sizes["step"] < 400 and log.sizes["step"] % 5 == 0
    assert log.attrs["best_held_out_loss"] == pytest.approx(float(log["held_out_loss"].min()))
    assert int(log["held_out_loss"].values.argmin()) == log.sizes["evaluation"] - 4


def prompts_as_pairs(padded, answer=(5, 7)) -> Pairs:
    base = two_pairs(padded)
    both = xr.concat([base, base], "batch")
    return Pairs(both, (both.assign(token=both["corrupted"]),), torch.tensor([*answer, *answer]))


@pytest.mark.parametrize("site", ["resid_post", "v"])
def test_language_models_are_trained_through_hooks_and_through_traces(padded, site):
    model, module = tiny("llama")
    given = prompts_as_pairs(padded)
    width = 48 if site == "resid_post" else 32
    before = aligned(site, 1, iv.index(-2, -3), features=width, directions=4)
    weights = {name: weight.clone() for name, weight in module.state_dict().items()}
    found, log = train(
        model, before, given, steps=8, batch_size=2, held_out=0.5, every=4, learning_rate=0.03
    )
    assert float(log["held_out_loss"].min()) < float(
        cross_entropy(predicted(model, before, given).detach(), given.answer)
    )
    for name, weight in module.state_dict().items():
        torch.testing.assert_close(weight, weights[name], atol=0, rtol=0)
    scores = [
        placed(where, evaluate)(model, found, given, metric=of_answer)["score"]
        for where in (False, "local")
    ]
    np.testing.assert_allclose(*scores, rtol=1e-4)


def test_what_sources_give_is_read_once_for_prompts_of_any_length(padded):
    model, module = tiny("llama")
    given = prompts_as_pairs(padded)
    before = iv.Intervention(
        aligned("resid_post", 1, iv.span(1, None), features=48, directions=4).edits[0],
        iv.Edit("z", iv.Interchange(source=1), layer=0, at=iv.index(0), units=(1, 3)),
        tensors=aligned("resid_post", 1, features=48, directions=4).tensors,
    )
    two = Pairs(given.base, (given.sources[0], given.base.isel(batch=[2, 3, 0, 1])), given.answer)
    known = read_sources(model, before, two, batch_size=3)
    assert known.taken[0][0].shape == (4, 8, 48) and known.taken[1][0].shape == (4, 1, 32)
    calls = []
    with module.register_forward_hook(lambda *_: calls.append(1)):
        for chosen in ([0, 1], [1, 3], [1], [2, 0, 3]):
            rows = np.array(chosen)
            own = known.rows(rows)
            assert own.taken[0][1].shape[1] == (8 if set(chosen) & {0, 2} else 4), (
                "no more places than a batch needs"
            )
            torch.testing.assert_close(
                predicted(model, before, two.rows(rows), known=own),
                predicted(model, before, two.rows(rows)),
            )
    assert len(calls) == 4 * (1 + 3)
    scores = [
        evaluate(model, before, two, metric=of_answer, known=one)["score"] for one in (known, None)
    ]
    np.testing.assert_allclose(*scores, rtol=1e-4)
    one_after_another = iv.Intervention(*before.edits, tensors=before.tensors, mode="serial")
    assert read_sources(model, one_after_another, two) is None
    assert read_sources(model, aligned("v", 1, features=32), given) is None


def test_the_source_runs_once_a_pair_and_the_base_once_a_step(padded):
    model, module = tiny("llama")
    rows = []
    before = aligned("resid_post", 1, iv.index(-1), features=48)
    with module.register_forward_hook(lambda *given: rows.append(len(given[-1].logits))):
        train(model, before, prompts_as_pairs(padded), steps=6, batch_size=2, held_out=0.5, every=3)
        assert rows == [4, 4, *3 * [2], 2, *3 * [2], 2], "sources, beginnings, steps"
        rows.clear()
        train(model, before, prompts_as_pairs(padded), steps=1, batch_size=2, held_out=0.5)
        assert rows == [2, 2, 2, 2], "pairs that come once are not read before"


def of_answer(logits, answer):
    return logits.gather(1, answer[:, None])[:, 0]


def test_roles_and_other_positions_in_the_source_mean_the_same_in_hooks_and_traces(padded):
    model, _ = tiny("llama")
    given = prompts_as_pairs(padded)
    base = given.base.assign_coords(
        role_S=("batch", [7, 6, 5, 8]), prompt_length=("batch", [8, 4, 9, 5])
    )
    source = given.sources[0].assign_coords(
        role_S=("batch", [6, 5, 8, 7]), role_T=("batch", [5, 7, 7, 6])
    )
    pinned = Pairs(base, (source,), given.answer)
    scores = []
    for source_at in (None, iv.role("T")):
        edits = aligned(
            "resid_post", 0, iv.role("S"), source_at=source_at, features=48, directions=20
        )
        here, there = (
            placed(where, evaluate)(model, edits, pinned, metric=of_answer)["score"]
            for where in (False, "local")
        )
        np.testing.assert_allclose(here, there, rtol=1e-4)
        scores.append(here)
    assert float(abs(scores[0] - scores[1]).min()) > 1e-3


def test_a_network_is_left_as_it_was(network, counterfactuals):
    own = torch.nn.Sequential(
        torch.nn.Linear(WIDTH, WIDTH), torch.nn.Dropout(0.5), torch.nn.Linear(WIDTH, 16)
    ).train()
    before = aligned("output", None, features=WIDTH, path="0")
    train(own, before, counterfactuals, steps=2)
    assert own[1].training and all(
        weight.requires_grad and weight.grad is None for weight in own.parameters()
    )


ENDS = {  # of prompts of 9 and 5 tokens, padded on the left: the least position that is changed
    "the last token": (iv.index(-1), 8),
    "from the third token on": (iv.span(2, None), 2),
    "the first token": (iv.index(0), 0),
}


@pytest.mark.parametrize("where", ENDS)
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_what_stands_before_the_first_edit_is_read_once(family, where, padded, monkeypatch):
    model, module = tiny(family)
    (at, first), width = ENDS[where], module.config.hidden_size
    given = prompts_as_pairs(padded)
    edits = aligned("resid_post", 1, at, features=width, directions=4)
    known = read_sources(model, edits, given, batch_size=3)
    if not FAMILIES[family].position_ids or not first:
        assert known.begun is None
        return
    assert known.begun.length == first
    lengths = []
    block = module.get_submodule(FAMILIES[family].layers)[0]
    with block.register_forward_pre_hook(lambda _, given: lengths.append(given[0].shape[-2])):
        for chosen in ([0, 1], [1, 3], [2, 0, 3]):
            rows = np.array(chosen)
            part = given.rows(rows)
            rest = predicted(model, edits, part, known=known.rows(rows))
            torch.testing.assert_close(rest, predicted(model, edits, part), atol=2e-5, rtol=1e-4)
    whole = given.base.sizes["position"]
    assert set(lengths[::3]) == {whole - first} and set(lengths) > {whole}
    with pytest.raises(BadInput, match="read before"):
        predicted(model, aligned("resid_post", 1, iv.index(0), features=width), given, known=known)
    monkeypatch.setattr(beginnings, "CACHE_BYTES", 10)
    assert read_sources(model, edits, given).begun is None


def test_a_frozen_model_unembeds_the_last_tokens_as_one_matrix():
    model, _ = tiny("llama")
    head = model._module.get_output_embeddings()
    seen, hooks = [], len(head._forward_pre_hooks)
    with frozen(model):
        watch = head.register_forward_hook(lambda _, given, __: seen.append(given[0]))
        logits = model._module(torch.arange(12).view(3, 4), logits_to_keep=1).logits
        watch.remove()
    assert seen[0].shape[:2] == (3, 1) and seen[0].is_contiguous()
    assert len(head._forward_pre_hooks) == hooks, "it stays only while the weights are frozen"
    plain = model._module(torch.arange(12).view(3, 4)).logits[:, -1:]
    torch.testing.assert_close(logits, plain, rtol=0, atol=1e-5)


def test_progress_counts_every_step_and_those_done_before(
    network, counterfactuals, tmp_path, monkeypatch
):
    seen = []

    @contextlib.contextmanager
    def counting(title, total, quiet):
        seen.append((title, total, quiet))
        yield seen.append

    monkeypatch.setattr(iv.training, "progress", counting)
    options = {"steps": 4, "every": 2, "checkpoint": tmp_path}
    train(network, start(), counterfactuals, quiet=False, **options)
    assert seen == [("alignment", 4, False), 0, 1, 1, 1, 1]
    train(network, start(), counterfactuals, **options)
    assert seen[-2:] == [("alignment", 4, True), 4]


NOTHING = iv.Intervention(iv.Edit("output", iv.Interchange(), path="mix"))
COMPONENTS = iv.Intervention(
    iv.Edit("output", iv.PCA(), path="mix"), tensors={"rotation": torch.eye(WIDTH)[:, :2]}
)
REFUSED = {
    "no step": ({"steps": 0}, "steps 0 is not possible"),
    "no rows": ({"batch_size": 0}, "batch_size 0 is not possible"),
    "no patience": ({"patience": 0}, "patience 0 is not possible"),
    "no rate": ({"learning_rate": 0.0}, r"learning_rate 0\.0 is not possible; it must be above 0"),
    "less than nothing held out": (
        {"held_out": -0.1},
        r"held_out -0\.1 is not possible; a share between 0 and 1",
    ),
    "patience without pairs": ({"held_out": 0, "patience": 2}, "patience is for pairs held out"),
    "all held out": ({"held_out": 0.9999}, "640 pairs are too few to hold 0.9999 of them out"),
    "a cold start": ({"temperature": (0.0, 1.0)}, r"temperature \(0\.0, 1\.0\) is not possible"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_settings_that_are_not_possible_are_refused(network, counterfactuals, name):
    options, message = REFUSED[name]
    with pytest.raises(BadInput, match=message):
        train(network, start(), counterfactuals, **options)


def test_training_on_a_server_is_refused(network, counterfactuals):
    with pytest.raises(BadInput, match="training needs gradients, which do not come back"):
        placed(True, train)(network, start(), counterfactuals)


@pytest.mark.parametrize(
    "edits", [NOTHING, COMPONENTS, iv.Intervention(iv.Edit("output", iv.Zero(), path="mix"))]
)
def test_nothing_to_train_is_refused(network, counterfactuals, edits):
    with pytest.raises(BadInput, match="this intervention has nothing to train"):
        train(network, edits, counterfactuals)


def test_pairs_that_do_not_belong_together_are_refused(network, counterfactuals, padded):
    rows = counterfactuals.base
    with pytest.raises(BadInput, match="640 inputs for 3 answers; pairs go row by row"):
        Pairs(rows, (rows,), torch.zeros(3, dtype=torch.long))
    with pytest.raises(BadInput, match="expected an id a row"):
        Pairs(rows, (rows,), torch.zeros(640))
    with pytest.raises(BadInput, match="must both be datasets or both tensors, got a Dataset"):
        Pairs(rows, (two_pairs(padded),), torch.zeros(640, dtype=torch.long))
    with pytest.raises(BadInput, match="there are no pairs; give at least one"):
        Pairs(rows[:0], (), torch.zeros(0, dtype=torch.long))
    with pytest.raises(
        BadInput, match=r"answers 0 to 16 do not go with an output of shape \(64, 16\)"
    ):
        evaluate(network, start(), Pairs(rows[:64], (rows[:64],), torch.arange(64) % 17))
    with pytest.raises(BadInput, match="this needs prompts as datasets"):
        placed("local", evaluate)(network, start(), counterfactuals)
    with pytest.raises(BadInput, match=r"the metric gave shape \(\) for 64 pairs"):
        evaluate(network, start(), counterfactuals, metric=cross_entropy)
    with pytest.raises(BadInput, match="batch_size 0 is not possible"):
        evaluate(network, start(), counterfactuals, batch_size=0)


def test_where_training_starts_is_refused_if_it_cannot_be():
    for options, message in (
        ({"kind": "pca"}, "kind 'pca' is not known; use one of das, lowrank, boundless, mask"),
        ({"directions": 9}, "directions 9 are not possible; a site of 8 features has 1 to 8"),
        ({"features": 0}, "features 0 are not possible; give the width of the site"),
        ({"kind": "lowrank", "directions": 8}, "low rank means fewer"),
    ):
        with pytest.raises(BadInput, match=message):
            aligned("resid_post", 0, **{"features": WIDTH, **options})
    by_direction = aligned("resid_post", 0, features=WIDTH, kind="mask", directions=3)
    assert (
        by_direction.tensors["mask"].shape == (3,)
        and by_direction.edits[0].do.rotation == "rotation"
    )
    assert aligned("z", 1, iv.index(-1), features=4, seed=1, units=(0,)).edits[0] == iv.Edit(
        "z", iv.Rotate(), layer=1, units=(0,), at=iv.index(-1)
    )


def test_a_loss_that_is_not_finite_ends_it(network, counterfactuals):
    with pytest.raises(RunError, match="the loss at step 0 is nan"):
        train(
            network,
            start(),
            counterfactuals,
            loss=lambda logits, answer: (logits * float("nan")).sum(),
        )


def test_a_loss_on_held_out_pairs_that_is_not_finite_ends_it(network, counterfactuals):
    def loss(logits, answer):
        return cross_entropy(logits, answer) if logits.requires_grad else torch.tensor(float("inf"))

    with pytest.raises(RunError, match="the loss on pairs held out, after 1 steps, is inf"):
        train(network, start(), counterfactuals, steps=1, loss=loss)


def test_a_checkpoint_of_another_training_is_refused(network, counterfactuals, tmp_path):
    train(network, start(), counterfactuals, steps=2, checkpoint=tmp_path)
    with pytest.raises(BadInput, match=r"is of another training \(steps differ\)"):
        train(network, start(), counterfactuals, steps=3, checkpoint=tmp_path)
    changed = dataclasses.replace(counterfactuals, answer=(counterfactuals.answer + 1) % 16)
    with pytest.raises(BadInput, match=r"is of another training \(training differ\)"):
        train(network, start(), changed, steps=2, checkpoint=tmp_path)
    own = TwoVariables()
    with torch.no_grad():
        own.readout.weight.mul_(1.01)
    with pytest.raises(BadInput, match=r"is of another training \(training differ\)"):
        train(own, start(), counterfactuals, steps=2, checkpoint=tmp_path)
    (tmp_path / CHECKPOINT).write_bytes(b"cut")
    with pytest.raises(BadInput, match="cannot be read as a checkpoint"):
        train(network, start(), counterfactuals, steps=2, checkpoint=tmp_path)

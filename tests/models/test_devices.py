"""A model that lies on two devices: the same numbers, and no tensor meets one from the other
device.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from devices import CARDS, cards, spread

import nnheads
from nnheads.detectors._scores import raw_scores
from nnheads.generation.greedy import generate
from nnheads.prompts.ioi_words import TEMPLATES

TYPES = ("induction", "indirect_object", "retrieval", "generated_retrieval", "truthfulness")


def scored(kind: str):
    def job(model):
        found = raw_scores(model, [kind], n=4, seed=0, batch_size=2, quiet=True, parts=None)[kind]
        return found[found.attrs["headline"]].values

    return job


def swapped(**options):
    def job(model):
        return nnheads.patch(model, nnheads.ioi(model.tokenizer, n=3), **options)[
            "logit_difference"
        ].values

    return job


def written(found):
    return np.concatenate([one.values.ravel() for one in found.data_vars.values()])


JOBS = {
    **{kind: scored(kind) for kind in TYPES},
    "patch z": swapped(),
    "patch q": swapped(site="q"),
    "patch pattern": swapped(site="pattern"),
    "patch resid_pre by position": swapped(site="resid_pre", by_position=True),
    "ablate": lambda model: (
        nnheads.ablate(
            model,
            nnheads.ioi(model.tokenizer, n=3, templates=TEMPLATES[:1]),
            "mean",
            groups=[[(1, 0), (3, 1)]],
        )["change"].values
    ),
    "path": lambda model: (
        nnheads.path_patch(model, nnheads.ioi(model.tokenizer, n=3), receivers=[(2, 4)], via="q")[
            "logit_difference"
        ].values
    ),
    "copy": lambda model: (
        nnheads.copy_scores(model, ["Mary", "John", "Anna", "Paul"])["copy"].values
    ),
    "composition": lambda model: nnheads.composition_scores(model)["composition"].values,
    "look": lambda model: (
        nnheads.logit_lens(model, "Mary gave the book to", k=3)["residual_norm"].values
    ),
    "direct": lambda model: written(
        nnheads.direct_logit_attribution(model, nnheads.ioi(model.tokenizer, n=3))
    ),
    "generate": lambda model: generate(model, nnheads.ioi(model.tokenizer, n=3), 4),
}


@pytest.fixture(scope="module")
def whole():
    return nnheads.load("reference", attn_implementation="eager")


@pytest.mark.parametrize("name", JOBS)
def test_two_devices_give_the_numbers_of_one(name, whole, monkeypatch):
    here = JOBS[name](whole)
    split = nnheads.load("reference", attn_implementation="eager")
    with cards(monkeypatch):
        spread(split)
        assert {
            split.layers[index].attention.projection._module.weight.device for index in (0, 3)
        } == set(CARDS)
        there = JOBS[name](split)
    assert np.isfinite(here).any()
    np.testing.assert_allclose(there, here, atol=1e-4)


def test_tensors_of_two_devices_do_not_meet(monkeypatch):
    with cards(monkeypatch):
        first, second = (torch.ones(3).to(card) for card in CARDS)
        assert (first + first).device == CARDS[0] and (first + 1).cpu().tolist() == [2, 2, 2]
        with pytest.raises(RuntimeError, match=r"aten\.add\.Tensor on \['cuda:0', 'cuda:1'\]"):
            first + second
        assert (first.to(second) + second).device == CARDS[1]

"""Statements as branches of a tree: each is read as it is alone, and what is shared once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from random_models import placed, tiny
from statements import LAYOUT, statements

from nnheads import interventions as iv
from nnheads.models.families import FAMILIES
from nnheads.models.inputs import inputs
from nnheads.truth import branches
from nnheads.truth.activations import last_outputs
from nnheads.truth.answer_likelihood import log_probability
from nnheads.truth.branches import branched, longest_first, numbered, shareable, tokens_read
from nnheads.truth.trees import side_by_side, trees, visible

GROUPS = st.lists(
    st.tuples(st.integers(0, 2), st.lists(st.integers(0, 1), min_size=1, max_size=6)),
    min_size=1,
    max_size=9,
)


@given(GROUPS)
def test_a_statement_is_the_path_through_its_tree(rows):
    groups, marks = (
        np.array([group for group, _ in rows]),
        [np.array(ids)[:, None] for _, ids in rows],
    )
    found = trees(marks, groups)
    assert sorted(member for tree in found for member in tree.members) == list(range(len(rows)))
    for tree in found:
        assert len({groups[member] for member in tree.members}) == 1
        written = np.full(tree.length, -1)
        for member, places in tree.places(0):
            assert (np.diff(places) > 0).all()
            free = written[places] == -1
            assert (written[places] == marks[member][:, 0])[~free].all(), (
                "what is there is the same"
            )
            written[places] = marks[member][:, 0]
        assert (written >= 0).all(), "every place is somebody's"
        firsts = [marks[member][: tree.shared + 1, 0].tolist() for member in tree.members]
        alike = all(first == firsts[0] and len(first) > tree.shared for first in firsts)
        assert not alike, "no more could be shared"


def test_a_tree_that_would_be_too_long_is_cut_into_several(monkeypatch):
    monkeypatch.setattr("nnheads.truth.trees.MOST", 10)
    behind = ([1, 2], [3], [4, 5, 6], [8, 9], [2], [6])
    marks = [np.array([7, 7, 7, *own])[:, None] for own in behind]
    found = trees(marks, np.zeros(6, int))  # twice the longest, of six, is allowed
    assert [tree.members for tree in found] == [(0, 1, 2, 3, 4), (5,)]
    assert [tree.length for tree in found] == [12, 4] and {tree.shared for tree in found} == {3}
    model, _ = tiny("llama")
    prompts = statements()
    apart = last_outputs(model, prompts)
    monkeypatch.setattr("nnheads.truth.trees.MOST", 512)
    xr.testing.assert_allclose(last_outputs(model, prompts), apart, atol=1e-5)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=30))
def test_trees_stand_side_by_side_in_rows_no_longer_than_the_longest(lengths):
    rows = side_by_side(lengths)
    assert sorted(number for row in rows for number in row) == list(range(len(lengths)))
    used = [sum(lengths[number] for number in row) for row in rows]
    assert max(used) == max(lengths)
    assert sum(2 * one <= max(lengths) for one in used) <= 1, "two such rows would be one"


def test_who_sees_whom_by_hand():
    """A padding, then a tree of one shared token and two branches of one and two tokens."""
    tree, branch = np.array([[-1, 0, 0, 0, 0]]), np.array([[-1, -1, 7, 8, 8]])
    expected = [
        [1, 0, 0, 0, 0],
        [0, 1, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 1, 0, 1, 0],
        [0, 1, 0, 1, 1],
    ]
    assert visible(tree, branch)[0].astype(int).tolist() == expected


def plainly(function, monkeypatch, *arguments):
    with monkeypatch.context() as patch:
        patch.setattr(branches, "shareable", lambda *_: False)
        return function(*arguments)


SHARED = {name for name, row in FAMILIES.items() if row.interface and row.position_ids}


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_branches_are_read_as_each_statement_alone(model_type, monkeypatch):
    model, module = tiny(model_type)
    if getattr(module.config, "sliding_window", None):  # as far as the statements, as real ones do
        monkeypatch.setattr(module.config, "sliding_window", 64)
    prompts, value = statements(), torch.randn(16, generator=torch.Generator().manual_seed(3))
    edit = iv.Intervention(
        iv.Edit("resid_post", iv.Add("v", scale=0.5), layer=0, neurons=tuple(range(16))),
        tensors={"v": value},
    )
    assert shareable(model, 12, edit) == (model_type in SHARED)
    for function, arguments in (
        (log_probability, (model, iv.Intervention(), prompts)),
        (log_probability, (model, edit, prompts)),
        (last_outputs, (model, prompts)),
    ):
        here = function(*arguments)
        alone = plainly(function, monkeypatch, *arguments)
        xr.testing.assert_allclose(here, alone, atol=2e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_both_masks_hide_the_other_branches(attention):
    model, _ = tiny("llama", attention)
    prompts = statements()
    read = branched(model, prompts)
    before = last_outputs(model, prompts)
    other = prompts.copy(deep=True)
    other["token"][1, -1] = 5 + (other["token"][1, -1] == 5)  # another answer of question 0
    changed = abs(last_outputs(model, other) - before).max(["layer", "head", "dim"]).values
    assert changed[1] > 1e-3 and np.delete(changed, 1).max() < 1e-6
    assert len(read.inputs["input_ids"]) < prompts.sizes["batch"]


def test_edits_are_shared_only_where_all_statements_want_them():
    """The last token of one statement is in the middle of another."""
    model, _ = tiny("llama")
    prompts = statements(layout=[(0, 1, 1, 5, 1, 0), (0, 0, 0, 5, 1, 3)])
    prompts["token"][0, -6:] = prompts["token"][1, -9:-3].values
    at = iv.index(-1)
    acts = [torch.tensor([[prompts.sizes["position"] - 1]] * 2)]
    edit = iv.Intervention(iv.Edit("z", iv.Zero(), layer=1, units=(0,), at=at))
    alone, apart = branched(model, prompts), branched(model, prompts, edit, acts)
    assert alone.inputs["input_ids"].shape == (1, 9), "one is the beginning of the other"
    assert apart.inputs["input_ids"].shape == (1, 10), "its last token is there twice"
    assert apart.where(acts[0]).tolist() == [sorted(apart.last.tolist())]


def test_fewer_tokens_are_read_and_as_many_as_are_said():
    model, _ = tiny("llama")
    prompts = statements()
    each = prompts["mask"].values.sum(1)
    read = branched(model, prompts).inputs
    shown = (read["attention_mask"][:, 0].sum(1) > 1) | (read["position_ids"] > 0)
    # one question's five tokens are read once instead of four times, and so on
    assert int(shown.sum()) == tokens_read(model, prompts).sum() == each.sum() - 3 * 5 - 7 - 2 * 3
    alone = prompts.drop_vars("question")
    assert (tokens_read(model, alone) == each).all()
    assert (tokens_read(tiny("bloom")[0], prompts) == each).all()


def test_what_a_model_or_an_edit_does_not_allow_is_read_alone(monkeypatch):
    model, module = tiny("llama")
    assert shareable(model, 9) and not placed("local", shareable)(model, 9)

    def one(site: str, do, **tensors) -> iv.Intervention:
        return iv.Intervention(iv.Edit(site, do, layer=0), tensors=tensors)

    assert shareable(model, 9, one("z", iv.Scale(2.0))) and shareable(model, 9, iv.Intervention())
    assert not shareable(model, 9, one("pattern", iv.Scale(2.0)))
    assert not shareable(model, 9, one("z", iv.Function(torch.sin)))
    assert not shareable(model, 9, one("z", iv.Noise(1.0, seed=1)))
    each = torch.zeros(9, 1, 64)
    assert not shareable(model, 9, one("z", iv.Set("v"), v=each)), "a number for each row"
    monkeypatch.setattr(module.config, "sliding_window", 8, raising=False)
    assert shareable(model, 8) and not shareable(model, 9)
    monkeypatch.setattr(module.config, "_attn_implementation_internal", "flash_attention_2")
    assert not shareable(model, 8)
    plain = branched(model, statements())
    for name, tensor in inputs(model, statements()).items():
        assert torch.equal(plain.inputs[name], tensor)


def test_statements_of_a_question_come_together_and_the_longest_first():
    prompts = statements()
    order = longest_first(prompts)
    assert prompts["question"].values[order].tolist() == [3, 3, 0, 0, 0, 0, 4, 4, 4]
    assert sorted(order) == list(range(len(LAYOUT)))
    lengths = prompts["mask"].values.sum(1)
    alone = longest_first(prompts.drop_vars("question"))
    assert (np.diff(lengths[alone]) <= 0).all()


def test_positions_of_rows_are_numbered_in_order():
    there = np.array([[False, True, True], [True, False, False], [False, False, False]])
    assert numbered(there).tolist() == [[1, 2], [0, -1], [-1, -1]]
    assert numbered(there[2:]).tolist() == [[-1]]

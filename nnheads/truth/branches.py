"""Statements that begin alike, side by side in one row: what they share is read once.

    read = branched(model, prompts)
    with model.trace(**read.inputs):           # fewer tokens than the statements have
        z = read_z(layer, heads)[read.row, read.last]

The answers to one question share the question. Their statements become a tree: the question, and
behind it a branch for each answer, which sees the question and itself alone. Trees stand side by
side in rows of about the same length, so that little is padding. Every token has the position that
it has in its statement, so that nothing but the order of sums differs from reading each alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Int

from nnheads.interventions.schema import Intervention
from nnheads.models.families import FAMILIES, family
from nnheads.models.inputs import inputs, positions_by_length
from nnheads.trace.plain import Inputs
from nnheads.trace.session import remote_of
from nnheads.truth.trees import Tree, side_by_side, visible
from nnheads.truth.trees import trees as grown

# operations that do to a position what they do to it alone, with the same numbers for every row
ALIKE = ("zero", "set", "mean", "add", "subtract", "scale")
MASKS = ("sdpa", "eager")  # attention that takes any mask


@dataclass(frozen=True, eq=False)
class Branched:
    """What is run, and where each statement is in it.

    inputs: as the model takes them. row: [statement] the row that holds it. place: [statement,
    token] where in the row each of its tokens is, -1 behind its end. start: [statement] where the
    statement begins in the dataset that it is from.
    """

    inputs: Inputs
    row: Int[np.ndarray, " statement"]
    place: Int[np.ndarray, "statement token"]
    start: Int[np.ndarray, " statement"]

    @property
    def last(self) -> Int[np.ndarray, " statement"]:
        """Where each statement ends."""
        ends = (self.place >= 0).sum(1) - 1
        return np.take_along_axis(self.place, ends[:, None], 1)[:, 0]

    def where(self, chosen: Int[torch.Tensor, "statement chosen"]) -> Int[torch.Tensor, "row here"]:
        """Return positions of the dataset as positions of the rows, -1 for none."""
        statement, number = (chosen.numpy() >= 0).nonzero()
        own = chosen.numpy()[statement, number] - self.start[statement]
        there = np.zeros(self.inputs["input_ids"].shape, bool)
        there[self.row[statement], self.place[statement, own]] = True
        return torch.from_numpy(numbered(there))


def numbered(there: Bool[np.ndarray, "row position"]) -> Int[np.ndarray, "row here"]:
    """Return the true positions of each row, in order, filled up with -1."""
    count = there.sum(1)
    order = np.argsort(~there, axis=1, kind="stable")[:, : max(1, int(count.max(initial=0)))]
    return np.where(np.arange(order.shape[1]) < count[:, None], order, -1)


def branched(
    model: Any,
    prompts: xr.Dataset,
    intervention: Intervention | None = None,
    acts: Sequence[Int[torch.Tensor, "statement chosen"]] = (),
) -> Branched:
    """Return statements as few rows, or each as its own row where the model cannot share.

    Args:
        prompts: `token`, `mask` (batch, position), padded on the left, with at least one token a
            row; coordinate `question` (batch) says which begin alike.
        intervention: what is done to them. acts: the positions at which each of its edits acts; a
            token is shared only where all statements want the same done to it.

    Raises:
        BadInput: as `models.inputs.inputs`.
    """
    plain = inputs(model, prompts)
    mask = plain["attention_mask"].numpy()
    start = mask.shape[1] - mask.sum(1)
    own = [plain["input_ids"].numpy()[row, first:] for row, first in enumerate(start)]
    if not shareable(model, max(map(len, own)), intervention):
        return Branched(plain, np.arange(len(own)), _behind(own, start), start)
    marks = [_marked(ids, at, start, acts) for at, ids in enumerate(own)]
    trees = grown(marks, questions_of(prompts))
    row, place = _places(own, trees)
    return Branched(_inputs(model, own, trees, row, place), row, place, start)


def shareable(model: Any, longest: int, intervention: Intervention | None = None) -> bool:
    """Return whether a model can read statements of up to `longest` tokens as branches.

    It must run here, take any mask and any positions, and look as far as the statements go; edits
    must do to a position what they would do to it alone.
    """
    config, row = model.config, family(model)
    if remote_of(model) or not (row.interface and row.position_ids):
        return False
    if config.model_type not in FAMILIES:  # whose windows may have another name than ours
        return False
    reach = getattr(config, "sliding_window", None) or longest
    if config._attn_implementation not in MASKS or positions_by_length(config) or reach < longest:
        return False
    edits = () if intervention is None else intervention.edits
    return all(_alike(edit, intervention) for edit in edits)


def _alike(edit: Any, intervention: Any) -> bool:
    value = getattr(edit.do, "value", None)
    one = not isinstance(value, str) or intervention.tensors[value].dim() <= 1
    return edit.do.name in ALIKE and one and edit.site != "pattern"


def questions_of(prompts: xr.Dataset) -> np.ndarray:
    """Return the question of each statement; statements without one share nothing."""
    if "question" in prompts.coords or "question" in prompts:
        return prompts["question"].values
    return np.arange(prompts.sizes["batch"])


def longest_first(prompts: xr.Dataset) -> Int[np.ndarray, " statement"]:
    """Return an order of statements: those of one question together, the longest ones first."""
    lengths, question = prompts["mask"].values.sum(-1), questions_of(prompts)
    _, number = np.unique(question, return_inverse=True)
    longest = np.zeros(number.max(initial=-1) + 1, int)
    np.maximum.at(longest, number, lengths)
    return np.lexsort((number, -longest[number]))


def tokens_read(model: Any, prompts: xr.Dataset) -> Int[np.ndarray, " statement"]:
    """Return how many tokens each statement adds to what is read of its question before it."""
    mask, ids = prompts["mask"].values, prompts["token"].values
    own = [row[here > 0] for row, here in zip(ids, mask)]
    lengths = np.array([len(one) for one in own])
    if shareable(model, int(lengths.max())):
        for tree in grown([one[:, None] for one in own], questions_of(prompts)):
            lengths[list(tree.members[1:])] -= tree.shared
    return lengths


def _marked(
    ids: np.ndarray, at: int, start: np.ndarray, acts: Sequence[torch.Tensor]
) -> Int[np.ndarray, "token mark"]:
    """Return a statement's tokens, each with which edits act at it."""
    marks = np.zeros((len(ids), 1 + len(acts)), np.int64)
    marks[:, 0] = ids
    for number, chosen in enumerate(acts, 1):
        here = chosen[at].numpy()
        marks[here[here >= 0] - start[at], number] = 1
    return marks


def _behind(own: Sequence[np.ndarray], start: np.ndarray) -> Int[np.ndarray, "statement token"]:
    """Return places of tokens one behind the other, -1 behind the end."""
    number = np.arange(max(map(len, own)))
    lengths = np.array([len(ids) for ids in own])[:, None]
    return np.where(number < lengths, start[:, None] + number, -1)


def _places(own: Sequence[np.ndarray], trees: Sequence[Tree]) -> tuple[np.ndarray, np.ndarray]:
    """Return the row of each statement, and the places of its tokens; rows end together."""
    rows = side_by_side([tree.length for tree in trees])
    width = max(tree.length for tree in trees)
    row_of = np.zeros(len(own), np.int64)
    place = np.full((len(own), max(map(len, own))), -1)
    for line, numbers in enumerate(rows):
        at = width - sum(trees[number].length for number in numbers)
        for tree in (trees[number] for number in numbers):
            for member, places in tree.places(at):
                row_of[member], place[member, : len(places)] = line, places
            at += tree.length
    return row_of, place


def _inputs(
    model: Any, own: Sequence[np.ndarray], trees: Sequence[Tree], row: np.ndarray, place: np.ndarray
) -> Inputs:
    """Return what the model runs: tokens, who sees whom, and positions."""
    ids = np.zeros((row.max() + 1, place.max() + 1), np.int64)
    depth, tree, branch = (np.full(ids.shape, fill) for fill in (0, -1, -1))
    for number, one in enumerate(trees):
        for member in one.members:
            line, places = row[member], place[member, : len(own[member])]
            ids[line, places], depth[line, places] = own[member], np.arange(len(places))
            tree[line, places], branch[line, places[one.shared :]] = number, member
    seen = torch.from_numpy(visible(tree, branch))[:, None]
    if model.config._attn_implementation == "eager":  # which adds its mask to the scores
        dtype = next(model._module.parameters()).dtype
        seen = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
    tensors = {"input_ids": torch.from_numpy(ids), "position_ids": torch.from_numpy(depth)}
    return {**tensors, "attention_mask": seen}

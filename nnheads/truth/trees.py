"""Rows of marks that begin alike as trees, and trees side by side in rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

MOST = 512  # marks of a tree, unless its rows are long


@dataclass(frozen=True)
class Tree:
    """Rows of which the first `shared` marks are the same.

    members: their numbers. lengths: of each, shared marks included.
    """

    members: tuple[int, ...]
    lengths: tuple[int, ...]
    shared: int

    @property
    def length(self) -> int:
        """How many marks there are, those that are shared once."""
        return self.shared + sum(length - self.shared for length in self.lengths)

    def places(self, start: int) -> Iterator[tuple[int, Int[np.ndarray, " mark"]]]:
        """Yield each member, and where its marks are if the tree begins at `start`."""
        trunk, behind = np.arange(start, start + self.shared), start + self.shared
        for member, length in zip(self.members, self.lengths):
            own = np.arange(behind, behind + length - self.shared)
            behind += len(own)
            yield member, np.concatenate([trunk, own])


def trees(
    marks: Sequence[Int[np.ndarray, "token mark"]], groups: Int[np.ndarray, " row"]
) -> list[Tree]:
    """Return trees of the rows of each group, in the order in which groups first appear.

    Several where one would be longer than MOST: who sees whom grows with its square.
    """
    members: dict[int, list[int]] = {}
    for row, group in enumerate(groups.tolist()):
        members.setdefault(group, []).append(row)
    found = []
    for own in members.values():
        lengths = [len(marks[row]) for row in own]
        shared = _shared([marks[row] for row in own])
        most = max(MOST, 2 * max(lengths))  # what is long and shared is worth it
        for some in _cut([length - shared for length in lengths], most - shared):
            few = tuple(lengths[at] for at in some)
            found.append(Tree(tuple(own[at] for at in some), few, shared))
    return found


def _cut(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Return numbers of lengths in their order, cut where their sum would be more than `most`."""
    found: list[list[int]] = []
    free = 0
    for number, length in enumerate(lengths):
        if not found or length > free:
            found.append([])
            free = most
        found[-1].append(number)
        free -= length
    return found


def _shared(rows: Sequence[np.ndarray]) -> int:
    """Return how many first marks are the same in all rows."""
    shortest = min(map(len, rows))
    same = np.all([(row[:shortest] == rows[0][:shortest]).all(1) for row in rows], axis=0)
    return shortest if same.all() else int(same.argmin())


def side_by_side(lengths: Sequence[int]) -> list[list[int]]:
    """Return numbers of trees in rows, none longer than the longest tree.

    The longest come first, each into the first row with room.
    """
    most = max(lengths)
    rows: list[list[int]] = []
    room: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda one: -lengths[one]):
        at = next((row for row, free in enumerate(room) if free >= lengths[number]), None)
        if at is None:
            at = len(rows)
            rows.append([])
            room.append(most)
        rows[at].append(number)
        room[at] -= lengths[number]
    return rows


def visible(
    tree: Int[np.ndarray, "row position"], branch: Int[np.ndarray, "row position"]
) -> Bool[np.ndarray, "row query key"]:
    """Return which keys each query sees: those before it in its tree that are shared or its own.

    tree, branch: of each position; no tree (-1) is padding, which sees itself so that it is a
    number, no branch (-1) is shared.
    """
    before = np.tri(tree.shape[1], dtype=bool)
    same = tree[:, :, None] == tree[:, None, :]
    own = (branch[:, None, :] == -1) | (branch[:, :, None] == branch[:, None, :])
    return (before & same & own & (tree >= 0)[:, None]) | np.eye(tree.shape[1], dtype=bool)

"""The order of a sweep: every cell that can change anything runs once, from the earliest place that
it must.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnheads.errors import BadInput
from nnheads.patching import cells as which

MASK = np.array([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])


def test_a_grid_names_each_unit_and_place_once():
    cells = which.grid([1, 4], 3, which.each_position(MASK))
    assert cells.count == 2 * 3 * 5 == len(cells.entries)
    assert cells.entries[:, 0].tolist() == list(range(30))
    assert len({tuple(entry[1:]) for entry in cells.entries}) == 30
    assert cells.entries[7].tolist() == [7, 1, 1, 2]  # the place runs fastest, then the unit


def test_places_leave_padding_out():
    assert which.everywhere(MASK).tolist() == [MASK.astype(bool).tolist()]
    places = which.each_position(MASK)
    assert places.shape == (5, 2, 5) and places.sum() == MASK.sum() and not places[0, 1].any()
    assert which.at(np.array([4, 2]), MASK).nonzero()[2].tolist() == [4, 2]
    assert not which.at(np.array([-1, 1]), MASK).any(), "no role, and a role on padding"


def test_groups_hold_several_heads_at_each_place():
    cells = which.groups([[(0, 1), (2, 3)], []], which.each_position(MASK)[3:])
    assert cells.count == 4 and cells.entries.tolist() == [
        [0, 0, 1, 0],
        [0, 2, 3, 0],
        [1, 0, 1, 1],
        [1, 2, 3, 1],
    ]


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ([(3, 0)], "L3H0 does not exist; this model has layers 0 to 2 and heads 0 to 3"),
        ([(0, -1)], "L0H-1 does not exist"),
        ([(1, 1), (1, 1)], "L1H1 is named twice in one group"),
    ],
)
def test_heads_that_are_not_there_are_refused(group, message):
    with pytest.raises(BadInput, match=message):
        which.check_members([[], group], 3, 4)


@st.composite
def cells_of_any_kind(draw):
    cases, width = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    places = np.array(
        draw(st.lists(st.booleans(), min_size=2 * cases * width, max_size=2 * cases * width))
    )
    heads = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=4, unique=True)
    members = draw(st.lists(heads, min_size=1, max_size=6))
    return which.groups(members, places.reshape(2, cases, width))


@given(cells_of_any_kind(), st.integers(0, 5), st.integers(1, 40), st.booleans())
def test_every_cell_that_can_change_anything_runs_once_and_early_enough(
    cells, shared, tokens, narrow
):
    _, cases, width = cells.regions.shape
    shared = min(shared, width - 1)
    order = which.schedule(
        cells, shared=shared, first_asked=width - 1, last_layer=3 if narrow else None, tokens=tokens
    )
    rows = (
        np.concatenate([np.arange(first, last) for _, _, first, last in order.chunks])
        if order.chunks
        else []
    )
    assert sorted(rows) == list(range(len(order.kept) * cases)), (
        "each row of each kept cell in one forward"
    )
    for number in range(cells.count):
        own = cells.entries[cells.entries[:, 0] == number]
        positions = np.flatnonzero(cells.regions[own[:, 3]].any((0, 1)))
        alive = positions[positions >= shared]
        if number not in order.kept:
            ends = cells.regions[own[:, 3]][..., -1].any() if len(own) else False
            assert not len(alive) or (narrow and own[:, 1].min() == 3 and not ends)
            continue
        rank = int(np.flatnonzero(order.kept == number)[0])
        mine = order.entries[order.bounds[rank] : order.bounds[rank + 1]]
        assert sorted(map(tuple, mine[:, 1:])) == sorted(map(tuple, own[:, 1:]))
        for start, layer, first, last in order.chunks:
            if first < (rank + 1) * cases and last > rank * cases:
                assert layer == own[:, 1].min()
                assert start <= alive.min() or (narrow and layer == 3 and start == width - 1)
                assert (last - first) * (width - start) <= max(tokens, width - start)


def test_forwards_are_of_even_size():
    cells = which.grid([0], 7, which.everywhere(np.ones((1, 4))))
    order = which.schedule(cells, shared=0, first_asked=3, last_layer=None, tokens=12)
    assert [last - first for *_, first, last in order.chunks] == [2, 2, 3]

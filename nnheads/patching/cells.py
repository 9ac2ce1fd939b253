"""Which swaps a sweep runs, in what order, and what that costs: before anything runs.

A cell is a set of entries (layer, unit, place): each swaps one unit of a layer, at all positions or
    at those of a
place, in the same run. A single head is a cell of one entry, a group of heads one of several.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nnheads.errors import BadInput


@dataclass(frozen=True)
class Cells:
    """`entries` [entry, 4]: cell, layer, unit, place.

    `places` [place, case, position]: the positions of each place.
    """

    entries: np.ndarray
    places: np.ndarray
    count: int


@dataclass(frozen=True)
class Schedule:
    """Cells in the order in which they run. `kept` are the numbers of the cells that can change
    anything; `chunks` are (first position, first layer, first row, last row) over rows (kept cell,
    case), one forward each."""

    kept: np.ndarray
    entries: np.ndarray
    bounds: np.ndarray
    chunks: list[tuple[int, int, int, int]]


def grid(layers: Sequence[int], units: int, places: np.ndarray) -> Cells:
    """Every unit of every layer at every place, one at a time: cells (layer, unit, place), the last
    fastest.
    """
    layer, unit, place = np.meshgrid(
        np.asarray(layers), np.arange(units), np.arange(len(places)), indexing="ij"
    )
    parts = [part.ravel() for part in (layer, unit, place)]
    return Cells(np.stack([np.arange(parts[0].size), *parts], 1), places, parts[0].size)


def groups(members: Sequence[Iterable[tuple[int, int]]], places: np.ndarray) -> Cells:
    """Sets of (layer, unit), each at every place: cells (group, place)."""
    entries = [
        (number * len(places) + place, layer, unit, place)
        for number, group in enumerate(members)
        for place in range(len(places))
        for layer, unit in group
    ]
    return Cells(np.array(entries, int).reshape(-1, 4), places, len(members) * len(places))


def everywhere(mask: np.ndarray) -> np.ndarray:
    """One place: all positions that are no padding. mask [case, position]."""
    return mask.astype(bool)[None]


def each_position(mask: np.ndarray) -> np.ndarray:
    """One place for each position."""
    return np.eye(mask.shape[1], dtype=bool)[:, None] & mask.astype(bool)[None]


def at(positions: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """One place: each case's own position [case]; -1 for none."""
    return (np.arange(mask.shape[1]) == positions[:, None])[None] & mask.astype(bool)[None]


def check_members(
    members: Iterable[Iterable[tuple[int, int]]], layers: int, units: int, name: str = "head"
) -> None:
    """Refuse heads that the model does not have, and heads named twice in a group."""
    for group in members:
        seen = set()
        for layer, unit in group:
            if not (0 <= layer < layers and 0 <= unit < units):
                raise BadInput(
                    f"L{layer}H{unit} does not exist; this model has layers 0 to {layers - 1} "
                    f"and {name}s 0 to {units - 1}"
                )
            if (layer, unit) in seen:
                raise BadInput(f"L{layer}H{unit} is named twice in one group")
            seen.add((layer, unit))


def schedule(
    cells: Cells, *, shared: int, first_asked: int, last_layer: int | None, tokens: int
) -> Schedule:
    """Order the cells so that those of the same first position and layer run as one batch.

    Args:
        shared: how many first positions hold the same values anyway: swapping there changes
            nothing.
        first_asked: the first position whose logits are read; a forward cannot start behind it.
        last_layer: the last layer, where what is swapped there only shows at the position itself
            and only the last position is asked; None where that does not hold.
        tokens: most rows x positions in one forward; one row at least.
    """
    _, cases, width = cells.places.shape
    first, touched = _reach(cells, shared)
    layer = np.full(cells.count, np.iinfo(int).max)
    np.minimum.at(layer, cells.entries[:, 0], cells.entries[:, 1])
    start = np.minimum(np.maximum(first, shared), first_asked)
    if last_layer is not None:
        ending = np.zeros(cells.count, bool)
        ends = np.asarray(cells.places[:, :, -1].any(1))
        ending[cells.entries[ends[cells.entries[:, 3]], 0]] = True
        final = layer == last_layer
        touched &= ~final | ending
        start = np.where(final, width - 1, start)
    kept = np.flatnonzero(touched)
    kept = kept[np.lexsort((layer[kept], start[kept]))]
    rank = np.full(cells.count, -1)
    rank[kept] = np.arange(kept.size)
    entries = cells.entries.copy()
    entries[:, 0] = rank[entries[:, 0]]
    entries = entries[entries[:, 0] >= 0]
    entries = entries[np.argsort(entries[:, 0], kind="stable")]
    bounds = np.searchsorted(entries[:, 0], np.arange(kept.size + 1))
    return Schedule(kept, entries, bounds, _chunks(start[kept], layer[kept], cases, width, tokens))


def _reach(cells: Cells, shared: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each cell: the first position that it swaps, and whether it swaps any that differs."""
    width = cells.places.shape[2]
    anywhere = np.asarray(cells.places.any(1))
    anywhere[:, :shared] = False
    place_first = np.where(anywhere.any(1), anywhere.argmax(1), width)
    first = np.full(cells.count, width)
    np.minimum.at(first, cells.entries[:, 0], place_first[cells.entries[:, 3]])
    return first, first < width


def _chunks(start: np.ndarray, layer: np.ndarray, cases: int, width: int, tokens: int) -> list:
    """Split runs of equal (start, layer) into forwards of even size."""
    chunks: list[tuple[int, int, int, int]] = []
    if start.size == 0:
        return chunks
    edges = np.flatnonzero((np.diff(start) != 0) | (np.diff(layer) != 0)) + 1
    for low, high in zip([0, *edges], [*edges, start.size]):
        rows = (high - low) * cases
        pieces = -(-rows // max(1, tokens // (width - int(start[low]))))
        cuts = np.linspace(low * cases, high * cases, pieces + 1).astype(int)
        chunks += [
            (int(start[low]), int(layer[low]), int(a), int(b)) for a, b in itertools.pairwise(cuts)
        ]
    return chunks

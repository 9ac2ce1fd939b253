"""Which swaps a sweep runs, in what order, and in which forwards: before anything runs.

    cells = grid(range(12), 12, everywhere(mask))       # each head of each layer by itself

A cell is a set of entries (layer, unit, region): each swaps one unit of a layer at the positions of
a region, all in the same run. A single head is a cell of one entry, a group of heads one of
several.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from nnheads.errors import BadInput
from nnheads.models.names import check_unit
from nnheads.trace.plain import Chunk

MANY = 1 << 31  # rows that no forward has
Mask = Bool[np.ndarray, "case position"] | Int[np.ndarray, "case position"]
Regions = Bool[np.ndarray, "region case position"]


@dataclass(frozen=True)
class CellSet:
    """Cells that are to be swapped.

    entries: [entry, 4]: cell, layer, unit, region. regions: the positions that each one holds.
    """

    entries: Int[np.ndarray, "entry 4"]
    regions: Regions
    count: int


@dataclass(frozen=True)
class Schedule:
    """Cells in the order in which they run.

    kept: the numbers of the cells that can change anything. entries, bounds: those of the kept
    cells, and where each begins. chunks: one forward each, over rows (kept cell, case).
    """

    kept: Int[np.ndarray, " cell"]
    entries: Int[np.ndarray, "entry 4"]
    bounds: Int[np.ndarray, " cell_and_end"]
    chunks: list[Chunk]


def grid(layers: Sequence[int], units: int, regions: Regions) -> CellSet:
    """Return every unit of every layer in every region as a cell, the region fastest."""
    axes = (np.asarray(layers), np.arange(units), np.arange(len(regions)))
    parts = [part.ravel() for part in np.meshgrid(*axes, indexing="ij")]
    count = parts[0].size
    return CellSet(np.stack([np.arange(count), *parts], 1), regions, count)


def groups(members: Sequence[Iterable[tuple[int, int]]], regions: Regions) -> CellSet:
    """Return sets of (layer, unit), each in every region, as cells (group, region)."""
    count = len(regions)
    entries = [
        (number * count + region, layer, unit, region)
        for number, group in enumerate(members)
        for region in range(count)
        for layer, unit in group
    ]
    return CellSet(np.array(entries, int).reshape(-1, 4), regions, len(members) * count)


def everywhere(mask: Mask) -> Regions:
    """Return one region: all positions that are no padding."""
    return mask.astype(bool)[None]


def each_position(mask: Mask) -> Regions:
    """Return one region for each position."""
    return np.eye(mask.shape[1], dtype=bool)[:, None] & mask.astype(bool)[None]


def at(positions: Int[np.ndarray, " case"], mask: Mask) -> Regions:
    """Return one region: each case's own position; -1 for none."""
    return (np.arange(mask.shape[1]) == positions[:, None])[None] & mask.astype(bool)[None]


def check_members(
    members: Iterable[Iterable[tuple[int, int]]], layers: int, units: int, name: str = "head"
) -> None:
    """Refuse heads that the model does not have, and heads named twice in a group."""
    for group in members:
        seen = set()
        for layer, unit in group:
            check_unit(layer, unit, layers, units, name)
            if (layer, unit) in seen:
                raise BadInput(f"L{layer}H{unit} is named twice in one group")
            seen.add((layer, unit))


def schedule(
    cells: CellSet,
    *,
    shared: int,
    first_asked: int,
    last_layer: int | None,
    tokens: int,
    rows: int = MANY,
) -> Schedule:
    """Order the cells so that those of the same first position and layer run as one batch.

    Args:
        shared: how many first positions hold the same values anyway: swapping there changes
            nothing.
        first_asked: the first position whose logits are read; a forward cannot start behind it.
        last_layer: the last layer, where what is swapped there only shows at the position itself
            and only the last position is asked; None where that does not hold.
        tokens: most rows x positions in one forward; one row at least.
        rows: most rows in one forward, each of which has a copy of the cache.
    """
    _, cases, width = cells.regions.shape
    first, layer = first_positions(cells, shared), first_layers(cells)
    touched, start = first < width, np.minimum(np.maximum(first, shared), first_asked)
    if last_layer is not None:
        final = layer == last_layer
        touched &= ~final | at_the_end(cells)
        start = np.where(final, width - 1, start)
    kept = np.flatnonzero(touched)
    kept = kept[np.lexsort((layer[kept], start[kept]))]
    entries, bounds = entries_of_kept(cells, kept)
    chunks = chunks_of(start[kept], layer[kept], (cases, width), tokens, rows)
    return Schedule(kept, entries, bounds, chunks)


def first_positions(cells: CellSet, shared: int) -> Int[np.ndarray, " cell"]:
    """Return the first position of each cell that differs; the width where none does."""
    width = cells.regions.shape[2]
    anywhere = np.asarray(cells.regions.any(1))
    anywhere[:, :shared] = False
    of_region = np.where(anywhere.any(1), anywhere.argmax(1), width)
    first = np.full(cells.count, width)
    np.minimum.at(first, cells.entries[:, 0], of_region[cells.entries[:, 3]])
    return first


def first_layers(cells: CellSet) -> Int[np.ndarray, " cell"]:
    """Return the lowest layer that each cell swaps."""
    layer = np.full(cells.count, np.iinfo(int).max)
    np.minimum.at(layer, cells.entries[:, 0], cells.entries[:, 1])
    return layer


def at_the_end(cells: CellSet) -> Bool[np.ndarray, " cell"]:
    """Return which cells swap something at the last position."""
    ending = np.zeros(cells.count, bool)
    ends = np.asarray(cells.regions[:, :, -1].any(1))
    ending[cells.entries[ends[cells.entries[:, 3]], 0]] = True
    return ending


def entries_of_kept(
    cells: CellSet, kept: Int[np.ndarray, " kept"]
) -> tuple[Int[np.ndarray, "entry 4"], Int[np.ndarray, " kept_and_end"]]:
    """Return the entries of the kept cells, numbered in their order, and where each cell begins."""
    rank = np.full(cells.count, -1)
    rank[kept] = np.arange(kept.size)
    entries = cells.entries.copy()
    entries[:, 0] = rank[entries[:, 0]]
    entries = entries[entries[:, 0] >= 0]
    entries = entries[np.argsort(entries[:, 0], kind="stable")]
    return entries, np.searchsorted(entries[:, 0], np.arange(kept.size + 1))


def chunks_of(
    start: Int[np.ndarray, " cell"],
    layer: Int[np.ndarray, " cell"],
    size: tuple[int, int],
    tokens: int,
    rows: int = MANY,
) -> list[Chunk]:
    """Split runs of equal (start, layer) into forwards of even size. size: cases, positions."""
    chunks: list[Chunk] = []
    if start.size == 0:
        return chunks
    cases, width = size
    edges = np.flatnonzero((np.diff(start) != 0) | (np.diff(layer) != 0)) + 1
    for low, high in zip([0, *edges], [*edges, start.size]):
        first, index = int(start[low]), int(layer[low])
        most = max(1, min(rows, tokens // (width - first)))
        pieces = -(-(high - low) * cases // most)
        cuts = np.linspace(low * cases, high * cases, pieces + 1).astype(int)
        chunks += [(first, index, int(a), int(b)) for a, b in itertools.pairwise(cuts)]
    return chunks

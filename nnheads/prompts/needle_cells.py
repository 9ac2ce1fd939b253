"""Which lengths, depths and needles a set of prompts has, and after which sentence each needle
stands.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from nnheads.errors import BadInput

GOLDEN = (5**0.5 - 1) / 2


class Cell(NamedTuple):
    """What one prompt is asked to be: tokens, depth from 0 (start) to 1 (end), which needle."""

    length: int
    depth: float
    needle: int


def cells(n: int, lengths: list[int], depths: list[float], needles: int) -> list[Cell]:
    """Return the cells of n prompts: all in turn, or, where they are more than n, some of them.

    These are steps of the golden ratio through all, so that a few prompts still meet every length
    and depth alike.

    Raises:
        BadInput: a depth outside 0 to 1.
    """
    for depth in depths:
        if not 0 <= depth <= 1:
            raise BadInput(f"Not a depth: {depth}. It runs from 0 (start) to 1 (end).")
    total = len(lengths) * len(depths) * needles
    stride = 1 if n >= total else _golden_stride(total)
    return [_cell(number * stride % total, lengths, depths) for number in range(n)]


def _golden_stride(total: int) -> int:
    """Return a step near the golden ratio of `total` that meets every number below it."""
    stride = max(1, round(GOLDEN * total))
    while math.gcd(stride, total) > 1:
        stride += 1
    return stride


def _cell(number: int, lengths: list[int], depths: list[float]) -> Cell:
    depth, length = divmod(number, len(lengths))
    needle, depth = divmod(depth, len(depths))
    return Cell(lengths[length], depths[depth], needle)


def least_distance(depths: list[float]) -> float:
    """Return the least distance between two depths; 0 where there is only one."""
    return float(min(np.diff(sorted(set(depths))), default=0.0))


def shared_places(
    ends: Int[np.ndarray, " boundary"],
    stops: Int[np.ndarray, " cell"],
    depths: Float[np.ndarray, " cell"],
    step: float,
) -> list[int]:
    """Return after how many sentences each needle stands, so that few places serve all.

    Args:
        ends: tokens before the first, second, ... sentence and after the last.
        stops: how many sentences a cell has.
        depths: the depth that a cell asks for.
        step: twice the depth by which a needle may be moved from where it was asked for.
    """
    wanted = depths * ends[stops]
    low, high = _bounds(ends, stops, wanted, step / 2 * ends[stops])
    places = np.full(len(stops), -1)
    # the longest first: the shorter then cost nothing
    for cell in np.argsort(-stops, kind="stable"):
        here = np.unique(places[(places >= low[cell]) & (places <= high[cell])])
        if not here.size:
            here = np.arange(low[cell], high[cell] + 1)
            serves = (low <= here[:, None]) & (here[:, None] <= high) & (places < 0)
            here = _saving_most(here, serves, ends, stops)
        places[cell] = here[np.abs(ends[here] - wanted[cell]).argmin()]
    return places.tolist()


def _bounds(
    ends: Int[np.ndarray, " boundary"],
    stops: Int[np.ndarray, " cell"],
    wanted: Float[np.ndarray, " cell"],
    room: Float[np.ndarray, " cell"],
) -> tuple[Int[np.ndarray, " cell"], Int[np.ndarray, " cell"]]:
    """Return the first and last place that each cell allows; always the nearest."""
    near = [np.abs(ends[: stop + 1] - at).argmin() for stop, at in zip(stops, wanted)]
    low = np.searchsorted(ends, wanted - room, side="right")
    high = np.searchsorted(ends, wanted + room) - 1
    return np.minimum(low, near), np.minimum(np.maximum(high, near), stops)


def _saving_most(
    here: Int[np.ndarray, " place"],
    serves: Bool[np.ndarray, "place cell"],
    ends: Int[np.ndarray, " boundary"],
    stops: Int[np.ndarray, " cell"],
) -> Int[np.ndarray, " place"]:
    """Return the places that spare reading the most tokens behind the needle again."""
    saved = (serves * (ends[stops] - ends[here][:, None])).sum(1)
    return here[saved == saved.max()]

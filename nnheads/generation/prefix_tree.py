"""Prompts that begin alike as a tree of segments, so that what they share is there once."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Segment:
    """Tokens without a fork.

    parent: the segment that they continue, -1 for none; start: how many tokens stand before them;
    ends: the rows whose last token is the segment's last.
    """

    parent: int
    start: int
    tokens: tuple[int, ...]
    ends: tuple[int, ...]


def prefix_tree(rows: list[list[int]]) -> list[Segment]:
    """Return the segments of all rows, parents before children and each subtree in one piece.

    Empty rows are in none.
    """
    segments: list[Segment] = []
    ordered = sorted(range(len(rows)), key=rows.__getitem__)
    waiting = [(-1, 0, group) for group in _forks(rows, ordered, 0)]
    while waiting:
        parent, start, members = waiting.pop()
        # the members are sorted: what the first and the last of them share is common to all
        first = rows[members[0]]
        stop = _fork(first, rows[members[-1]], start)
        ends = tuple(row for row in members if len(rows[row]) == stop)
        waiting += [(len(segments), stop, group) for group in _forks(rows, members, stop)]
        segments.append(Segment(parent, start, tuple(first[start:stop]), ends))
    return segments


def _fork(first: list[int], last: list[int], start: int) -> int:
    """Return where two rows part, which agree up to `start`."""
    stop = start
    while stop < len(first) and first[stop] == last[stop]:
        stop += 1
    return stop


def _forks(rows: list[list[int]], members: list[int], at: int) -> list[list[int]]:
    """Return members by their token at this position, last first, without those that have none."""
    groups: dict[int, list[int]] = {}
    for row in members:
        if len(rows[row]) > at:
            groups.setdefault(rows[row][at], []).append(row)
    return list(reversed(groups.values()))

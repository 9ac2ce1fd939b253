"""What pyvene's unit_locations and subspaces mean, as positions, heads and features of edits.

pyvene names a component in the config and its positions and heads when it is run; here both are in
the edit. It counts positions in the padded rows; here they count from each prompt's first token, so
that padding moves none. Two numbers under "base" are two positions here; pyvene takes the second
alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from nnheads.errors import BadInput
from nnheads.interventions.operation import Operation
from nnheads.interventions.operations import Add, Boundless, FromSource, Mask, Rotate, Set, Subtract
from nnheads.interventions.positions import ALL, index
from nnheads.interventions.pyvene_components import Part
from nnheads.interventions.schema import Edit, Intervention

Numbers = tuple[int, ...] | None
Location = tuple[Any, Any]  # of source and base: rows of positions, or rows of heads and of both


@dataclass(frozen=True)
class Folder:
    """A folder of pyvene.

    Args:
        intervention: its edits at every position.
        parts: its edits, one by one.
        ignored: what it says that is not taken over.
    """

    intervention: Intervention
    parts: tuple[Part, ...]
    ignored: tuple[str, ...]

    def at(self, unit_locations: dict | None = None, subspaces: Any = None) -> Intervention:
        """Return the edits where a run's `unit_locations` and `subspaces` put them.

        Args:
            unit_locations, subspaces: in pyvene's own notation.

        Raises:
            BadInput: locations that differ from row to row, or heads from source to base; name a
                role instead.
        """
        where = locations(unit_locations, self.parts)
        spaces = _subspaces(subspaces, len(self.parts))
        tensors = dict(self.intervention.tensors)
        edits = []
        for part, location, space in zip(self.parts, where, spaces):
            edit = _located(part, location, tensors)
            edits.append(edit if space is None else _in_subspace(part, edit, space))
        return Intervention(*edits, tensors=tensors, mode=self.intervention.mode)


def locations(unit_locations: dict | None, parts: Sequence[Part]) -> list[Location]:
    """Return source and base locations of each part.

    Raises:
        BadInput: no dict of locations, or one without those of a group.
    """
    if unit_locations is None:
        return [(None, None)] * len(parts)
    if not isinstance(unit_locations, dict) or not unit_locations:
        raise BadInput(
            f"unit_locations are {unit_locations!r}; expected a dict such as"
            " {'sources->base': ...} or {'base': ...}"
        )
    for key in ("base", "sources->base"):
        if key in unit_locations:
            return _both(unit_locations[key], key == "base", len(parts))
    return _by_group(unit_locations, parts)


def _by_group(unit_locations: dict, parts: Sequence[Part]) -> list[Location]:
    """Return the locations of parts whose sources are named one by one."""
    sources = [getattr(part.edit.do, "source", 0) for part in parts]
    groups = sorted(set(sources))
    where: list[Location] = [(None, None)] * len(parts)
    for group in groups:
        key = f"source_{group}->" + ("base" if group == groups[-1] else f"source_{group + 1}")
        if key not in unit_locations:
            raise BadInput(f"unit_locations have {', '.join(unit_locations)}; expected {key}")
        members = [number for number, source in enumerate(sources) if source == group]
        for number, pair in zip(members, _both(unit_locations[key], False, len(members))):
            where[number] = pair
    return where


def _depth(value: Any) -> int:
    """Return how deep lists are nested."""
    if not isinstance(value, (list, tuple)):
        return 0
    return 1 + max((_depth(item) for item in value), default=0)


def _both(value: Any, base_only: bool, count: int) -> list[Location]:
    """Write pyvene's short forms out: one position for all, a pair, a list of positions."""
    depth = _depth(value)
    if base_only:
        source, base = None, value
    elif depth > 1 or (depth == 1 and len(value) == 2):
        source, base = value
    else:
        source, base = value, value
    return list(zip(_listed(source, count), _listed(base, count)))


def _listed(value: Any, count: int) -> list:
    """Return the rows of each part."""
    if value is None:
        return [None] * count
    if _depth(value) <= 1:
        return [[value if isinstance(value, (list, tuple)) else [value]]] * count
    if len(value) != count:
        raise BadInput(f"unit_locations name {len(value)} parts; this folder has {count}")
    return list(value)


def _agreed(rows: Any, name: str) -> Numbers:
    """Return what all rows agree on."""
    if rows is None:
        return None
    if any(list(row) != list(rows[0]) for row in rows):
        raise BadInput(
            f"locations of {name} differ from row to row; name a role of the prompts instead:"
            " at=role(...)"
        )
    return tuple(int(value) for value in rows[0])


def _heads_and_positions(rows: Any, part: Part) -> tuple[Numbers, Numbers]:
    """Return the heads and the positions that a location names."""
    if rows is None:
        return None, None
    if part.unit == "pos":
        return None, _agreed(rows, part.name)
    if part.unit == "h":
        return _agreed(rows, part.name), None
    return _agreed(rows[0], part.name), _agreed(rows[1], part.name)


def _located(part: Part, location: Location, tensors: dict[str, torch.Tensor]) -> Edit:
    """Return an edit at one run's heads and positions.

    Args:
        tensors: filled with those that several heads need.
    """
    source, base = location
    if base is None:
        return part.edit
    heads, positions = _heads_and_positions(base, part)
    source_heads, source_positions = _heads_and_positions(source, part)
    if source is not None and source_heads != heads:
        raise BadInput(
            f"{part.name} takes other heads of the source than of the base; an edit has one set of"
            " heads"
        )
    do = part.edit.do
    if source_positions not in (None, positions) and isinstance(do, FromSource):
        do = replace(do, source_at=index(*source_positions or ()))
    do = _for_heads(do, heads, tensors)
    at = ALL if positions is None else index(*positions)
    return _of_heads(replace(part.edit, do=do, at=at), part.head_width, heads)


def _for_heads(do: Operation, heads: Numbers, tensors: dict[str, torch.Tensor]) -> Operation:
    """Return an operation whose value serves each of several heads."""
    if heads is None or len(heads) < 2 or not isinstance(do, (Set, Add, Subtract)):
        return do
    name = f"{do.value} for {len(heads)} heads"
    tensors[name] = tensors[str(do.value)].repeat(len(heads))
    return replace(do, value=name)


def _of_heads(edit: Edit, width: int | None, heads: Numbers) -> Edit:
    """Return an edit of some heads alone.

    Args:
        width: features of a head, where heads are neurons of a module by path.
    """
    if heads is None:
        return edit
    if width is None:
        return replace(edit, units=heads)
    first = (edit.neurons or (0,))[0]
    neurons = [first + head * width + feature for head in heads for feature in range(width)]
    return replace(edit, neurons=tuple(neurons))


def _subspaces(subspaces: Any, count: int) -> list[Numbers]:
    """Return the subspaces of each part: one number, a list for all, or rows for each."""
    if subspaces is None:
        return [None] * count
    if _depth(subspaces) <= 1:
        one = list(subspaces) if isinstance(subspaces, (list, tuple)) else [subspaces]
        rows = [[one]] * count
    else:
        rows = list(subspaces)
    if len(rows) != count:
        raise BadInput(f"subspaces name {len(rows)} parts; this folder has {count}")
    return [_agreed(each, "subspaces") for each in rows]


def _in_subspace(part: Part, edit: Edit, space: tuple[int, ...]) -> Edit:
    """Return an edit of some of its subspaces: directions where it rotates, else features."""
    features = _features(part, space)
    if isinstance(edit.do, Rotate):
        return replace(edit, do=replace(edit.do, columns=features))
    if isinstance(edit.do, (Mask, Boundless)) or edit.neurons is not None:
        raise BadInput(f"{part.name} has no subspaces to choose from; leave subspaces out for it")
    return replace(edit, neurons=features)


def _features(part: Part, space: tuple[int, ...]) -> tuple[int, ...]:
    """Return the features of some subspaces."""
    if part.partition is None:
        return space
    wrong = [number for number in space if not 0 <= number < len(part.partition)]
    if wrong:
        raise BadInput(
            f"subspace {wrong[0]} of {part.name} does not exist; it has {len(part.partition)}"
        )
    return tuple(feature for number in space for feature in part.partition[number])

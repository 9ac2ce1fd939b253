"""Where pyvene's components are, and what its unit_locations and subspaces mean.

pyvene names a component in the config and its positions and heads when it is run; here both are in
the edit. It counts positions in the padded rows; here they count from each prompt's first token, so
that padding moves none. Two numbers under "base" are two positions here; pyvene takes the second
alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from nnheads.errors import BadInput
from nnheads.interventions import schema
from nnheads.interventions.schema import Edit, Intervention
from nnheads.models.families import family
from nnheads.models.geometry import geometry

SITES = {
    "block_input": "resid_pre",
    "block_output": "resid_post",
    "mlp_input": "mlp_in",
    "mlp_output": "mlp_out",
    "attention_input": "attn_in",
    "attention_output": "attn_out",
    "attention_value_output": "z",
    "head_attention_value_output": "z",
    "value_output": "v",
    "head_value_output": "v",
}
HEADS = ("head_attention_value_output", "head_query_output", "head_key_output", "head_value_output")
ACTIVATIONS = ("act_fn", "act", "activation_fn", "gelu_impl")


@dataclass(frozen=True)
class Part:
    """One of pyvene's interventions. head_width: features of a head, where heads are neurons of a
    module by path.
    note: what is not taken over."""

    name: str
    edit: Edit
    unit: str
    head_width: int | None
    partition: tuple[tuple[int, ...], ...] | None
    note: str = ""

    def with_edit(self, edit: Edit) -> Part:
        return replace(self, edit=edit)


@dataclass(frozen=True)
class Folder:
    """A folder of pyvene.

    intervention: its edits at every position. ignored: what it says that is not taken over.
    """

    intervention: Intervention
    parts: tuple[Part, ...]
    ignored: tuple[str, ...]

    def at(self, unit_locations: dict | None = None, subspaces=None) -> Intervention:
        """The edits where a run's `unit_locations` and `subspaces` put them, in pyvene's own
        notation.

        Raises:
            BadInput: locations that differ from row to row, or heads from source to base; name a
                role instead.
        """
        places = locations(unit_locations, self.parts, self.intervention)
        spaces = _subspaces(subspaces, len(self.parts))
        tensors = dict(self.intervention.tensors)
        edits = []
        for part, (source, base), space in zip(self.parts, places, spaces):
            edit = _placed(part, source, base, tensors)
            edits.append(edit if space is None else _in_subspace(part, edit, space))
        return Intervention(*edits, tensors=tensors, mode=self.intervention.mode)


def everywhere(model, part: dict, do: schema.Operation, name: str, dimension: int | None) -> Part:
    """A representation of the config at every position and head."""
    component, layer, sizes, row = part["component"], part["layer"], geometry(model), family(model)
    if "." not in component and layer >= sizes.layers:
        raise BadInput(
            f"{name}: layer {layer} does not exist; this model has layers 0 to {sizes.layers - 1}"
        )
    head_width, neurons = None, None
    if component in SITES:
        edit = Edit(SITES[component], do, layer=layer)
        heads = {"z": sizes.heads, "v": sizes.kv_heads}.get(edit.site, 0)
        own = part["max_number_of_units"] if component in HEADS else heads
        width = own * sizes.head_dim if heads else sizes.d_model
    else:
        path, end, neurons, head_width = _module(model, component, layer, row, sizes)
        edit, heads, width = Edit(end, do, path=path, neurons=neurons), 0, None
    partial = width is not None and dimension is not None and dimension < width
    # pyvene takes hidden / heads for a head's width, which cuts the heads of many families
    note = (
        f"intervention_dimensions {dimension}; whole heads are taken, {width} features"
        if partial and heads
        else ""
    )
    if (
        partial
        and not heads
        and type(do) in (schema.Zero, schema.Interchange, schema.AddSource, schema.Collect)
    ):
        edit = replace(edit, neurons=tuple(range(dimension or 0)))
    return Part(
        name, edit, part["unit"], head_width, _partition(part["subspace_partition"], name), note
    )


def _module(
    model, component: str, layer: int, row, sizes
) -> tuple[str, str, tuple[int, ...] | None, int | None]:
    """The path of a component, its end, its neurons (None: all), and a head's width."""
    if "." in component:
        path, _, end = component.replace("[", ".").replace("]", "").rpartition(".")
        return path, end, None, None
    block = f"{row.layers}.{layer}"
    names = {name for name, _ in model._module.named_modules()}
    if component == "mlp_activation":
        parent = (row.neurons or "").rpartition(".")[0]
        found = [f"{block}.{parent}.{name}".replace("..", ".") for name in ACTIVATIONS]
        known = [path for path in found if path in names]
        if not known:
            raise BadInput(
                "component mlp_activation: this family's activation is no module; use site"
                " mlp_hidden"
            )
        return known[0], "output", None, None
    attention = f"{block}.{row.projection.rpartition('.')[0]}"
    own = "q" if "query" in component else "k"
    heads = sizes.heads if own == "q" else sizes.kv_heads
    if f"{attention}.{own}_proj" in names:
        return f"{attention}.{own}_proj", "output", None, sizes.head_dim
    if f"{attention}.c_attn" in names and sizes.kv_heads == sizes.heads:
        first = sizes.d_model if own == "k" else 0
        return (
            f"{attention}.c_attn",
            "output",
            tuple(range(first, first + heads * sizes.head_dim)),
            sizes.head_dim,
        )
    raise BadInput(
        f"component {component}: this family has no projection of its own for it; use site {own}"
    )


def _partition(given, name: str) -> tuple[tuple[int, ...], ...] | None:
    """Features of each subspace: pairs are ranges."""
    if given is None:
        return None
    try:
        return tuple(tuple(range(*own)) if len(own) == 2 else tuple(own) for own in given)
    except TypeError:
        raise BadInput(
            f"{name}: subspace_partition is {given!r}; expected lists of whole numbers"
        ) from None


def _depth(value) -> int:
    return (
        1 + max((_depth(item) for item in value), default=0)
        if isinstance(value, (list, tuple))
        else 0
    )


def locations(
    given: dict | None, parts: Sequence[Part], intervention: Intervention
) -> list[tuple[Any, Any]]:
    """(source, base) locations of each part: rows of positions, or (rows of heads, rows of
    positions).
    """
    count = len(parts)
    if given is None:
        return [(None, None)] * count
    if not isinstance(given, dict) or not given:
        raise BadInput(
            f"unit_locations are {given!r}; expected a dict such as {{'sources->base': ...}} or"
            " {'base': ...}"
        )
    if "base" in given or "sources->base" in given:
        key = "base" if "base" in given else "sources->base"
        source, base = _both(given[key], key == "base", count)
        return list(zip(source, base))
    groups = sorted({getattr(part.edit.do, "source", 0) for part in parts})
    found: list[tuple[Any, Any]] = [(None, None)] * count
    for group in groups:
        key = f"source_{group}->" + ("base" if group == groups[-1] else f"source_{group + 1}")
        if key not in given:
            raise BadInput(f"unit_locations have {', '.join(given)}; expected {key}")
        own = [
            number
            for number, part in enumerate(parts)
            if getattr(part.edit.do, "source", 0) == group
        ]
        for number, pair in zip(own, zip(*_both(given[key], False, len(own)))):
            found[number] = pair
    return found


def _both(value, base_only: bool, count: int) -> tuple[list, list]:
    """pyvene's short forms written out: one position for all, a pair, a list of positions."""
    if _depth(value) == 1 and len(value) == 2 and not base_only:
        source, base = value
    elif _depth(value) <= 1:
        source, base = value, value
    else:
        source, base = (None, value) if base_only else value
    source = None if base_only else source
    return _listed(source, count), _listed(base, count)


def _listed(value, count: int) -> list:
    if value is None:
        return [None] * count
    if _depth(value) <= 1:
        return [[value if isinstance(value, (list, tuple)) else [value]]] * count
    if len(value) != count:
        raise BadInput(f"unit_locations name {len(value)} parts; this folder has {count}")
    return list(value)


def _one(rows, name: str) -> tuple[int, ...] | None:
    """What all rows agree on."""
    if rows is None:
        return None
    if any(list(row) != list(rows[0]) for row in rows):
        raise BadInput(
            f"locations of {name} differ from row to row; name a role of the prompts instead:"
            " at=role(...)"
        )
    return tuple(int(value) for value in rows[0])


def _placed(part: Part, source, base, tensors: dict) -> Edit:
    """An edit at one run's heads and positions."""
    if base is None:
        return part.edit
    if part.unit == "pos":
        places, given, heads = _one(base, part.name), _one(source, part.name), None
    elif part.unit == "h":
        places, given, heads = None, None, _one(base, part.name)
        same = source is None or _one(source, part.name) == heads
    else:
        heads, places = _one(base[0], part.name), _one(base[1], part.name)
        given = None if source is None else _one(source[1], part.name)
        same = source is None or _one(source[0], part.name) == heads
    if heads is not None and not same:
        raise BadInput(
            f"{part.name} takes other heads of the source than of the base; an edit has one set of"
            " heads"
        )
    edit, do = part.edit, part.edit.do
    if isinstance(do, schema.FromSource) and given is not None and given != places:
        do = replace(do, source_at=schema.index(*given))
    if (
        heads is not None
        and isinstance(do, (schema.Set, schema.Add, schema.Subtract))
        and len(heads) > 1
    ):
        name = f"{do.value} for {len(heads)} heads"
        tensors[name] = tensors[str(do.value)].repeat(len(heads))
        do = replace(do, value=name)
    at = schema.ALL if places is None else schema.index(*places)
    if heads is None:
        return replace(edit, do=do, at=at)
    if part.head_width is None:
        return replace(edit, do=do, at=at, units=heads)
    first, width = (edit.neurons or (0,))[0], part.head_width
    own = tuple(first + head * width + feature for head in heads for feature in range(width))
    return replace(edit, do=do, at=at, neurons=own)


def _subspaces(given, count: int) -> list:
    """Subspaces of each part: one number, a list for all, or rows for each."""
    if given is None:
        return [None] * count
    if _depth(given) <= 1:
        own = [[list(given) if isinstance(given, (list, tuple)) else [given]]] * count
    else:
        own = list(given)
    if len(own) != count:
        raise BadInput(f"subspaces name {len(own)} parts; this folder has {count}")
    return [_one(rows, "subspaces") for rows in own]


def _in_subspace(part: Part, edit: Edit, space: tuple[int, ...]) -> Edit:
    """An edit of some of its subspaces alone: directions where it rotates, features where it does
    not.
    """
    wrong = [
        one for one in space if part.partition is not None and not 0 <= one < len(part.partition)
    ]
    if wrong:
        raise BadInput(
            f"subspace {wrong[0]} of {part.name} does not exist; it has {len(part.partition or ())}"
        )
    own = (
        space
        if part.partition is None
        else tuple(one for number in space for one in part.partition[number])
    )
    if isinstance(edit.do, schema.Rotate):
        return replace(edit, do=replace(edit.do, columns=own))
    if isinstance(edit.do, (schema.Mask, schema.Boundless)) or edit.neurons is not None:
        raise BadInput(f"{part.name} has no subspaces to choose from; leave subspaces out for it")
    return replace(edit, neurons=own)

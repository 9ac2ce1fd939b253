"""Folders of pyvene (config.json and intkey_*.bin) as interventions.

    folder = read_pyvene("owner/name", model)
    folder.intervention, folder.at({"sources->base": 3}), folder.ignored

The files are read as data: weights alone are unpickled, and the class names in config.json are
looked up in a table and never imported. What cannot be honoured is named, all of it at once. A
pyvene config says nothing of positions and heads; they belong to a run there, and are put in by
`Folder.at`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nnheads.errors import BadInput
from nnheads.interventions.files import fetched
from nnheads.interventions.operation import Operation
from nnheads.interventions.operations import FromSource
from nnheads.interventions.pyvene_components import Part, everywhere
from nnheads.interventions.pyvene_config import (
    check_parts,
    fields_of,
    ignored_by,
    kinds_of,
    names_of,
    read_config,
)
from nnheads.interventions.pyvene_locations import Folder
from nnheads.interventions.pyvene_weights import LEARNED, WITH_SOURCE, Stored, weights
from nnheads.interventions.schema import Edit, Intervention


def read_pyvene(
    source: str | Path, model: Any, *, revision: str | None = None, shared: bool = True
) -> Folder:
    """Read a folder, or a Hub id, that pyvene's `save` wrote.

    Args:
        model: from `nnheads.load`; the config names components that are elsewhere in every family.
        revision: on the Hub.
        shared: one source run serves all, as in pyvene when it is given one; False: each group has
            its own.

    Returns:
        The edits, everywhere (`folder.intervention`), or where a run's `unit_locations` say
        (`folder.at(...)`).

    Raises:
        BadInput: one line: files that are missing or hold more than weights, and every field that
            cannot be honoured.
    """
    folder = fetched(str(source), revision, ["config.json", "intkey_*.bin"])
    config = read_config(folder / "config.json")
    fields = [fields_of(folder, entry) for entry in config["representations"]]
    names, kinds = names_of(fields, config.get("sorted_keys")), kinds_of(config)
    check_parts(folder, fields, names, kinds)
    stored = [
        _stored(folder, config, part, name, number)
        for number, (part, name) in enumerate(zip(fields, names))
    ]
    parts = [
        everywhere(model, part, _with_source(one.operation(kind), source, one.name), one)
        for part, one, kind, source in zip(fields, stored, kinds, _sources(fields, shared))
    ]
    parts = _in_order(parts, config.get("sorted_keys") or names, names)
    mode = config.get("mode") or "parallel"
    intervention = _numbered([part.edit for part in parts], _tensors(stored), mode)
    edited = [replace(part, edit=edit) for part, edit in zip(parts, intervention.edits)]
    notes = [f"{part.name}: {part.note}" for part in parts if part.note]
    return Folder(intervention, tuple(edited), (*ignored_by(config, fields, names), *notes))


def _stored(
    folder: Path, config: dict[str, Any], fields: dict[str, Any], name: str, number: int
) -> Stored:
    """Return what the folder keeps of one part."""
    count = len(config["representations"])
    dimensions = config.get("intervention_dimensions") or [None] * count
    constant = config.get("intervention_constant_sources") or [False] * count
    kind = kinds_of(config)[number]
    own_source = constant[number] or fields["hidden_source_representation"]
    has_file = kind in LEARNED or (own_source and kind in WITH_SOURCE)
    link = fields["intervention_link_key"]
    prefix = name if link is None else f"link {link}"
    kept = weights(folder / f"intkey_{name}.bin") if has_file else {}
    return Stored(name, prefix, kept, dimensions[number])


def _tensors(stored: list[Stored]) -> dict[str, torch.Tensor]:
    """Return the tensors of all parts; the first of linked parts gives the weights."""
    tensors: dict[str, torch.Tensor] = {}
    for one in stored:
        tensors = {**one.tensors, **tensors}
    return tensors


def _sources(fields: list[dict[str, Any]], shared: bool) -> list[int | None]:
    """Return the number of each part's source; None for a part that is in no group."""
    if shared:
        return [0] * len(fields)
    groups = sorted({part["group_key"] for part in fields} - {None})
    if not groups:
        return list(range(len(fields)))
    return [None if (key := part["group_key"]) is None else groups.index(key) for part in fields]


def _with_source(do: Operation, source: int | None, name: str) -> Operation:
    if not isinstance(do, FromSource):
        return do
    if source is None:
        raise BadInput(f"{name} has no group_key, and others have; give each a group_key")
    return replace(do, source=source)


def _in_order(parts: list[Part], order: list[str], names: list[str]) -> list[Part]:
    """Return the parts in the order of pyvene's keys."""

    def rank(part: Part) -> int:
        return order.index(part.name) if part.name in order else names.index(part.name)

    return sorted(parts, key=rank)


def _numbered(edits: list[Edit], tensors: dict[str, torch.Tensor], mode: str) -> Intervention:
    """Return the edits with sources counted from 0: groups without a source leave numbers out."""
    numbers = sorted({edit.do.source for edit in edits if isinstance(edit.do, FromSource)})
    renamed = []
    for edit in edits:
        if isinstance(edit.do, FromSource):
            edit = replace(edit, do=replace(edit.do, source=numbers.index(edit.do.source)))
        renamed.append(edit)
    return Intervention(*renamed, tensors=tensors, mode=mode)

"""Folders of pyvene (config.json and intkey_*.bin) as interventions.

The files are read as data: weights alone are unpickled, and the class names in config.json are
    looked up in a table
and never imported. What cannot be honoured is named, all of it at once. A pyvene config says
nothing of positions and heads; they belong to a run there, and are put in by `Folder.at`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from nnheads.errors import BadInput
from nnheads.interventions.files import fetched, read_json
from nnheads.interventions.pyvene_components import HEADS, SITES, Folder, Part, everywhere
from nnheads.interventions.pyvene_weights import LEARNED, WITH_SOURCE, operation, weights
from nnheads.interventions.schema import Edit, FromSource, Intervention

FIELDS = (
    "layer",
    "component",
    "unit",
    "max_number_of_units",
    "low_rank_dimension",
    "intervention_type",
    "intervention",
    "subspace_partition",
    "group_key",
    "intervention_link_key",
    "moe_key",
    "source_representation",
    "hidden_source_representation",
    "latent_dim",
)
DEFAULTS = {"layer": 0, "component": "block_output", "unit": "pos", "max_number_of_units": 1}
NOT_SAVED = ("NoiseIntervention", "PCARotatedSpaceIntervention", "LambdaIntervention")
WHOLE = (*SITES, *HEADS, "mlp_activation", "query_output", "key_output")


def read_pyvene(
    source: str | Path, model, *, revision: str | None = None, shared: bool = True
) -> Folder:
    """Read a folder, or a Hub id, that pyvene's `save` wrote.

    Args:
        model: from `nnheads.load`; the config names components that are elsewhere in every family.
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
    config = _config(folder / "config.json")
    parts = [_fields(folder, entry) for entry in config["representations"]]
    types = [str(name).rpartition(".")[2].rstrip("'>") for name in config["intervention_types"]]
    names = _names(parts, config.get("sorted_keys"))
    refused = [
        f"{name}: {why}"
        for name, part, kind in zip(names, parts, types)
        for why in _refused(part, kind)
    ]
    if refused:
        raise BadInput(f"{folder}: this cannot be honoured: {'; '.join(refused)}")
    dimensions = config.get("intervention_dimensions") or [None] * len(parts)
    constant = config.get("intervention_constant_sources") or [False] * len(parts)
    groups = sorted({part["group_key"] for part in parts} - {None})
    tensors: dict[str, torch.Tensor] = {}
    found: list[Part] = []
    for number, (name, part, kind) in enumerate(zip(names, parts, types)):
        given = constant[number] or part["hidden_source_representation"]
        stored = kind in LEARNED or (given and kind in WITH_SOURCE)
        link = part["intervention_link_key"]
        prefix = name if link is None else f"link {link}"
        kept = weights(folder / f"intkey_{name}.bin") if stored else {}
        do, own = operation(kind, kept, prefix, name, dimensions[number])
        tensors = {**own, **tensors}  # the first of linked parts gives the weights
        if isinstance(do, FromSource):
            group = groups.index(part["group_key"]) if groups else number
            do = type(do)(**{**vars(do), "source": 0 if shared else group})
        found.append(everywhere(model, part, do, name, dimensions[number]))
    order = config.get("sorted_keys") or names
    found.sort(
        key=lambda part: order.index(part.name) if part.name in order else names.index(part.name)
    )
    intervention = _whole([part.edit for part in found], tensors, config.get("mode") or "parallel")
    placed = tuple(part.with_edit(edit) for part, edit in zip(found, intervention.edits))
    notes = [f"{part.name}: {part.note}" for part in found if part.note]
    return Folder(intervention, placed, (*_ignored(config, parts, names), *notes))


def _whole(edits: list[Edit], tensors: dict, mode: str) -> Intervention:
    """The edits with their sources counted from 0: groups without a source leave numbers out."""
    numbers = sorted({edit.do.source for edit in edits if isinstance(edit.do, FromSource)})
    renamed = []
    for edit in edits:
        if isinstance(edit.do, FromSource):
            do = type(edit.do)(**{**vars(edit.do), "source": numbers.index(edit.do.source)})
            edit = Edit(**{**vars(edit), "do": do})
        renamed.append(edit)
    return Intervention(*renamed, tensors=tensors, mode=mode)


def _config(path: Path) -> dict:
    config = read_json(path)
    config = config if isinstance(config, dict) else {}
    parts, types = config.get("representations"), config.get("intervention_types")
    if not isinstance(parts, list) or not isinstance(types, list) or len(parts) != len(types):
        raise BadInput(
            f"{path} is no config of pyvene: it has no representations with as many"
            " intervention_types"
        )
    for name in ("intervention_dimensions", "intervention_constant_sources"):
        own = config.get(name)
        if own is not None and (not isinstance(own, list) or len(own) != len(parts)):
            raise BadInput(f"{path}: {name} is {own!r}; expected a list of {len(parts)}")
    if (config.get("mode") or "parallel") not in ("parallel", "serial"):
        raise BadInput(f"{path}: mode {config['mode']!r} is not known; expected parallel or serial")
    return config


def _fields(folder: Path, entry) -> dict[str, Any]:
    """The fields of one representation, by their names: pyvene writes them as a list."""
    # twelve fields are those of versions before `intervention` and `latent_dim`
    short = isinstance(entry, list) and len(entry) == 12
    fields = [name for name in FIELDS if not (short and name in ("intervention", "latent_dim"))]
    given = (
        dict(zip(fields, entry)) if isinstance(entry, list) and len(entry) <= len(fields) else entry
    )
    if not isinstance(given, dict) or set(given) - set(FIELDS):
        raise BadInput(
            f"{folder}/config.json: representation {entry!r} is not known; expected"
            f" {', '.join(FIELDS)}"
        )
    part = {**dict.fromkeys(FIELDS), **DEFAULTS, **given}
    kinds = {"layer": int, "component": str, "unit": str, "max_number_of_units": int}
    for name, kind in kinds.items():
        if not isinstance(part[name], kind):
            raise BadInput(
                f"{folder}/config.json: {name} is {part[name]!r}; expected {kind.__name__}"
            )
    return part


def _keys(parts: list[dict]) -> list[str]:
    """The names that pyvene gives its parts, and their files."""
    names: list[str] = []
    seen: dict[str, int] = {}
    for part in parts:
        where = part["component"].replace(".", "_")
        start = (
            f"comp_{where}" if "." in part["component"] else f"layer_{part['layer']}_comp_{where}"
        )
        key = f"{start}_unit_{part['unit'].replace('.', '_')}_nunit_{part['max_number_of_units']}"
        seen[key] = seen.get(key, -1) + 1
        names.append(f"{key}#{seen[key]}")
    return names


def _names(parts: list[dict], listed) -> list[str]:
    """The names of the parts: as this version of pyvene makes them, or as an older one listed them."""
    names = _keys(parts)
    if (
        isinstance(listed, list)
        and len(listed) == len(names)
        and sorted(map(str, listed)) != sorted(names)
    ):
        names = [str(name) for name in listed]
    wrong = [name for name in names if not re.fullmatch(r"[\w.\[\]#-]+", name)]
    if wrong:
        raise BadInput(f"{wrong[0]!r} is no name of an intervention of pyvene")
    return names


def _refused(part: dict, kind: str) -> list[str]:
    """What of a representation has no counterpart."""
    found = []
    if kind not in (*LEARNED, *WITH_SOURCE, "ZeroIntervention", "CollectIntervention"):
        found.append(
            f"intervention_type {kind}"
            + (" (its numbers are not in the folder)" if kind in NOT_SAVED else "")
        )
    if part["unit"] not in ("pos", "h", "h.pos"):
        found.append(f"unit {part['unit']}")
    if part["moe_key"] is not None:
        found.append(f"moe_key {part['moe_key']}")
    if part["unit"] == "pos" and part["max_number_of_units"] != 1 and kind in LEARNED:
        found.append(
            f"max_number_of_units {part['max_number_of_units']} of {kind} (features across"
            " positions)"
        )
    component = part["component"]
    if (part["unit"] != "pos") != (component in HEADS):
        found.append(f"unit {part['unit']} of component {component}")
    if component not in WHOLE and not re.fullmatch(r"[\w.\[\]]+\.(input|output)", component):
        found.append(f"component {component}")
    return found


def _ignored(config: dict, parts: list[dict], names: list[str]) -> list[str]:
    """What changes no weights and is not taken over."""
    found = [f"{name} {config[name]!r}" for name in ("model_type",) if config.get(name)]
    for part, name in zip(parts, names):
        if part["intervention_link_key"] is not None and len(parts) > 1:
            found.append(
                f"{name}: linked parts share weights; pyvene also hands the first one's result to"
                " the next"
            )
    return found

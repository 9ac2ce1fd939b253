"""config.json of a folder of pyvene, read as data: its parts, their names, what is refused.

Class names are looked up in a table and never imported.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from nnheads.errors import BadInput
from nnheads.interventions.files import read_json
from nnheads.interventions.pyvene_components import COMPONENTS, HEADS
from nnheads.interventions.pyvene_weights import LEARNED, WITH_SOURCE

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
LATER = ("intervention", "latent_dim")  # fields that older versions do not write
DEFAULTS = {"layer": 0, "component": "block_output", "unit": "pos", "max_number_of_units": 1}
TYPES = {"layer": int, "component": str, "unit": str, "max_number_of_units": int}
NOT_SAVED = ("NoiseIntervention", "PCARotatedSpaceIntervention", "LambdaIntervention")
KNOWN = (*LEARNED, *WITH_SOURCE, "ZeroIntervention", "CollectIntervention")
WHOLE = (*COMPONENTS, *HEADS, "mlp_activation", "query_output", "key_output")


def read_config(path: Path) -> dict[str, Any]:
    """Return a config, checked for its frame.

    Raises:
        BadInput: no config of pyvene.
    """
    config = read_json(path)
    config = config if isinstance(config, dict) else {}
    parts, types = config.get("representations"), config.get("intervention_types")
    if not isinstance(parts, list) or not isinstance(types, list) or len(parts) != len(types):
        raise BadInput(
            f"{path} is no config of pyvene: it has no representations with as many"
            " intervention_types"
        )
    for name in ("intervention_dimensions", "intervention_constant_sources"):
        _check_list(path, name, config.get(name), len(parts))
    if (config.get("mode") or "parallel") not in ("parallel", "serial"):
        raise BadInput(f"{path}: mode {config['mode']!r} is not known; expected parallel or serial")
    return config


def _check_list(path: Path, name: str, values: Any, count: int) -> None:
    if values is not None and (not isinstance(values, list) or len(values) != count):
        raise BadInput(f"{path}: {name} is {values!r}; expected a list of {count}")


def kinds_of(config: dict[str, Any]) -> list[str]:
    """Return the names of the parts' classes."""
    return [str(name).rpartition(".")[2].rstrip("'>") for name in config["intervention_types"]]


def fields_of(folder: Path, entry: Any) -> dict[str, Any]:
    """Return the fields of one representation, by their names: pyvene writes them as a list.

    Raises:
        BadInput: an entry with other fields, or with values of another type.
    """
    values = _named(entry) if isinstance(entry, list) else entry
    if not isinstance(values, dict) or set(values) - set(FIELDS):
        raise BadInput(
            f"{folder}/config.json: representation {entry!r} is not known; expected"
            f" {', '.join(FIELDS)}"
        )
    part = {**dict.fromkeys(FIELDS), **DEFAULTS, **values}
    for name, kind in TYPES.items():
        if not isinstance(part[name], kind):
            raise BadInput(
                f"{folder}/config.json: {name} is {part[name]!r}; expected {kind.__name__}"
            )
    return part


def _named(entry: list) -> dict[str, Any] | None:
    """Return a list's values by the names of its fields; None for too many."""
    older = len(entry) == len(FIELDS) - len(LATER)
    fields = [name for name in FIELDS if not (older and name in LATER)]
    return dict(zip(fields, entry)) if len(entry) <= len(fields) else None


def names_of(parts: list[dict[str, Any]], listed: Any) -> list[str]:
    """Return the names of the parts, as this version of pyvene makes them or an older listed them.

    Raises:
        BadInput: a name that could be no file's.
    """
    names = _made_names(parts)
    if isinstance(listed, list) and len(listed) == len(names):
        known = [str(name) for name in listed]
        names = names if sorted(known) == sorted(names) else known
    wrong = [name for name in names if not re.fullmatch(r"[\w.\[\]#-]+", name)]
    if wrong:
        raise BadInput(f"{wrong[0]!r} is no name of an intervention of pyvene")
    return names


def _made_names(parts: list[dict[str, Any]]) -> list[str]:
    """Return the names that pyvene gives its parts, and their files."""
    names: list[str] = []
    seen: dict[str, int] = {}
    for part in parts:
        component = part["component"].replace(".", "_")
        by_path = "." in part["component"]
        start = f"comp_{component}" if by_path else f"layer_{part['layer']}_comp_{component}"
        unit = part["unit"].replace(".", "_")
        key = f"{start}_unit_{unit}_nunit_{part['max_number_of_units']}"
        seen[key] = seen.get(key, -1) + 1
        names.append(f"{key}#{seen[key]}")
    return names


def check_parts(
    folder: Path, parts: list[dict[str, Any]], names: list[str], kinds: list[str]
) -> None:
    """Refuse what has no counterpart, all of it at once."""
    refused = [
        f"{name}: {why}"
        for name, part, kind in zip(names, parts, kinds)
        for why in (*_refused_kind(part, kind), *_refused_component(part))
    ]
    if refused:
        raise BadInput(f"{folder}: this cannot be honoured: {'; '.join(refused)}")


def _refused_kind(part: dict[str, Any], kind: str) -> list[str]:
    """Return what of a part's class and units has no counterpart."""
    refused = []
    if kind not in KNOWN:
        why = " (its numbers are not in the folder)" if kind in NOT_SAVED else ""
        refused.append(f"intervention_type {kind}{why}")
    if part["unit"] not in ("pos", "h", "h.pos"):
        refused.append(f"unit {part['unit']}")
    if part["moe_key"] is not None:
        refused.append(f"moe_key {part['moe_key']}")
    units = part["max_number_of_units"]
    if part["unit"] == "pos" and units != 1 and kind in LEARNED:
        refused.append(f"max_number_of_units {units} of {kind} (features across positions)")
    return refused


def _refused_component(part: dict[str, Any]) -> list[str]:
    """Return what of a part's component has no counterpart."""
    refused, component = [], part["component"]
    if (part["unit"] != "pos") != (component in HEADS):
        refused.append(f"unit {part['unit']} of component {component}")
    if component not in WHOLE and not re.fullmatch(r"[\w.\[\]]+\.(input|output)", component):
        refused.append(f"component {component}")
    return refused


def ignored_by(config: dict[str, Any], parts: list[dict[str, Any]], names: list[str]) -> list[str]:
    """Return what changes no weights and is not taken over."""
    ignored = [f"model_type {config['model_type']!r}"] if config.get("model_type") else []
    for part, name in zip(parts, names):
        if part["intervention_link_key"] is not None and len(parts) > 1:
            ignored.append(
                f"{name}: linked parts share weights; pyvene also hands the first one's result to"
                " the next"
            )
    return ignored

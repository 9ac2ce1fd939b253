"""Folders of pyvene as lists of heads.

pyvene's config.json names layers and components; which heads of them is said when it runs. So heads
come from unit_locations.json, a run's `unit_locations` that lie beside it, or from constant values
that were saved for all heads of a layer, of which those are listed that are not zero. To use the
edits themselves, see `interventions.pyvene`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import xarray as xr

from nnheads.interchange.table import grid, listed, whole_number

CONFIG, LOCATIONS = "config.json", "unit_locations.json"
COMPONENT = "head_attention_value_output"
ALL_HEADS = ("attention_value_output",)
ZERO = "<class 'pyvene.models.interventions.ZeroIntervention'>"


def is_config(content) -> bool:
    return isinstance(content, dict) and isinstance(content.get("representations"), list)


def from_folder(folder: Path, content: dict, heads: int | None) -> tuple[str, xr.Dataset]:
    """Heads of a folder: those of its unit_locations.json, or those with a constant value.

    Args:
        heads: how many heads a layer has, which constant values alone do not say.
    """
    parts = [part_of(entry) for entry in content["representations"]]
    if not parts:
        raise ValueError("no representations in it")
    place = folder / LOCATIONS
    if place.is_file():
        found = listed(located(parts, json.loads(place.read_text(encoding="utf-8"))))
    elif all(
        component in ALL_HEADS or component.endswith("o_proj.input") for _, component in parts
    ):
        found = grid(constants(folder, parts, names_of(content, parts), heads))
        found = found.assign(
            score=found["score"].assign_attrs(long_name="size of the constant value")
        )
    else:
        raise ValueError(
            f"pyvene names heads when it runs, not in {CONFIG}; put its unit_locations in"
            f" {LOCATIONS}"
        )
    return "pyvene", found


def part_of(entry) -> tuple[int, str]:
    """Layer and component of a representation, which pyvene writes as a list."""
    given = entry if isinstance(entry, dict) else dict(zip(("layer", "component"), entry))
    component = str(given["component"])
    numbered = re.search(r"\[(\d{1,5})\]|\.(\d{1,5})\.", component)
    return (
        int(numbered[1] or numbered[2]) if numbered else whole_number(given.get("layer", 0))
    ), component


def located(parts: list[tuple[int, str]], locations) -> list[tuple[int, int]]:
    """Heads of each part: the first of its rows; of rows of heads and positions, the heads."""
    base = locations.get("base", locations.get("sources->base"))
    if "base" not in locations and isinstance(base, list) and len(base) == 2:
        base = base[1]
    if not isinstance(base, list) or len(base) != len(parts):
        raise ValueError(f"{LOCATIONS} does not name the heads of {len(parts)} parts")
    found = []
    for (layer, _), own in zip(parts, base):
        rows = own
        while isinstance(rows, list) and rows and isinstance(rows[0], list):
            rows = rows[0]
        if not isinstance(rows, list) or not rows:
            raise ValueError(f"{LOCATIONS} names no heads of layer {layer}")
        found += [(layer, whole_number(head)) for head in rows]
    return found


def names_of(content: dict, parts: list) -> list[str]:
    """The names of the files of constant values: in the order of the parts, where the config lists
    them.
    """
    names = content.get("sorted_keys")
    if not isinstance(names, list) or len(names) != len(parts):
        raise ValueError("it does not list sorted_keys, the names of its files of values")
    by_layer = {}
    for name in map(str, names):
        match = re.match(r"layer[._](\d{1,5})|.*?[\[_](\d{1,5})[\]_]", name)
        if match is None or not re.fullmatch(r"[\w.\[\]#-]+", name):
            raise ValueError(f"{name!r} is no name of an intervention of pyvene")
        by_layer[int(match[1] or match[2])] = name
    if set(by_layer) != {layer for layer, _ in parts}:
        raise ValueError("its sorted_keys are of other layers than its representations")
    return [by_layer[layer] for layer, _ in parts]


def constants(
    folder: Path, parts: list, names: list[str], heads: int | None
) -> dict[tuple[int, int], float]:
    """Heads whose part of a constant value is not zero: its Euclidean norm."""
    from nnheads.interventions.pyvene_weights import weights

    if heads is None:
        raise ValueError(
            "its values are of all heads together; say how many heads a layer has (--model or"
            " --shape)"
        )
    found: dict[tuple[int, int], float] = {}
    for (layer, _), name in zip(parts, names):
        kept = weights(folder / f"intkey_{name}.bin")
        if "source_representation" not in kept:
            raise ValueError(f"intkey_{name}.bin has no constant value, source_representation")
        value = kept["source_representation"].float().numpy().ravel()
        if value.size % heads:
            raise ValueError(f"a value of {value.size} features is not one of {heads} heads")
        norms = np.linalg.norm(value.reshape(heads, -1), axis=1)
        found |= {(layer, head): float(norm) for head, norm in enumerate(norms) if norm > 0}
    return found


def texts(heads: list[tuple[int, int]], head_dim: int | None) -> dict[str, str]:
    """config.json and unit_locations.json of a folder that sets these heads' outputs to zero, a
    part for each layer.
    """
    by_layer: dict[int, list[int]] = {}
    for layer, head in heads:
        by_layer.setdefault(layer, []).append(head)
    parts = [[layer, COMPONENT, "h", len(own), *[None] * 10] for layer, own in by_layer.items()]
    config = {
        "representations": parts,
        "intervention_types": [ZERO] * len(parts),
        "intervention_dimensions": [head_dim] * len(parts),
        "intervention_constant_sources": [False] * len(parts),
        "mode": "parallel",
        "sorted_keys": [
            f"layer_{layer}_comp_{COMPONENT}_unit_h_nunit_{len(own)}#0"
            for layer, own in by_layer.items()
        ],
    }
    locations = {"base": [[own] for own in by_layer.values()]}
    return {CONFIG: json.dumps(config, indent=1) + "\n", LOCATIONS: json.dumps(locations) + "\n"}

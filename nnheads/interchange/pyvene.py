"""Folders of pyvene as lists of heads.

pyvene's config.json names layers and components; which heads of them is said when it runs. So heads
come from unit_locations.json, a run's `unit_locations` that lie beside it, or from constant values
that were saved for all heads of a layer, of which those are listed that are not zero. To use the
edits themselves, see `interventions`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from nnheads.interchange.table import Head, by_layer, grid, listed, whole_number

CONFIG, LOCATIONS = "config.json", "unit_locations.json"
COMPONENT = "head_attention_value_output"
ALL_HEADS = ("attention_value_output",)
ZERO = "<class 'pyvene.models.interventions.ZeroIntervention'>"
NUMBERED = re.compile(r"\[(\d{1,5})\]|\.(\d{1,5})\.")  # a layer inside a component's path
KEY = re.compile(r"layer[._](\d{1,5})|.*?[\[_](\d{1,5})[\]_]")


@dataclass(frozen=True)
class Part:
    """What one intervention of a folder acts on."""

    layer: int
    component: str

    @property
    def whole(self) -> bool:
        """Whether it is the outputs of all heads of a layer together."""
        return self.component in ALL_HEADS or self.component.endswith("o_proj.input")


def is_config(content: object) -> bool:
    """Return whether a file's contents are a pyvene configuration."""
    return isinstance(content, dict) and isinstance(content.get("representations"), list)


def from_folder(folder: Path, content: dict, heads: int | None) -> tuple[str, xr.Dataset]:
    """Return the heads of a folder: those of unit_locations.json, or those with a constant value.

    Args:
        folder: holds config.json, whose contents are `content`.
        heads: how many heads a layer has, which constant values alone do not say.
    """
    parts = [part_of(entry) for entry in content["representations"]]
    if not parts:
        raise ValueError("no representations in it")
    locations = folder / LOCATIONS
    if locations.is_file():
        named = heads_at(parts, json.loads(locations.read_text(encoding="utf-8")))
        return "pyvene", listed(named)
    if not all(part.whole for part in parts):
        raise ValueError(
            f"pyvene names heads when it runs, not in {CONFIG}; put its unit_locations in"
            f" {LOCATIONS}"
        )
    table = grid(constants(folder, parts, names_of(content, parts), heads))
    sizes = table["score"].assign_attrs(long_name="size of the constant value")
    return "pyvene", table.assign(score=sizes)


def part_of(entry: Any) -> Part:
    """Return the part that a representation, which pyvene writes as a list, is about."""
    fields = entry if isinstance(entry, dict) else dict(zip(("layer", "component"), entry))
    component = str(fields["component"])
    layer = _numbered(component)
    return Part(whole_number(fields.get("layer", 0)) if layer is None else layer, component)


def _numbered(component: str) -> int | None:
    """Return the layer that the path of a component names, or None."""
    match = NUMBERED.search(component)
    return None if match is None else int(match[1] or match[2])


def heads_at(parts: list[Part], locations: Any) -> list[Head]:
    """Return the heads that unit_locations.json names."""
    base = locations.get("base", locations.get("sources->base"))
    if "base" not in locations and isinstance(base, list) and len(base) == 2:
        base = base[1]
    if not isinstance(base, list) or len(base) != len(parts):
        raise ValueError(f"{LOCATIONS} does not name the heads of {len(parts)} parts")
    return [
        (part.layer, whole_number(head))
        for part, rows in zip(parts, base)
        for head in _first_row(rows, part.layer)
    ]


def _first_row(rows: Any, layer: int) -> list:
    """Return a part's first row; of rows of heads and positions, the heads."""
    while isinstance(rows, list) and rows and isinstance(rows[0], list):
        rows = rows[0]
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"{LOCATIONS} names no heads of layer {layer}")
    return rows


def names_of(content: dict, parts: list[Part]) -> list[str]:
    """Return the names of the files of constant values, in the order of the parts."""
    by_number = {_layer_of(name): name for name in _keys(content, len(parts))}
    if set(by_number) != {part.layer for part in parts}:
        raise ValueError("its sorted_keys are of other layers than its representations")
    return [by_number[part.layer] for part in parts]


def _keys(content: dict, count: int) -> list[str]:
    names = content.get("sorted_keys")
    if not isinstance(names, list) or len(names) != count:
        raise ValueError("it does not list sorted_keys, the names of its files of values")
    return [str(name) for name in names]


def _layer_of(name: str) -> int:
    """Return the layer in the name of a file; a name that could leave the folder is refused."""
    match = KEY.match(name)
    if match is None or not re.fullmatch(r"[\w.\[\]#-]+", name):
        raise ValueError(f"{name!r} is no name of an intervention of pyvene")
    return int(match[1] or match[2])


def constants(
    folder: Path, parts: list[Part], names: list[str], heads: int | None
) -> dict[Head, float]:
    """Return the Euclidean norm of each head's part of a constant value, where it is not zero."""
    if heads is None:
        raise ValueError(
            "its values are of all heads together; say how many heads a layer has (--model or"
            " --shape)"
        )
    sizes: dict[Head, float] = {}
    for part, name in zip(parts, names):
        norms = _norms(folder / f"intkey_{name}.bin", heads)
        sizes |= {(part.layer, head): float(norm) for head, norm in enumerate(norms) if norm > 0}
    return sizes


def _norms(path: Path, heads: int) -> Float[np.ndarray, " head"]:
    value = _constant(path)
    if value.size % heads:
        raise ValueError(f"a value of {value.size} features is not one of {heads} heads")
    return np.linalg.norm(value.reshape(heads, -1), axis=1)


def _constant(path: Path) -> Float[np.ndarray, " feature"]:
    from nnheads.interventions.pyvene_weights import weights

    kept = weights(path)
    if "source_representation" not in kept:
        raise ValueError(f"{path.name} has no constant value, source_representation")
    return kept["source_representation"].float().numpy().ravel()


def texts(heads: list[Head], head_dim: int | None) -> dict[str, str]:
    """Return the files of a folder that zeroes these heads' outputs, a part for each layer."""
    layers = by_layer(heads)
    locations = {"base": [[units] for units in layers.values()]}
    return {
        CONFIG: json.dumps(_config(layers, head_dim), indent=1) + "\n",
        LOCATIONS: json.dumps(locations) + "\n",
    }


def _config(layers: dict[int, list[int]], head_dim: int | None) -> dict[str, Any]:
    """Return a configuration for these heads of each layer."""
    rest = [None] * 10
    return {
        "representations": [
            [layer, COMPONENT, "h", len(units), *rest] for layer, units in layers.items()
        ],
        "intervention_types": [ZERO] * len(layers),
        "intervention_dimensions": [head_dim] * len(layers),
        "intervention_constant_sources": [False] * len(layers),
        "mode": "parallel",
        "sorted_keys": [
            f"layer_{layer}_comp_{COMPONENT}_unit_h_nunit_{len(units)}#0"
            for layer, units in layers.items()
        ],
    }

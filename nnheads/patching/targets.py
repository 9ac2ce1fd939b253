"""Which parts of the model a question is about, and where in the prompts: cells and their axes.

    cells, axes = chosen_cells(model, prompts, "z", None, None, False, "END")
    axes                                     # {"layer": [0, 1, ...], "head": [0, 1, ...]}

Raises BadInput for layers, heads and roles that do not exist.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from nnheads.errors import BadInput
from nnheads.models.geometry import geometry
from nnheads.models.names import check_layer, head_name
from nnheads.patching import cells as which
from nnheads.patching.cells import CellSet, Regions
from nnheads.patching.prepared import units
from nnheads.trace.sites import UNITS

Group = Sequence[tuple[int, int]]
Axes = dict[str, list]


def chosen_cells(
    model,
    prompts: xr.Dataset,
    site: str,
    layers: Sequence[int] | None,
    groups: Sequence[Group] | None,
    by_position: bool,
    at: str | None,
) -> tuple[CellSet, Axes]:
    """Return the cells of a question, and the dimensions and coordinates of its answer."""
    regions = chosen_regions(prompts, by_position, at)
    if groups is None:
        cells, axes = single_cells(model, site, layers, regions)
    else:
        cells, axes = group_cells(model, site, groups, regions)
    if by_position:
        axes["position"] = list(range(prompts.sizes["position"]))
    return cells, axes


def chosen_regions(prompts: xr.Dataset, by_position: bool, at: str | None) -> Regions:
    """Return the positions of a swap: all at once, each by itself, or one role's."""
    mask = prompts["mask"].values
    if at is not None and by_position:
        raise BadInput("swap at each position or at one role, not both")
    if at is not None:
        return which.at(role(prompts, at), mask)
    return which.each_position(mask) if by_position else which.everywhere(mask)


def single_cells(
    model, site: str, layers: Sequence[int] | None, regions: Regions
) -> tuple[CellSet, Axes]:
    """Return every unit of the chosen layers by itself."""
    count, depth = units(model, site), geometry(model).layers
    rows = list(range(depth)) if layers is None else list(layers)
    for layer in rows:
        check_layer(layer, depth)
    axes: Axes = {"layer": rows}
    if site in UNITS:
        axes[UNITS[site]] = list(range(count))
    return which.grid(rows, count, regions), axes


def group_cells(
    model, site: str, groups: Sequence[Group], regions: Regions
) -> tuple[CellSet, Axes]:
    """Return sets of units, each swapped together."""
    members = [[(int(layer), int(unit)) for layer, unit in group] for group in groups]
    count, name = units(model, site), UNITS.get(site, "unit")
    which.check_members(members, geometry(model).layers, count, name)
    names = ["+".join(head_name(*head) for head in group) or "none" for group in members]
    return which.groups(members, regions), {"group": names}


def role(prompts: xr.Dataset, name: str) -> np.ndarray:
    """Return the position of a role in each prompt [case], -1 for none."""
    roles = [str(key) for key in prompts.coords if str(key).startswith("role_")]
    known = [key.removeprefix("role_") for key in roles]
    if name == "END" and name not in known:
        return np.full(prompts.sizes["batch"], prompts.sizes["position"] - 1)
    if name not in known:
        raise BadInput(
            f"role {name!r} is not known in these prompts; use one of {', '.join(known) or 'END'}"
        )
    return prompts[f"role_{name}"].values

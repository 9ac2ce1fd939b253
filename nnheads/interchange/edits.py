"""Saved interventions as lists of heads: those whose output they edit."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from nnheads.interchange.table import check_place, listed
from nnheads.interventions.files import JSON_NAME, load, save
from nnheads.interventions.schema import Edit, Intervention, Zero

NAME = JSON_NAME


def from_intervention(folder: Path) -> tuple[str, xr.Dataset]:
    """The heads of a saved intervention, in the order of its edits. Raises ValueError if it edits anything else."""
    heads: list[tuple[int, int]] = []
    for edit in load(folder).edits:
        if edit.site != "z" or edit.layer is None or edit.units is None:
            raise ValueError("it edits more than outputs of heads (site z, with units)")
        heads += [(check_place(edit.layer), check_place(unit)) for unit in edit.units]
    return "intervention", listed(list(dict.fromkeys(heads)))


def write_intervention(heads: list[tuple[int, int]], folder: Path, model: str) -> None:
    """An intervention that sets these heads' outputs to zero, an edit for each layer."""
    by_layer: dict[int, list[int]] = {}
    for layer, head in heads:
        by_layer.setdefault(layer, []).append(head)
    edits = [Edit("z", Zero(), layer=layer, units=tuple(own)) for layer, own in by_layer.items()]
    save(Intervention(*edits), folder, model=model)

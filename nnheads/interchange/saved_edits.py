"""Saved interventions as lists of heads: those whose output they edit.

Interventions load nnsight, which takes seconds; other lists of heads do without it.
"""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from nnheads.interchange.table import check_place, listed

NAME = "intervention.json"  # as `interventions.files` calls it


def from_intervention(folder: Path) -> tuple[str, xr.Dataset]:
    """The heads of a saved intervention, in the order of its edits.

    Raises ValueError if it edits anything else.
    """
    from nnheads.interventions.files import load

    heads: list[tuple[int, int]] = []
    for edit in load(folder).edits:
        if edit.site != "z" or edit.layer is None or edit.units is None:
            raise ValueError("it edits more than outputs of heads (site z, with units)")
        heads += [(check_place(edit.layer), check_place(unit)) for unit in edit.units]
    return "intervention", listed(list(dict.fromkeys(heads)))


def write_intervention(heads: list[tuple[int, int]], folder: Path, model: str) -> None:
    """An intervention that sets these heads' outputs to zero, an edit for each layer."""
    from nnheads.interventions.files import save
    from nnheads.interventions.schema import Edit, Intervention, Zero

    by_layer: dict[int, list[int]] = {}
    for layer, head in heads:
        by_layer.setdefault(layer, []).append(head)
    edits = [Edit("z", Zero(), layer=layer, units=tuple(own)) for layer, own in by_layer.items()]
    save(Intervention(*edits), folder, model=model)

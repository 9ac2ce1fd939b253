"""Saved interventions as lists of heads: those whose output they edit.

Interventions load nnsight, which takes seconds; other lists of heads do without it.
"""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from nnheads.interchange.table import Head, by_layer, check_index, listed

NAME = "intervention.json"  # as `interventions.files` calls it


def from_intervention(folder: Path) -> tuple[str, xr.Dataset]:
    """Return the heads of a saved intervention, in the order of its edits.

    Raises:
        ValueError: an edit of anything but head outputs.
    """
    from nnheads.interventions.files import load

    heads: list[Head] = []
    for edit in load(folder).edits:
        if edit.site != "z" or edit.layer is None or edit.units is None:
            raise ValueError("it edits more than outputs of heads (site z, with units)")
        heads += [(check_index(edit.layer), check_index(unit)) for unit in edit.units]
    return "intervention", listed(list(dict.fromkeys(heads)))


def write_intervention(heads: list[Head], folder: Path, model: str) -> None:
    """Save an intervention that sets these heads' outputs to zero, an edit for each layer."""
    from nnheads.interventions.files import save
    from nnheads.interventions.operations import Zero
    from nnheads.interventions.schema import Edit, Intervention

    edits = [
        Edit("z", Zero(), layer=layer, units=tuple(units))
        for layer, units in by_layer(heads).items()
    ]
    save(Intervention(*edits), folder, model=model)

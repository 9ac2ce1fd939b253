"""Results of a study: tables with their origin, curves to draw, and interventions that were found.

save_described(run, run.about(...), scores=scores, heads=heads)
run.picture("curve", plot.curves({"effect": band(table, "effect")}, title="..."))
save_edits(run, change, about["model"])
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr

    from nnheads.interventions.schema import Intervention
    from nnheads.runs.folder import Run

FOLDER = "intervention"  # in the run's folder


def save_described(run: Run, about: Mapping[str, Any], **tables: xr.Dataset) -> None:
    """Save each table with what repeats it among its attributes."""
    run.save(**{name: described(table, about) for name, table in tables.items()})


def described(table: xr.Dataset, about: Mapping[str, Any]) -> xr.Dataset:
    """Return the table with more attributes, which take the place of those of the same name."""
    return table.assign_attrs({**table.attrs, **about})


def band(
    table: xr.Dataset, name: str, ends: tuple[str, str] = ("_low", "_high")
) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """Return a variable and the ends of its interval, as `plot.curves` draws them."""
    low, high = ends
    return table[name], table[f"{name}{low}"], table[f"{name}{high}"]


def save_edits(run: Run, change: Intervention, model: str) -> None:
    """Save an intervention in the run's folder, as `--intervention` takes it."""
    from nnheads.interventions.files import JSON_NAME, TENSORS_NAME, save

    save(change, run.own(FOLDER), model=model)
    run.files += [f"{FOLDER}/{name}" for name in (JSON_NAME, TENSORS_NAME)]

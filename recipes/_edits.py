"""An intervention that a study found, saved beside its results."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnheads.interventions.schema import Intervention
    from nnheads.runs.folder import Run

FOLDER = "intervention"  # in the run's folder


def save_edits(run: Run, change: Intervention, model: str) -> None:
    """Save an intervention in the run's folder, as `--intervention` takes it."""
    from nnheads.interventions.files import JSON_NAME, TENSORS_NAME, save

    save(change, run.folder / FOLDER, model=model)
    run.files += [f"{FOLDER}/{name}" for name in (JSON_NAME, TENSORS_NAME)]

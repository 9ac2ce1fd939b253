"""What `nnheads iti fit` computes: probes, directions and the edit of one fold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnheads.recipes import _iti, _iti_runs
from nnheads.recipes._results import save_described, save_edits

from nnheads.errors import BadInput

if TYPE_CHECKING:
    import xarray as xr
    from nnheads.recipes._iti_runs import Experiment
    from nnheads.recipes._study import Study

    from nnheads.runs.folder import Run
    from nnheads.truth.material import Material


def fitted(study: Study) -> Run:
    """Return the run of `iti fit`, computed if it is not there."""
    if study.fold >= study.folds:
        raise BadInput(f"--fold {study.fold} does not exist; {study.folds} folds count from 0")
    _iti.check_lists(study)
    experiment = _iti_runs.opened(study, "fit")
    if not experiment.run.complete:
        if "," in study.alpha + study.heads:
            _iti_runs.check_scope(experiment.prompts, study.scope)
        fit(experiment)
    return experiment.run


def fit(experiment: Experiment) -> None:
    """Probe every head, choose strength and heads of one fold, and save the edit."""
    from nnheads.truth.conditions import final

    run, fold = experiment.run, experiment.facts["fold"]
    every = _iti_runs.material(experiment)
    given, how = every.only(fold), _iti_runs.how_of(experiment)
    [(alpha, count)], table = _iti_runs.chosen(experiment, given, how)
    directions, change = final(given, 0, alpha, count, how)
    about = experiment.about("fit")
    about |= {"alpha": alpha, "heads": count, "scope": how.scope, "fold": fold}
    save_tables(experiment, {"probes": probes_of(every), "directions": directions}, table, about)
    marked = marked_heads(given, count)
    _iti_runs.draw_probes(experiment, every.probes, run.load("probes"), marked)
    save_edits(run, change, about["model"])
    run.finish(alpha=alpha, heads=[list(head) for head in given.heads(0, count)])


def probes_of(every: Material) -> xr.Dataset:
    """Return what is saved of the probes: all but what they say of single statements."""
    return every.probes.drop_dims("batch", errors="ignore")


def save_tables(
    experiment: Experiment, tables: dict[str, xr.Dataset], grid: xr.Dataset | None, about: dict
) -> None:
    """Save probes and directions, and the grid if something was chosen by one."""
    if grid is not None:
        tables = {**tables, "grid": _iti_runs.reduced(grid, experiment.facts["seed"])}
    save_described(experiment.run, about, **tables)


def marked_heads(given: Material, count: int) -> list[dict]:
    """Return the heads of the edit with their accuracy on validation statements."""
    validation = given.probes["validation"].sel(fold=0)
    return [
        {"layer": layer, "head": head, "value": float(validation.sel(layer=layer, head=head))}
        for layer, head in given.heads(0, count)
    ]

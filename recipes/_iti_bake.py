"""What `nnheads iti` bakes and exports: a checkpoint with the edit, or the edit alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnheads.recipes import _iti_report, _iti_runs
from nnheads.recipes._iti_use import edit_of, folder_of, identity_of, unseen
from nnheads.recipes._terminal import say, shown

from nnheads.errors import BadInput

if TYPE_CHECKING:
    import xarray as xr
    from nnheads.recipes._iti_runs import Experiment
    from nnheads.recipes._study import Study

    from nnheads.interventions.schema import Intervention

PARITY_ROWS = 16  # statements on which a baked checkpoint is compared with the live edit
ELSEWHERE = ("to", "push", "private")  # where it goes changes no number
WHOLE = {"dtype": "float32", "remote": None}  # a checkpoint is only baked from whole weights here
CHECKPOINT = "checkpoint"
BEGINNING = 4  # tokens of an answer that show whether it is true


def baked(study: Study, fit: Study) -> None:
    """Bake, compare with the live edit, and with one of tokens as they are written."""
    from nnheads.truth.bake import push

    change, place = edit_of(study, fit)
    name = identity_of(change)
    whole = study.changed(**WHOLE)
    experiment = _iti_runs.opened(whole, f"bake-{name}", without=ELSEWHERE, intervention=name)
    folder = study.to or experiment.run.folder / CHECKPOINT
    if not experiment.run.complete or not folder.is_dir():
        if study.to is None:
            shutil.rmtree(folder, ignore_errors=True)  # of a run that did not come to its end
            experiment.run.own(CHECKPOINT)
        write(experiment, change, folder, study.name)
    say(f"edit: {place}")
    _iti_report.baked(experiment.run, folder)
    if study.push is not None:
        say(push(folder, study.push, private=study.private))


def write(experiment: Experiment, change: Intervention, folder: Path, name: str) -> None:
    """Write the checkpoint, and record how it compares with the edit in other scopes."""
    from nnheads.truth.bake import bake

    rows = experiment.prompts.isel(batch=slice(0, PARITY_ROWS))
    done = bake(experiment.model, change, folder, rows, name=name)
    experiment.run.finish(
        difference=done.difference,
        moved=done.moved,
        family=done.family,
        scopes=scopes(experiment, change),
    )


def scopes(experiment: Experiment, change: Intervention) -> dict[str, dict[str, float | str]]:
    """Return the same edit everywhere, as a bias has it, and of tokens as they are written: name ->
    MC1 on questions on which it was not fitted (or why it cannot be scored), KL on neutral texts,
    and what answers begin with.
    """
    import numpy as np

    from nnheads.interventions.schema import Intervention
    from nnheads.truth.iti import rescoped

    free = unseen(experiment.read.texts(), change)
    prompts = experiment.prompts
    rows = prompts.isel(batch=np.isin(prompts["question"].values, free))
    neutral = experiment.neutral_prompts()
    edits = {"none": Intervention()}
    edits |= {name: rescoped(change, name) for name in ("all", "answering", "decode")}
    return {
        name: {
            "mc1": multiple_choice(experiment, edit, rows),
            **beginnings(experiment, edit, free),
            "kl": divergence(experiment, edit, neutral),
        }
        for name, edit in edits.items()
    }


def multiple_choice(experiment: Experiment, change: Intervention, rows: xr.Dataset) -> float | str:
    """Return MC1, or why an edit of this scope cannot be scored."""
    from nnheads.truth.multiple_choice import score

    try:
        return float(score(experiment.model, change, rows, **running(experiment))["mc1"].mean())
    except BadInput as error:
        return str(error)


def beginnings(experiment: Experiment, change: Intervention, numbers: list[int]) -> dict[str, Any]:
    """Return the shares of answers that begin with a true and with a false one."""
    from nnheads.truth.samples import answers

    questions = experiment.read.questions
    written = answers(
        experiment.model,
        [(questions[number], change) for number in numbers],
        template=experiment.prompts.attrs["template"],
        new_tokens=BEGINNING,
        batch_size=experiment.facts["batch_size"],
    )
    begins = written["begins"].sel(condition="edit")
    return {"true": float((begins == 1).mean()), "false": float((begins == -1).mean())}


def divergence(experiment: Experiment, change: Intervention, neutral: xr.Dataset) -> float:
    """Return how far an edit moves predictions on neutral texts, in nats a token."""
    from nnheads.truth.neutral import coherence

    return float(coherence(experiment.model, change, neutral, **running(experiment))["kl"].mean())


def running(experiment: Experiment) -> dict[str, Any]:
    """Return how many rows at a time, and whether to show progress."""
    return {name: experiment.facts[name] for name in ("batch_size", "quiet")}


def exported(study: Study, fit: Study) -> None:
    """Write the edit alone, and say how large it is."""
    from nnheads.interventions.files import push, save
    from nnheads.truth.directions import fitted_on
    from nnheads.truth.iti import heads_of

    change, place = edit_of(study, fit)
    folder = save(change, study.to or folder_of(study, "export"), model=study.name)
    size, seen = sum(path.stat().st_size for path in folder.iterdir()), fitted_on(change)
    known = "it does not say on which questions" if seen is None else f"{len(seen)} questions"
    say(f"edit: {place}")
    say(f"{len(heads_of(change))} heads, fitted on {known}, {size / 1000:.1f} kB")
    say(shown(folder))
    if study.push is not None:
        say(push(folder, study.push, private=study.private))

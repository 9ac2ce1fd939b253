"""Averages over tasks: what heads put out, what the model gets right, and indirect effects.

    heads = average_effects({"shown": effects, "shuffled": other_effects})

Tasks count alike, however many prompts they have; intervals resample tasks, or the cases of a
single task. A head is flagged where its mean output with examples does more than with shuffled
ones.
Source: Todd et al. 2024, arXiv 2310.15213.
"""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr

from nnheads import stats
from nnheads.patching.function_vectors import Outputs

PROBABILITY = 1.0  # the size of what effects are differences of, for `stats.greater_than`


def averaged(
    outputs: dict[str, list[xr.Dataset]], *, seed: int = 0
) -> tuple[dict[str, Outputs], xr.Dataset]:
    """Return the mean outputs of each task, and the share of its prompts that is answered right.

    Args:
        outputs: `end_outputs` of each task's prompts, with examples ("shown") and with shuffled
            ones ("shuffled").

    Returns:
        mean outputs of both, and (task) `accuracy_shown`, `accuracy_shuffled` and `gain`, their
        difference, with its interval; coordinates `task`, `task_name`.
    """
    means = {kind: _mean_outputs(tasks) for kind, tasks in outputs.items()}
    right = {kind: _right_answers(tasks) for kind, tasks in outputs.items()}
    gain = (right["shown"] - right["shuffled"]).rename("gain")
    gain = gain.assign_attrs(long_name="right answers, shown minus shuffled examples", units="1")
    answered = stats.mean(gain, seed=seed)
    for kind, values in right.items():
        about = {"long_name": f"share answered right, {kind} examples", "units": "1"}
        answered[f"accuracy_{kind}"] = values.mean("batch").astype("float32").assign_attrs(about)
    first = [task.isel(batch=0) for task in outputs["shown"]]
    names = ("task", [str(task["task_name"].values) for task in first])
    numbers = [int(task["task"]) for task in first]
    return means, answered.assign_coords(task=numbers, task_name=names)


def _mean_outputs(tasks: list[xr.Dataset]) -> Outputs:
    """Return the mean over each task's prompts."""
    return torch.from_numpy(np.stack([task["z"].values.mean(0) for task in tasks]))


def _right_answers(tasks: list[xr.Dataset]) -> xr.DataArray:
    """Return which prompts are answered right (task, batch)."""
    return xr.concat([task["correct"].drop_vars(list(task.coords)) for task in tasks], "task")


def over_tasks(values: xr.DataArray, *, seed: int = 0) -> xr.Dataset:
    """Return the mean over tasks of their means, with an interval that resamples tasks.

    Of a single task, the interval resamples its cases.

    Args:
        values: (batch, ...) with the coordinate `task` (batch).
    """
    if np.unique(values["task"].values).size < 2:
        return stats.mean(values, seed=seed)
    return stats.mean(_means_of_tasks(values), "task", seed=seed)


def _means_of_tasks(values: xr.DataArray) -> xr.DataArray:
    """Return the mean of each task (task, ...)."""
    tasks = values["task"].values
    cases = [np.flatnonzero(tasks == task) for task in np.unique(tasks)]
    means = [values.isel(batch=own).mean("batch") for own in cases]
    by_task = xr.concat(means, "task", coords="minimal", compat="override")
    return by_task.assign_attrs(values.attrs).rename(values.name)


def average_effects(
    effects: dict[str, xr.DataArray], *, rate: float = stats.RATE, seed: int = 0
) -> xr.Dataset:
    """Return the average indirect effect (AIE) of each head.

    Args:
        effects: CIE (batch, layer, head) of mean outputs from where the task was "shown", and of
            the same from elsewhere for comparison, e.g. "shuffled" examples or "other" tasks; all
            in the same prompts.
        rate: of false discoveries.

    Returns:
        (layer, head): `aie` and `aie_<other>` with intervals over tasks; `excess` over "shuffled"
        with its interval, `q_value` (one-sided paired t test over cases, adjusted for all heads)
        and `flag` (1 or 0).
    """
    excess = (effects["shown"] - effects["shuffled"]).rename("excess")
    meaning = "average indirect effect, shown minus shuffled"
    excess.attrs = {**effects["shown"].attrs, "long_name": meaning}
    parts = [_averaged_effect(name, values, seed) for name, values in effects.items()]
    heads = xr.merge([*parts, over_tasks(excess, seed=seed)], combine_attrs="drop_conflicts")
    cases = excess.transpose("batch", "layer", "head").values
    p_value = stats.greater_than(cases, size=PROBABILITY)
    tested = stats.discoveries(p_value, "p of no excess", "more than shuffled examples", rate=rate)
    tested.pop("p_value")
    return heads.assign(tested)


def _averaged_effect(name: str, values: xr.DataArray, seed: int) -> xr.Dataset:
    """Return the AIE of mean outputs from one source, "shown" or another."""
    named = values.rename("aie" if name == "shown" else f"aie_{name}")
    text = "average indirect effect" + ("" if name == "shown" else f", from {name}")
    named.attrs = {**values.attrs, "long_name": text}
    return over_tasks(named, seed=seed)

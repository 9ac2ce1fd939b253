"""What `nnheads function-vectors` computes: mean outputs, effects of heads, and their sum."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nnheads.recipes import _function_vectors_added as addition
from nnheads.recipes import _function_vectors_pictures
from nnheads.recipes._function_vectors_prompts import Trial, of_tasks

from nnheads.errors import RunError

if TYPE_CHECKING:
    import torch
    import xarray as xr


def compute(trial: Trial, dropped: dict[str, str]) -> None:
    """Average, find the tasks that the model does, try every head, add the vectors, draw, save."""
    from nnheads import stats

    facts, run = trial.run.facts, trial.run
    outputs, answered = averages(trial)
    done = tasks_done(answered, trial.study.name, facts["shots"])
    trials, questions = (of_tasks(trial.sets[name], done) for name in ("trials", "questions"))
    effects = effects_of(trial, trials, sources(outputs, done))
    scores = scores_of(effects)
    heads = heads_of(effects, scores, facts["seed"])
    best = [(one["layer"], one["head"]) for one in stats.top_heads(heads, "aie", facts["top"])]
    vectors = addition.vectors_of(trial, outputs, heads, best)
    zero_shot = addition.by_layer(addition.added(trial, questions, vectors), facts["seed"])
    tables = {
        "scores": scores,
        "heads": heads,
        "vectors": answered.merge({"vector": addition.labelled(vectors["shown"])}),
        "zero_shot": zero_shot,
    }
    about = about_of(trial, trials) | told(answered, done, dropped)
    for table in tables.values():
        table.attrs.update(about)
    run.save(**tables)
    _function_vectors_pictures.draw(run, heads, zero_shot, trials.sizes["batch"])
    run.finish(tasks=len(done))


def about_of(trial: Trial, trials: xr.Dataset) -> dict[str, Any]:
    """Return what repeats the result, as attributes."""
    return trial.run.about(
        title="heads that carry a task shown by examples",
        prompts=trials,
        references=addition.REFERENCES,
    )


def told(answered: xr.Dataset, done: list[int], dropped: dict[str, str]) -> dict[str, str]:
    """Return which tasks the model does, which not, and which could not be asked."""
    names = {
        int(task): str(name)
        for task, name in zip(answered["task"].values, answered["task_name"].values)
    }
    return {
        "dropped": json.dumps(dropped),
        "tasks": json.dumps([names[task] for task in done]),
        "not_done": json.dumps([name for task, name in names.items() if task not in done]),
    }


def averages(trial: Trial) -> tuple[dict[str, torch.Tensor], xr.Dataset]:
    """Return mean head outputs of each task, from prompts with examples and with shuffled ones,
    [task, layer, head, dim]; and how many of both the model answers right (task).
    """
    import numpy as np

    from nnheads.patching.function_vectors import end_outputs
    from nnheads.patching.task_averages import averaged

    tasks = np.unique(trial.sets["shown"]["task"].values)

    def outputs(task: int, kind: str) -> xr.Dataset:
        return trial.measure(
            lambda part: end_outputs(trial.run.model, part),
            of_tasks(trial.sets[kind], [task]),
            name=f"outputs-{kind}",
            title=f"task {task + 1} of {len(tasks)}, {kind}",
        )

    return averaged(
        {kind: [outputs(task, kind) for task in tasks] for kind in ("shown", "shuffled")}
    )


def tasks_done(answered: xr.Dataset, name: str, shots: int) -> list[int]:
    """Return the tasks that the model does with examples and not with shuffled ones, beyond the
    interval.
    """
    done = [int(task) for task in answered["task"].values[answered["gain_low"].values > 0]]
    if not done:
        shown, shuffled = (
            float(answered[f"accuracy_{kind}"].mean()) for kind in ("shown", "shuffled")
        )
        raise RunError(
            f"{name} does none of the tasks ({', '.join(answered['task_name'].values)}): with"
            f" {shots} examples {shown:.0%} are answered right, with shuffled ones {shuffled:.0%};"
            " there is nothing for heads to carry"
        )
    return done


def sources(outputs: dict[str, torch.Tensor], done: list[int]) -> dict[str, torch.Tensor]:
    """Return mean outputs to try: a task's own, those of shuffled examples, and another task's."""
    if len(done) < 2:
        return outputs
    other = outputs["shown"].clone()
    other[done] = outputs["shown"][done[1:] + done[:1]]
    return {**outputs, "other": other}


def effects_of(
    trial: Trial, trials: xr.Dataset, outputs: dict[str, torch.Tensor]
) -> dict[str, xr.Dataset]:
    """Return what every head does with each source of mean outputs, one head at a time."""
    from nnheads.patching.function_vectors import indirect_effects

    def trying(z: torch.Tensor) -> Callable[[xr.Dataset], xr.Dataset]:
        return lambda part: indirect_effects(trial.run.model, part, z)

    return {
        kind: trial.measure(trying(z), trials, name=f"effects-{kind}", title=f"heads, {kind}")
        for kind, z in outputs.items()
    }


def heads_of(effects: dict[str, xr.Dataset], scores: xr.Dataset, seed: int) -> xr.Dataset:
    """Return average indirect effects (layer, head), and how much less another task's mean does."""
    from nnheads.patching.task_averages import average_effects

    heads = average_effects({kind: one["effect"] for kind, one in effects.items()}, seed=seed)
    return heads.merge(excess_over_other(scores, seed), combine_attrs="override")


def scores_of(effects: dict[str, xr.Dataset]) -> xr.Dataset:
    """Return the effects of all sources as one dataset (batch, layer, head)."""
    probability = next(iter(effects.values()))["base"].to_dataset(name="probability")
    names = {kind: "cie" if kind == "shown" else f"cie_{kind}" for kind in effects}
    return probability.assign({names[kind]: one["effect"] for kind, one in effects.items()})


def excess_over_other(scores: xr.Dataset, seed: int) -> xr.Dataset:
    """Return how much more a task's own mean does than that of another task, with an interval over
    tasks: (layer, head). Empty where there is one task alone.
    """
    import xarray as xr

    from nnheads.patching.task_averages import over_tasks

    if "cie_other" not in scores:
        return xr.Dataset()
    excess = (scores["cie"] - scores["cie_other"]).rename("excess_other")
    text = "average indirect effect, shown minus another task's"
    return over_tasks(excess.assign_attrs({**scores["cie"].attrs, "long_name": text}), seed=seed)

"""Which heads carry a task that was shown by examples? Put their mean output into prompts that show
no task.

z of the last token is averaged over prompts with examples, for each task. In prompts whose examples
have each other's
answers, one head at a time is given that mean: what the answer's probability gains is the head's
    causal indirect effect
(CIE), its mean over tasks the average one (AIE). The sum of W_O z over the best heads is the task's
function vector; added to the residual stream of a prompt without examples it should make the model
do the task.
Source: Todd et al. 2024, arXiv 2310.15213.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from nnsight import save

from nnheads import stats
from nnheads.errors import BadInput
from nnheads.models.geometry import geometry, model_spec
from nnheads.models.inputs import inputs
from nnheads.models.labels import check_finite, label
from nnheads.patching import cells as which
from nnheads.patching.metrics import evaluate, metric_of
from nnheads.patching.readings import Job, measure, prepare
from nnheads.trace.blocks import read_z
from nnheads.trace.session import remote_of

SOURCE = "Todd et al. 2024, arXiv 2310.15213"
PROBABILITY = 1.0  # the size of what effects are differences of, for `stats.greater_than`
Outputs = Float[torch.Tensor, "task layer head dim"]


def end_outputs(model, prompts: xr.Dataset) -> xr.Dataset:
    """`z` (batch, layer, head, dim) at the last position of prompts with `target` (batch, step),
    averaged over them where it is computed, so that every prompt has the mean of all; and whether
    the model answers right, `correct` (batch), 0 or 1."""
    fed, heads, layers = inputs(model, prompts), model_spec(model)["heads"], geometry(model).layers
    with (
        torch.no_grad(),
        model.trace(**fed, use_cache=False, logits_to_keep=1, remote=remote_of(model)),
    ):
        outputs = []
        for index in range(layers):  # layers may be on several devices
            outputs.append(read_z(model.layers[index], heads)[:, -1].float().mean(0).cpu())
        mean = save(torch.stack(outputs))
        best = save(model.output.logits[:, -1].argmax(-1).cpu())
    check_finite(mean, "the heads' outputs")
    right = (best.numpy() == prompts["target"].values[:, 0]).astype(np.float32)
    about = {"long_name": "answer is the model's first choice", "units": "1"}
    each = mean.expand(len(right), -1, -1, -1)
    z = label(
        each,
        ("batch", "layer", "head", "dim"),
        long_name="mean head output",
        units="1",
        source=SOURCE,
    )
    batch = {name: prompts[name] for name in prompts.coords if prompts[name].dims == ("batch",)}
    return xr.Dataset({"z": z, "correct": ("batch", right, about)}, batch)


def averaged(
    found: dict[str, list[xr.Dataset]], *, seed: int = 0
) -> tuple[dict[str, Outputs], xr.Dataset]:
    """Means over prompts.

    Args:
        found: `end_outputs` of each task's prompts, with examples ("shown") and with shuffled ones
            ("shuffled").

    Returns:
        mean outputs of both, and (task) `accuracy_shown`, `accuracy_shuffled` and `gain`, their
        difference, with its interval; coordinates `task`, `task_name`.
    """
    outputs = {
        kind: torch.from_numpy(np.stack([one["z"].values.mean(0) for one in own]))
        for kind, own in found.items()
    }
    right = {
        kind: xr.concat([one["correct"].drop_vars(list(one.coords)) for one in own], "task")
        for kind, own in found.items()
    }
    gain = (right["shown"] - right["shuffled"]).rename("gain")
    answered = stats.mean(
        gain.assign_attrs(long_name="right answers, shown minus shuffled examples", units="1"),
        seed=seed,
    )
    for kind, values in right.items():
        about = {"long_name": f"share answered right, {kind} examples", "units": "1"}
        answered[f"accuracy_{kind}"] = values.mean("batch").astype("float32").assign_attrs(about)
    first = [one.isel(batch=0) for one in found["shown"]]
    names = ("task", [str(one["task_name"].values) for one in first])
    return outputs, answered.assign_coords(
        task=[int(one["task"]) for one in first], task_name=names
    )


def indirect_effects(
    model, prompts: xr.Dataset, z: Outputs, *, metric: str = "probability"
) -> xr.Dataset:
    """Give one head at a time, at the last position, its mean output in the task of each prompt.

    Args:
        prompts: prompts with the number of their `task` (batch), usually with shuffled examples.
        z: mean outputs, [task, layer, head, dim].

    Returns:
        `effect` (batch, layer, head): the change of the metric; `base` (batch).

    Raises:
        BadInput: mean outputs of another model, or of fewer tasks than the prompts are of.
    """
    sizes, task = geometry(model), prompts["task"].values
    if (
        tuple(z.shape[1:]) != (sizes.layers, sizes.heads, sizes.head_dim)
        or z.shape[0] <= task.max()
    ):
        raise BadInput(
            f"mean outputs {tuple(z.shape)} do not fit {task.max() + 1} tasks and {sizes.layers}"
            f" layers of {sizes.heads} heads with {sizes.head_dim} numbers"
        )
    end = which.at(prompts["ask"].values[:, 0], prompts["mask"].values)
    cells = which.grid(range(sizes.layers), sizes.heads, end)
    given = at_every_position(z, prompts.sizes["position"])
    job = prepare(model, prompts, cells, given=given, of=task, full=metric_of(metric).full)
    change, base = _change(model, job, metric)
    return _labelled(
        prompts, change.unflatten(1, (sizes.layers, sizes.heads)), base, ("layer", "head"), metric
    )


def at_every_position(
    values: Float[torch.Tensor, "task layer unit width"], positions: int
) -> dict[int, torch.Tensor]:
    """layer -> [task, unit, position, width], the same at every position; no memory is taken for
    it.
    """
    return {
        layer: values[:, layer].unsqueeze(2).expand(-1, -1, positions, -1)
        for layer in range(values.shape[1])
    }


def function_vectors(
    model, z: Outputs, heads: Sequence[tuple[int, int]]
) -> Float[torch.Tensor, "task d_model"]:
    """The sum over heads of W_O z, which the model's own output projections compute; their bias is
    left out, and so is the norm that some families (Gemma 2, OLMo 2) put behind attention.

    Raises BadInput for heads that the model does not have, or that are named twice.
    """
    sizes = geometry(model)
    which.check_members([heads], sizes.layers, sizes.heads)
    chosen = torch.zeros(sizes.layers, sizes.heads, 1)
    for layer, head in heads:
        chosen[layer, head] = 1
    kept, layers = (z * chosen).flatten(2), sizes.layers
    one = {
        "input_ids": torch.zeros(1, 1, dtype=torch.long),
        "attention_mask": torch.ones(1, 1, dtype=torch.long),
    }
    with torch.no_grad(), model.trace(**one, use_cache=False, remote=remote_of(model)):
        wrote = []
        for index in range(layers):
            projection = model.layers[index].attention.projection
            own = kept[:, index].to(projection.input)
            wrote.append((projection(own) - projection(torch.zeros_like(own))).float().cpu())
        total = save(torch.stack(wrote).sum(0))
    return total


def add_vectors(
    model,
    prompts: xr.Dataset,
    vectors: Float[torch.Tensor, "task d_model"],
    *,
    metric: str = "accuracy",
) -> xr.Dataset:
    """Add the vector of each prompt's task to the residual stream entering one block at a time, at
    the last position.

    Returns: `effect` (batch, layer): the change of the metric; `base` (batch).
    """
    sizes, task = geometry(model), prompts["task"].values
    end = which.at(prompts["ask"].values[:, 0], prompts["mask"].values)
    given = at_every_position(
        vectors[:, None, None].expand(-1, sizes.layers, -1, -1), prompts.sizes["position"]
    )
    job = prepare(
        model,
        prompts,
        which.grid(range(sizes.layers), 1, end),
        site="resid_pre",
        given=given,
        of=task,
        add=True,
        full=metric_of(metric).full,
    )
    change, base = _change(model, job, metric)
    return _labelled(prompts, change, base, ("layer",), metric)


def _change(model, job: Job, metric: str) -> tuple[torch.Tensor, torch.Tensor]:
    """How a metric changes with each cell, [case, cell], and what it was [case]."""
    readings = measure(model, job)
    base = evaluate(metric_of(metric), readings, readings.base)
    return (evaluate(metric_of(metric), readings, readings.swapped) - base).T, base


def _labelled(
    prompts: xr.Dataset, change: torch.Tensor, base: torch.Tensor, dims: tuple, metric: str
) -> xr.Dataset:
    about = {"units": metric_of(metric).units, "source": SOURCE}
    batch = {name: prompts[name] for name in prompts.coords if prompts[name].dims == ("batch",)}
    scores = {
        "effect": label(
            change,
            ("batch", *dims),
            long_name=f"change of the {metric_of(metric).long_name}",
            **about,
        ),
        "base": label(base, ("batch",), long_name=metric_of(metric).long_name, **about),
    }
    return xr.Dataset(
        scores, {**batch, **{dim: range(size) for dim, size in zip(dims, change.shape[1:])}}
    )


def over_tasks(values: xr.DataArray, *, seed: int = 0) -> xr.Dataset:
    """Mean over tasks of their means, with an interval that resamples tasks; of a single task, its
    cases.
    """
    tasks = values["task"].values
    if np.unique(tasks).size < 2:
        return stats.mean(values, seed=seed)
    own = [
        values.isel(batch=np.flatnonzero(tasks == task)).mean("batch") for task in np.unique(tasks)
    ]
    by_task = xr.concat(own, "task", coords="minimal", compat="override")
    return stats.mean(by_task.assign_attrs(values.attrs).rename(values.name), "task", seed=seed)


def average_effects(
    effects: dict[str, xr.DataArray], *, rate: float = 0.05, seed: int = 0
) -> xr.Dataset:
    """AIE of each head.

    Args:
        effects: CIE (batch, layer, head) of mean outputs from where the task was "shown", and of
            the same from elsewhere for comparison, e.g. "shuffled" examples or "other" tasks; all
            in the same prompts.

    Returns:
        (layer, head): `aie` and `aie_<other>` with intervals over tasks; `excess` over "shuffled"
        with its interval, `q_value` (one-sided paired t test over cases, adjusted for all heads)
        and `flag` (1 or 0).
    """
    parts = []
    for name, values in effects.items():
        named = values.rename("aie" if name == "shown" else f"aie_{name}")
        text = "average indirect effect" + ("" if name == "shown" else f", from {name}")
        named.attrs = {**values.attrs, "long_name": text}
        parts.append(over_tasks(named, seed=seed))
    excess = (effects["shown"] - effects["shuffled"]).rename("excess")
    excess.attrs = {
        **effects["shown"].attrs,
        "long_name": "average indirect effect, shown minus shuffled",
    }
    heads = xr.merge([*parts, over_tasks(excess, seed=seed)], combine_attrs="drop_conflicts")
    p_value = stats.greater_than(
        excess.transpose("batch", "layer", "head").values, size=PROBABILITY
    )
    tested = stats.discoveries(p_value, "p of no excess", "more than shuffled examples", rate=rate)
    tested.pop("p_value")
    return heads.assign(tested)

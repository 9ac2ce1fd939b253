"""Which heads carry a task that is shown by examples? Put their mean output where none is shown.

    z = torch.stack([...])  # mean outputs of each task, from `end_outputs`
    effects = indirect_effects(model, shuffled_prompts, z)
    vectors = function_vectors(model, z, best_heads)

z of the last token is averaged over prompts with examples, for each task. In prompts whose examples
have each other's answers, one head at a time is given that mean: what the answer's probability
gains is the head's causal indirect effect (CIE), its mean over tasks the average one (AIE). The sum
of W_O z over the best heads is the task's function vector; added to the residual stream of a prompt
without examples it should make the model do the task. Outputs of another model are refused.
Source: Todd et al. 2024, arXiv 2310.15213.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from nnsight import save

from nnheads.errors import BadInput
from nnheads.models.geometry import geometry, model_spec
from nnheads.models.inputs import inputs
from nnheads.models.labels import check_finite, label
from nnheads.patching import cells as which
from nnheads.patching.head_sets import Head
from nnheads.patching.metrics import evaluate, metric_of
from nnheads.patching.prepared import PreparedSweep, prepare
from nnheads.patching.readings import measure
from nnheads.trace.blocks import read_z
from nnheads.trace.session import remote_of

SOURCE = "Todd et al. 2024, arXiv 2310.15213"
Outputs = Float[torch.Tensor, "task layer head dim"]
ONE_TOKEN = {
    "input_ids": torch.zeros(1, 1, dtype=torch.long),
    "attention_mask": torch.ones(1, 1, dtype=torch.long),
}


def end_outputs(model, prompts: xr.Dataset) -> xr.Dataset:
    """Return the mean of the heads' outputs at the last position, and which answers are right.

    Args:
        prompts: token, mask (batch, position), `target` (batch, step).

    Returns:
        `z` (batch, layer, head, dim), averaged over the prompts where it is computed, so that every
        prompt has the mean of all; `correct` (batch), 1 where the answer is the model's first
        choice, else 0.

    Raises:
        RunError: outputs that are not finite.
    """
    mean, best = _read_end(model, prompts)
    check_finite(mean, "the heads' outputs")
    right = (best.numpy() == prompts["target"].values[:, 0]).astype(np.float32)
    about = {"long_name": "answer is the model's first choice", "units": "1"}
    data = {"z": _labelled_outputs(mean, len(right)), "correct": ("batch", right, about)}
    return xr.Dataset(data, _of_batch(prompts))


def _labelled_outputs(mean: Float[torch.Tensor, "layer head dim"], cases: int) -> xr.DataArray:
    """Return the mean outputs for every case (batch, layer, head, dim)."""
    dims = ("batch", "layer", "head", "dim")
    each = mean.expand(cases, -1, -1, -1)
    return label(each, dims, long_name="mean head output", units="1", source=SOURCE)


def _read_end(
    model, prompts: xr.Dataset
) -> tuple[Float[torch.Tensor, "layer head dim"], Float[torch.Tensor, " batch"]]:
    """Run prompts once: the mean outputs at their end, and the token that is ranked first."""
    tokens, heads = inputs(model, prompts), model_spec(model)["heads"]
    layers, remote = geometry(model).layers, remote_of(model)
    with torch.no_grad(), model.trace(**tokens, use_cache=False, logits_to_keep=1, remote=remote):
        outputs = []
        for index in range(layers):  # layers may be on several devices
            outputs.append(read_z(model.layers[index], heads)[:, -1].float().mean(0).cpu())
        mean = save(torch.stack(outputs))
        best = save(model.output.logits[:, -1].argmax(-1).cpu())
    return mean, best


def indirect_effects(
    model, prompts: xr.Dataset, z: Outputs, *, metric: str = "probability"
) -> xr.Dataset:
    """Give one head at a time, at the last position, its mean output in the task of each prompt.

    Args:
        prompts: prompts with the number of their `task` (batch), usually with shuffled examples.
        z: mean outputs, [task, layer, head, dim].
        metric: a key of `metrics.METRICS`.

    Returns:
        `effect` (batch, layer, head): the change of the metric; `base` (batch); in its unit.

    Raises:
        BadInput: mean outputs of another model, or of fewer tasks than the prompts are of.
    """
    sizes, task = geometry(model), prompts["task"].values
    _check_outputs(z, (sizes.layers, sizes.heads, sizes.head_dim), int(task.max()) + 1)
    cells = which.grid(range(sizes.layers), sizes.heads, _end_of(prompts))
    given = at_every_position(z, prompts.sizes["position"])
    plan = prepare(model, prompts, cells, values=given, owner=task, full=metric_of(metric).full)
    change, base = _change(model, plan, metric)
    change = change.unflatten(1, (sizes.layers, sizes.heads))
    return _labelled(prompts, change, base, ("layer", "head"), metric)


def _check_outputs(z: Outputs, shape: tuple[int, int, int], tasks: int) -> None:
    """Refuse mean outputs of another model, or of fewer tasks than there are."""
    if tuple(z.shape[1:]) != shape or z.shape[0] < tasks:
        raise BadInput(
            f"Mean outputs {tuple(z.shape)} do not fit: expected {(tasks, *shape)}, for {tasks}"
            f" tasks and {shape[0]} layers of {shape[1]} heads with {shape[2]} numbers. Take those"
            " of this model."
        )


def _end_of(prompts: xr.Dataset) -> np.ndarray:
    """Return the position that each prompt asks about, as a row of positions for `cells`."""
    return which.at(prompts["ask"].values[:, 0], prompts["mask"].values)


def at_every_position(
    values: Float[torch.Tensor, "task layer unit width"], positions: int
) -> dict[int, Float[torch.Tensor, "task unit position width"]]:
    """Return values by layer, the same at every position; no memory is taken for it."""
    return {
        layer: values[:, layer].unsqueeze(2).expand(-1, -1, positions, -1)
        for layer in range(values.shape[1])
    }


def function_vectors(
    model, z: Outputs, heads: Sequence[Head]
) -> Float[torch.Tensor, "task d_model"]:
    """Return the sum over heads of W_O z, which the model's own output projections compute.

    Their bias is left out, and so is the norm that some families (Gemma 2, OLMo 2) put behind
    attention.

    Args:
        z: mean outputs, [task, layer, head, dim].

    Raises:
        BadInput: heads that the model does not have, or that are named twice.
    """
    sizes = geometry(model)
    which.check_members([heads], sizes.layers, sizes.heads)
    chosen = torch.zeros(sizes.layers, sizes.heads, 1)
    for layer, head in heads:
        chosen[layer, head] = 1
    kept, layers = (z * chosen).flatten(2), sizes.layers
    with torch.no_grad(), model.trace(**ONE_TOKEN, use_cache=False, remote=remote_of(model)):
        written = []
        for index in range(layers):
            projection = model.layers[index].attention.projection
            own = kept[:, index].to(projection.input)
            written.append((projection(own) - projection(torch.zeros_like(own))).float().cpu())
        total = save(torch.stack(written).sum(0))
    return total


def add_vectors(
    model,
    prompts: xr.Dataset,
    vectors: Float[torch.Tensor, "task d_model"],
    *,
    metric: str = "accuracy",
) -> xr.Dataset:
    """Add the vector of each prompt's task to the stream entering one block at a time, at the end.

    Args:
        prompts: prompts with the number of their `task` (batch).
        metric: a key of `metrics.METRICS`.

    Returns:
        `effect` (batch, layer): the change of the metric; `base` (batch); in its unit.

    Raises:
        BadInput: as `metrics.metric_of`. RunError: logits that are not finite.
    """
    sizes, chosen = geometry(model), metric_of(metric)
    by_layer = vectors[:, None, None].expand(-1, sizes.layers, -1, -1)
    plan = prepare(
        model,
        prompts,
        which.grid(range(sizes.layers), 1, _end_of(prompts)),
        site="resid_pre",
        values=at_every_position(by_layer, prompts.sizes["position"]),
        owner=prompts["task"].values,
        add=True,
        full=chosen.full,
    )
    change, base = _change(model, plan, metric)
    return _labelled(prompts, change, base, ("layer",), metric)


def _change(
    model, plan: PreparedSweep, metric: str
) -> tuple[Float[torch.Tensor, "case cell"], Float[torch.Tensor, " case"]]:
    """Return how a metric changes with each cell, and what it was."""
    readings = measure(model, plan)
    base = evaluate(metric_of(metric), readings, readings.unchanged)
    return (evaluate(metric_of(metric), readings, readings.swapped) - base).T, base


def _labelled(
    prompts: xr.Dataset,
    change: Float[torch.Tensor, "case ..."],
    base: Float[torch.Tensor, " case"],
    dims: tuple[str, ...],
    metric: str,
) -> xr.Dataset:
    """Label a change (batch, *dims) and what the metric was (batch)."""
    chosen = metric_of(metric)
    about = {"units": chosen.units, "source": SOURCE}
    meaning = f"change of the {chosen.long_name}"
    data = {
        "effect": label(change, ("batch", *dims), long_name=meaning, **about),
        "base": label(base, ("batch",), long_name=chosen.long_name, **about),
    }
    index = {dim: range(size) for dim, size in zip(dims, change.shape[1:])}
    return xr.Dataset(data, {**_of_batch(prompts), **index})


def _of_batch(prompts: xr.Dataset) -> dict:
    """Return the coordinates that say something of each prompt."""
    return {name: prompts[name] for name in prompts.coords if prompts[name].dims == ("batch",)}

"""Path patching: prompts in, the effect of every sender along one kind of path out.

    scores = path_patch(model, prompts, receivers=[(2, 1)], via="q")
    scores.relative.mean("batch")                                # (layer, head)

Patching a head shows all that its output causes, by any route. Path patching keeps one route: from
a sender straight to the queries, keys or values of chosen later heads, or straight to the logits.
All other heads are frozen, so no path leads through a third head; MLPs on the way are recomputed,
as in the paper, or frozen as well.
Source: Wang et al. 2022, arXiv 2211.00593.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import xarray as xr

from nnheads.errors import BadInput
from nnheads.models.geometry import Geometry, geometry, model_spec
from nnheads.models.names import head_name
from nnheads.patching import cells as which
from nnheads.patching.metrics import Metric, evaluate, metric_of
from nnheads.patching.path_ends import (
    Heads,
    Receivers,
    path_positions,
    receivers_of,
    senders_of,
)
from nnheads.patching.prepared import PreparedSweep, prepare
from nnheads.patching.readings import Readings, collected
from nnheads.patching.scores import SOURCE, batch_coordinates
from nnheads.patching.targets import chosen_regions
from nnheads.trace.paths import paths
from nnheads.trace.plain import Cells, PathOptions, PathTask
from nnheads.trace.sites import UPTAKE

MLPS = {
    "recompute": "MLPs between sender and receiver pass the change on",
    "freeze": "MLPs are frozen too, so that only the direct path is left",
}


def path_patch(
    model,
    prompts: xr.Dataset,
    *,
    receivers: Heads | None = None,
    via: str = "q",
    senders: Heads | None = None,
    at: str | None = None,
    by_position: bool = False,
    mlps: str = "recompute",
    metric: str | Callable = "logit_difference",
    tokens: int | None = None,
) -> xr.Dataset:
    """Measure what each sender does along its paths to the receivers, and along no other.

    The sender gets its output on the corrupted text, every other head keeps that on the clean text,
    and what the receivers then get is put into a clean run. As heads are frozen, a change stays at
    its position: a sender matters only where the receivers take something up, so one position,
    `at`, describes both ends of a path.

    Args:
        prompts: pairs (batch, position) whose corrupted text breaks what the clean one has, usually
            `ioi(..., corruption="abc")`.
        receivers: (layer, head) of later heads, all at once; None for the final residual stream,
            i.e. the logits.
        via: by what the receivers take up: "q", "k" or "v". Keys and values are those of the
            receivers' key/value heads, which serve other heads too; attrs name them.
        senders: (layer, head), one at a time; default every head that some receiver can take up.
        at: a role such as "S2" at which the path runs; default all positions at once. by_position:
            each by itself.
        mlps: a key of MLPS. metric, tokens: as for `patch`.

    Returns:
        `<metric>`, `change` (after minus before, in the metric's units), `relative` (change over
        before; negative: the path helped), float32, (batch, layer, head[, position]); NaN for heads
        that are no senders. `base_<metric>` and `new_<metric>` (batch): the clean and the corrupted
        text's.

    Raises:
        BadInput: heads, roles or options that do not exist; senders that stand in or above the
            highest layer of the receivers.
        RunError: logits that are not finite.

    Source: Wang et al. 2022, arXiv 2211.00593.

    Example:
        >>> model = nnheads.load()
        >>> prompts = nnheads.ioi(model.tokenizer, n=2, seed=0, corruption="abc")
        >>> scores = nnheads.path_patch(model, prompts, receivers=[(1, 0)], senders=[(0, 1)])
        >>> scores.change.dims
        ('batch', 'layer', 'head')
    """
    sizes, chosen = geometry(model), metric_of(metric)
    check_pairs(prompts)
    check_mlps(mlps)
    receiving = receivers_of(receivers, via, sizes)
    sending = senders_of(senders, receiving, sizes)
    regions = chosen_regions(prompts, by_position, at)
    regions, positions = path_positions(prompts, regions, receiving, via, sizes.layers)
    cells = which.groups([[head] for head in sending], regions)
    plan = prepare(model, prompts, cells, source="corrupted", full=chosen.full, tokens=tokens)
    path = PathOptions(
        spec=model_spec(model),
        via=via if receiving else None,
        receivers=receiving,
        freeze=mlps == "freeze",
    )
    readings = run(model, plan, positions, path)
    changed = by_sender(prompts, readings, chosen, sending, sizes, by_position)
    scores = with_changes(changed, readings, chosen)
    scores.attrs.update(attributes(receiving, via, at, mlps), metric=chosen.name)
    if receivers is not None:
        scores.attrs["receivers_asked"] = "+".join(head_name(*head) for head in receivers)
    return scores


def check_pairs(prompts: xr.Dataset) -> None:
    """Refuse prompts that have no corrupted text."""
    if "corrupted" not in prompts:
        raise BadInput(
            "path patching needs pairs: these prompts have no corrupted text that senders could"
            " get their output from"
        )


def check_mlps(mlps: str) -> None:
    """Refuse a treatment of MLPs that is not known."""
    if mlps not in MLPS:
        raise BadInput(f"mlps {mlps!r} is not possible; use {' or '.join(MLPS)}")


def attributes(receiving: Receivers, via: str, at: str | None, mlps: str) -> dict[str, str]:
    """Return what the scores say about their paths."""
    letters = "H" if via == "q" else "KV"
    names = [f"L{layer}{letters}{unit}" for layer, units in receiving.items() for unit in units]
    return {
        "receivers": "+".join(names) or "logits",
        "via": UPTAKE[via] if receiving else "final residual stream",
        "at": at or "all positions",
        "mlps": mlps,
        "meaning": MLPS[mlps],
    }


def run(
    model, plan: PreparedSweep, positions: torch.Tensor | None, options: PathOptions
) -> Readings:
    """Run both changed runs of every cell in one session."""
    assert plan.source is not None, "a path needs a source"
    cells: Cells = {**plan.task["cells"], "positions": positions}
    task = PathTask(cells=cells, request=plan.task["request"], options=options, given={})
    return collected(plan, *paths(model, plan.inputs, plan.source, task))


def with_changes(scores: xr.DataArray, readings: Readings, metric: Metric) -> xr.Dataset:
    """Return the metric after each change (batch, layer, head[, position]), and its change."""
    result = scores.astype("float32").to_dataset(name=metric.name)
    for name, text, values in (
        ("base", "clean text", readings.unchanged),
        ("new", "corrupted text", readings.source),
    ):
        result[f"{name}_{metric.name}"] = of_text(metric, readings, values, text)
    before = result[f"base_{metric.name}"]
    change = scores - before
    result["change"], result["relative"] = change, change / before.where(before != 0)
    for name, text, unit in (
        (metric.name, f"{metric.long_name}, with the path changed", metric.units),
        ("change", f"change of {metric.long_name} along the path", metric.units),
        ("relative", "change along the path over the unchanged value", "1"),
    ):
        own = result[name].transpose(*scores.dims).astype("float32")
        result[name] = own.assign_attrs(units=unit, source=SOURCE, long_name=text)
    return result


def by_sender(
    prompts: xr.Dataset,
    readings: Readings,
    metric: Metric,
    senders: Heads,
    sizes: Geometry,
    by_position: bool,
) -> xr.DataArray:
    """Return the metric after each sender's change; NaN for heads that are no senders."""
    each = evaluate(metric, readings, readings.swapped).unflatten(0, (len(senders), -1))
    changed = each.permute(2, 0, 1).numpy()
    shape = (len(changed), sizes.layers, sizes.heads, changed.shape[-1])
    values = np.full(shape, np.nan, np.float32)
    layer, head = np.array(senders).T
    values[:, layer, head] = changed
    dims = ("batch", "layer", "head", "position")
    scores = xr.DataArray(values, dims=dims)
    scores = scores.where(prompts["mask"].astype(bool)) if by_position else scores.isel(position=0)
    index = {name: list(range(scores.sizes[name])) for name in dims[1:] if name in scores.dims}
    return scores.assign_coords({**batch_coordinates(prompts), **index})


def of_text(
    metric: Metric, readings: Readings, values: torch.Tensor | None, text: str
) -> xr.DataArray:
    """Return the metric of a text as it is, (batch)."""
    assert values is not None, "both texts are read"
    about = {"units": metric.units, "source": SOURCE, "long_name": f"{metric.long_name}, {text}"}
    return xr.DataArray(evaluate(metric, readings, values).numpy(), dims="batch", attrs=about)

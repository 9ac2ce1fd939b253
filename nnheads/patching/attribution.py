"""Attribution patching: what exact patching would find, estimated from one gradient.

    scores = attribute(model, prompts, method="atp*")
    scores["size"].mean("batch")                                 # (layer, head), to rank by

The estimate of swapping an activation is (source - own) . d metric / d activation, taken at the run
that is changed: the first order of the change that `patch` measures exactly (metric after the swap
minus metric before), with the same sign. It is exact where the metric is linear in the site, and a
screen everywhere else: see `screening`, which verifies it. What lies behind another layer's sharp
attention is underestimated by both methods: only the attention that the swapped queries or keys
enter themselves is computed again.
Sources: Nanda 2023, "Attribution patching"; Syed et al. 2023, arXiv 2310.10348 (AtP); Kramar et al.
2024, arXiv 2403.00745 (AtP*: the query and key fix, GradDrop).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from nnheads.errors import BadInput, RunError
from nnheads.models.labels import check_finite
from nnheads.patching.direction import Direction, direction_of
from nnheads.patching.metrics import Metric, evaluate, metric_of
from nnheads.patching.patch import plan_patch
from nnheads.patching.prepared import PreparedSweep
from nnheads.patching.readings import of_one_run
from nnheads.patching.scores import batch_coordinates, of_case, on_axes
from nnheads.patching.targets import Axes
from nnheads.trace import gradients as backward
from nnheads.trace.plain import GradientOptions, Request
from nnheads.trace.session import remote_of
from nnheads.trace.sites import SITES

METHODS = {
    "atp": "attribution patching",
    "atp*": "attribution patching with recomputed attention and GradDrop",
}
SOURCES = {
    "atp": "Nanda 2023, Attribution patching; arXiv 2310.10348",
    "atp*": "Kramar et al. 2024, arXiv 2403.00745",
}
# in the readings: their derivative needs no run
LINEAR = ("logit_difference", "logit", "log_probability")


def attribute(
    model,
    prompts: xr.Dataset,
    *,
    method: str = "atp*",
    site: str = "z",
    layers: Sequence[int] | None = None,
    by_position: bool = False,
    at: str | None = None,
    noising: bool = False,
    metric: str | Callable = "logit_difference",
    trusted: bool = False,
) -> xr.Dataset:
    """Estimate what `patch` would find, without a run for each swap.

    Args:
        prompts: pairs (batch, position), as for `patch`.
        site, layers, by_position, at, noising: as for `patch`; every site but "pattern".
        method: "atp", or "atp*": for queries and keys, attention is computed again with the
            source's, because the softmax saturates; and `size` is the mean over |estimate| with the
            residual contribution of one layer (attention and MLP) cut off at a time, because direct
            and indirect effects cancel. Keys are swapped as `patch` swaps them: all of a head's
            together, or with `by_position` one alone, so that the estimates of single keys do not
            add up to that of all (and the scores of all layers are held: layers x heads x positions
            squared).
        metric: a key of `patching.metrics.METRICS` that has a gradient, or a function from the
            answers' logits [..., answer] to [...].
        trusted: the model's server runs gradients, which NDIF does for trusted keys only.

    Returns:
        float32 (batch, layer[, head or kv_head][, position]), in the metric's units: `estimate` of
        the metric's change, signed, and `size`, at least 0, to rank by: |estimate| for "atp".
        `clean_<metric>` and `corrupted_<metric>` (batch).

    Raises:
        BadInput: unknown method, site, layer, role or metric, a metric without gradient.
        RunError: a server that runs no gradients, logits or gradients that are not finite.

    Source: Nanda 2023; arXiv 2310.10348; arXiv 2403.00745.

    Example:
        >>> model = nnheads.load()
        >>> prompts = nnheads.ioi(model.tokenizer, n=2, seed=0)
        >>> scores = nnheads.attribute(model, prompts, layers=[3])
        >>> scores.estimate.dims
        ('batch', 'layer', 'head')
    """
    check_method(method)
    check_trust(remote_of(model), trusted)
    check_estimable(site)
    chosen, direction = metric_of(metric), direction_of(noising)
    plan, axes = plan_patch(
        model,
        prompts,
        site=site,
        layers=layers,
        by_position=by_position,
        at=at,
        direction=direction,
        full=chosen.full,
    )
    options = gradient_options(plan, axes, method, by_position)
    where = prompts["mask"].values.astype(bool) if by_position else plan.cells.regions[0]
    changes, texts = estimate(model, chosen, plan, where, options)
    scores = labelled(prompts, changes, chosen, axes, method)
    scores = scores.assign(texts_read(plan, chosen, direction, texts))
    scores.attrs.update(method=method, method_meaning=METHODS[method], site=site)
    scores.attrs.update(site_meaning=SITES[site]["meaning"], metric=chosen.name)
    return scores.assign_attrs(direction=direction.name)


def texts_read(
    plan: PreparedSweep, metric: Metric, direction: Direction, texts: list[torch.Tensor]
) -> dict[str, xr.DataArray]:
    """Return the metric of the text that is changed and of the source, (batch) each."""
    scores = {}
    for name, values in zip((direction.changed, direction.source), texts):
        own = of_one_run(plan, values)
        scores[f"{name}_{metric.name}"] = of_case(metric, own, own.unchanged, name)
    return scores


def check_method(method: str) -> None:
    """Refuse a method that is not known."""
    if method not in METHODS:
        raise BadInput(f"method {method!r} is not known; use one of {', '.join(METHODS)}")


def check_estimable(site: str) -> None:
    """Refuse a site that has no estimate."""
    if site == "pattern":
        raise BadInput(
            "attention weights have no estimate of their own here; use site q, k or z, or patch the"
            " pattern"
        )


def check_trust(remote: bool | str | None, trusted: bool) -> None:
    """Refuse a server before anything is sent to it: a sandbox would fail far from the cause."""
    if remote and remote != "local" and not trusted:
        raise RunError(
            "gradients do not run in NDIF's sandbox; use remote='local', trusted=True (--trusted)"
            " with a key that the server trusts, or the exact sweep (patch)"
        )


def gradient_options(
    plan: PreparedSweep, axes: Axes, method: str, by_position: bool
) -> GradientOptions:
    """Return what is estimated, as a trace takes it."""
    options = plan.task["options"]
    return GradientOptions(
        site=options["site"],
        spec=options["spec"],
        layers=[int(layer) for layer in axes["layer"]],
        fix=method == "atp*",
        drop=method == "atp*",
        each=by_position,
    )


def estimate(
    model, metric: Metric, plan: PreparedSweep, where: np.ndarray, options: GradientOptions
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return estimates and sizes [layer, case, unit, place], and the readings of both texts.

    where: [case, position], which positions are swapped.
    """
    assert plan.source is not None, "a pair has two texts"
    request: Request = {**plan.task["request"], "reference": None}
    slope = derivative(model, metric, plan, request, options)
    swapped = torch.from_numpy(where)
    *changes, own, other = backward.attribute(
        model, plan.inputs, plan.source, request, slope, swapped, options
    )
    check_finite(own, "the model's logits")
    for values in changes:
        check_finite(values, "the gradients")
    return changes, [own, other]


def derivative(
    model, metric: Metric, plan: PreparedSweep, request: Request, options: GradientOptions
) -> Float[torch.Tensor, "case question reading"]:
    """Return d metric / d reading at the run that is changed; the metric itself never travels.

    Metrics that are linear in the readings need no run for it.

    Raises BadInput for a metric that is flat, has steps, or counts what has no gradient.
    """
    count = plan.answers
    if metric.name in LINEAR:
        shape, width = request["answers"].shape[:-1], 2 * count + 2 if request["full"] else count
        values = torch.zeros(*shape, width)
    else:
        values = backward.readings(model, plan.inputs, request, options).cpu().float()
    slope = slope_of(metric, plan, values)
    # ranks and divergences are readings too, but the run has no gradient there
    if not bool(slope[..., :count].any()):
        raise BadInput(
            f"metric {metric.name} has no gradient at the unchanged run; use one of"
            f" {', '.join(LINEAR)}, probability, or the exact sweep (patch)"
        )
    return slope


def slope_of(
    metric: Metric, plan: PreparedSweep, values: Float[torch.Tensor, "case question reading"]
) -> Float[torch.Tensor, "case question reading"]:
    """Return the metric's derivative by each reading; 0 where it has none."""
    values.requires_grad_(True)
    with torch.enable_grad():
        total = evaluate(metric, of_one_run(plan, values), values).sum()
        if not total.requires_grad:
            return torch.zeros_like(values)
        return torch.autograd.grad(total, values)[0]


def labelled(
    prompts: xr.Dataset, changes: list[torch.Tensor], metric: Metric, axes: Axes, method: str
) -> xr.Dataset:
    """Return estimates and sizes [layer, case, unit, place] as `estimate` and `size`."""
    names = {
        "estimate": f"estimated change of {metric.long_name}",
        "size": f"size of the change of {metric.long_name}",
    }
    data = {}
    for (name, meaning), values in zip(names.items(), changes):
        about = {"long_name": meaning, "units": metric.units, "source": SOURCES[method]}
        data[name] = on_axes(values.movedim(1, 0), prompts, axes, **about)
    scores = xr.Dataset(data).astype("float32")
    return scores.assign_coords({**batch_coordinates(prompts), **axes})

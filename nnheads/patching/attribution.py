"""Attribution patching: what exact patching would find, estimated for all heads and layers from one
gradient.

The estimate of swapping an activation is (donor - base) . d metric / d activation, taken at the
base run: the first order of the change that `patch` measures exactly (metric after the swap minus
    metric before), with the same sign. It is
exact where the metric is linear in the site, and a screen everywhere else: see `screening`, which
verifies it. What lies behind another layer's sharp attention is underestimated by both methods:
only the attention that the swapped queries or keys enter themselves is computed again.
Sources: Nanda 2023, "Attribution patching"; Syed et al. 2023, arXiv 2310.10348 (AtP); Kramar et al.
    2024,
arXiv 2403.00745 (AtP*: the query and key fix, GradDrop).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import xarray as xr

from nnheads.errors import BadInput, RunError
from nnheads.models.labels import check_finite, label
from nnheads.patching.direction import direction_of
from nnheads.patching.metrics import Metric, evaluate, metric_of
from nnheads.patching.patch import plan_patch
from nnheads.patching.readings import Job, Readings
from nnheads.trace import gradients as backward
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
LINEAR = (
    "logit_difference",
    "logit",
    "log_probability",
)  # in the readings: their derivative needs no run


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
        prompts, site, layers, by_position, at, noising: as for `patch`; every site but "pattern".
        method: "atp", or "atp*": for queries and keys, attention is computed again with the
            donor's, because the softmax saturates; and `size` is the mean over |estimate| with the
            residual contribution of one layer (attention and feed-forward part) cut off at a time,
            because direct and indirect effects cancel. Keys are
            swapped as `patch` swaps them: all of a head's together, or with `by_position` one
                alone, so that the
            estimates of single keys do not add up to that of all (and the scores of all layers are
            held: layers x heads x positions squared).
        metric: a key of `patching.metrics.METRICS` that has a gradient, or a function from the
            answers' logits [..., answer] to [...].
        trusted: the server of `remote` runs gradients, which NDIF does for trusted keys only.

    Returns:
        float32 (batch, layer[, head or kv_head][, position]): `estimate` of the metric's change,
        signed, and `size`, at
        least 0, to rank by: |estimate| for "atp". `clean_<metric>` and `corrupted_<metric>`
            (batch).

    Raises:
        BadInput: unknown method, site, layer, role or metric, a metric without gradient. RunError:
            a server that runs no gradients, logits or gradients that are not finite.
    """
    check_method(method)
    check_remote(remote_of(model), trusted)
    if site == "pattern":
        raise BadInput(
            "attention weights have no estimate of their own here; use site q, k or z, or patch the"
            " pattern"
        )
    chosen = metric_of(metric)
    job, axes = plan_patch(
        model,
        prompts,
        site=site,
        layers=layers,
        groups=None,
        by_position=by_position,
        at=at,
        noising=noising,
        full=chosen.full,
        tokens=None,
    )
    where = prompts["mask"].values.astype(bool) if by_position else job.cells.places[0]
    how = {
        "site": site,
        "form": job.how["form"],
        "layers": [int(layer) for layer in axes["layer"]],
        "fix": method == "atp*",
        "drop": method == "atp*",
        "each": by_position,
    }
    ask = {**job.ask, "reference": None}
    slope = derivative(model, chosen, job, ask, how)
    assert job.source is not None, "a pair has two runs"
    *found, base, source = backward.attribute(
        model, job.base, job.source, ask, slope, torch.from_numpy(where), how
    )
    check_finite(base, "the model's logits")
    for values in found:
        check_finite(values, "the gradients")
    scores = labelled(prompts, found, chosen, axes, method)
    direction = direction_of(noising)
    for name, values in ((direction.changed, base), (direction.source, source)):
        own = evaluate(chosen, reading_of(job, values), values.cpu())
        about = {"long_name": f"{chosen.long_name}, {name}", "units": chosen.units}
        scores[f"{name}_{chosen.name}"] = label(own, ("batch",), **about)
    scores.attrs.update(
        method=method,
        method_meaning=METHODS[method],
        site=site,
        site_meaning=SITES[site],
        metric=chosen.name,
        direction=direction.name,
    )
    return scores


def check_method(method: str) -> None:
    if method not in METHODS:
        raise BadInput(f"method {method!r} is not known; use one of {', '.join(METHODS)}")


def check_remote(remote: bool | str, trusted: bool) -> None:
    """Refuse a server before anything is sent to it: a sandbox would fail far from the cause."""
    if remote and remote != "local" and not trusted:
        raise RunError(
            "gradients do not run in NDIF's sandbox; use remote='local', trusted=True (--trusted)"
            " with a key that the server trusts, or the exact sweep (patch)"
        )


def derivative(model, metric: Metric, job: Job, ask: dict, how: dict) -> torch.Tensor:
    """d metric / d reading at the base run, [case, question, reading]. Metrics that are linear in
    the readings need no run for it; the metric itself never travels.

    Raises BadInput for a metric that is flat, has steps, or counts what has no gradient.
    """
    answers = ask["answers"]
    count = answers.shape[-1]
    if metric.name in LINEAR:
        values = torch.zeros(*answers.shape[:-1], 2 * count + 2 if ask["full"] else count)
    else:
        values = backward.readings(model, job.base, ask, how).cpu().float()
    values.requires_grad_(True)
    with torch.enable_grad():
        found = evaluate(metric, reading_of(job, values), values).sum()
        slope = (
            torch.autograd.grad(found, values)[0]
            if found.requires_grad
            else torch.zeros_like(values)
        )
    if not bool(
        slope[..., :count].any()
    ):  # ranks and divergences are readings too, but the run has no gradient there
        raise BadInput(
            f"metric {metric.name} has no gradient at the unchanged run; use one of"
            f" {', '.join(LINEAR)}, probability, or the exact sweep (patch)"
        )
    return slope


def reading_of(job: Job, values: torch.Tensor) -> Readings:
    """Readings of one run, as `evaluate` takes them."""
    values = values.cpu()
    return Readings(values, values, None, job.asked, job.ask["answers"].shape[-1])


def labelled(
    prompts: xr.Dataset,
    found: list[torch.Tensor],
    metric: Metric,
    axes: dict[str, list],
    method: str,
) -> xr.Dataset:
    """Estimates and sizes [layer, case, unit, place] as `estimate` and `size` (batch, *axes)."""
    dims = ("batch", *axes)
    names = {
        "estimate": f"estimated change of {metric.long_name}",
        "size": f"size of the change of {metric.long_name}",
    }
    data = {}
    for (name, meaning), values in zip(names.items(), found):
        values = values.movedim(1, 0).reshape(
            values.shape[1], *(len(index) for index in axes.values())
        )
        data[name] = label(
            values, dims, long_name=meaning, units=metric.units, source=SOURCES[method]
        )
    scores = xr.Dataset(data)
    if "position" in axes:
        scores = scores.where(prompts["mask"].astype(bool))  # padding is no position of the prompt
    batch = {name: prompts[name] for name in prompts.coords if prompts[name].dims == ("batch",)}
    return scores.astype("float32").assign_coords({**batch, **axes})

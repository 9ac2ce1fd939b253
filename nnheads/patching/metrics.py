"""Metrics: what a run is worth, computed from the logits of the answers.

evaluate(metric_of("logit_difference"), readings, readings.swapped)      # [cell, case]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from nnheads.errors import BadInput, RunError
from nnheads.patching.readings import Readings, Values


@dataclass(frozen=True)
class Metric:
    """A number for each question.

    of: from named readings (see `Readings.named`). full: how much of the vocabulary it needs, see
    `trace.plain.Request`. pair: it needs a wrong answer to compare with. ends: of its range.
    """

    name: str
    of: Callable[[dict[str, torch.Tensor]], torch.Tensor]
    long_name: str
    units: str
    full: int = 0
    pair: bool = False
    ends: tuple[float, ...] = ()


METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            "logit_difference",
            lambda read: read["logit"][..., 0] - read["logit"][..., 1],
            "logit(answer) - logit(wrong)",
            "logit",
            pair=True,
        ),
        Metric("logit", lambda read: read["logit"][..., 0], "logit of the answer", "logit"),
        Metric(
            "log_probability",
            lambda read: read["logit"][..., 0] - read["total"],
            "log-probability of the answer",
            "nat",
            full=1,
        ),
        Metric(
            "probability",
            lambda read: (read["logit"][..., 0] - read["total"]).exp(),
            "probability of the answer",
            "1",
            full=1,
            ends=(0.0, 1.0),
        ),
        Metric(
            "rank",
            lambda read: read["rank"][..., 0],
            "rank of the answer, 0 is the highest",
            "1",
            full=1,
            ends=(0.0,),
        ),
        Metric(
            "accuracy",
            lambda read: (read["rank"][..., 0] == 0).float(),
            "share of answers that are the model's first choice",
            "1",
            full=1,
            ends=(0.0, 1.0),
        ),
        Metric(
            "kl", lambda read: read["divergence"], "KL(unchanged || changed run)", "nat", full=2
        ),
    )
}


def metric_of(metric: str | Callable) -> Metric:
    """Return a metric by name, or from a function of the answers' logits [..., answer] to [...]."""
    if isinstance(metric, str):
        if metric not in METRICS:
            raise BadInput(
                f"metric {metric!r} is not known; use one of {', '.join(METRICS)}, or a function"
            )
        return METRICS[metric]
    name = getattr(metric, "__name__", "metric").strip("<>")
    return Metric(name, lambda read: metric(read["logit"]), f"{name} of the answers' logits", "1")


def evaluate(
    metric: Metric, readings: Readings, values: Values
) -> Float[torch.Tensor, "*run case"]:
    """Return the metric of readings, averaged over a case's questions.

    Raises:
        BadInput: a metric that needs two answers, or returns another shape.
        RunError: a metric that returns NaN.
    """
    if metric.pair and readings.answers < 2:
        raise BadInput(
            f"{metric.name} compares two answers; these prompts have one: try log_probability or"
            " accuracy"
        )
    each = metric.of(readings.named(values))
    check_shape(metric, each, values)
    asked = torch.from_numpy(readings.questions)
    missing = int((each.isnan() & asked).sum())
    if missing:
        raise RunError(f"metric {metric.name} is not a number in {missing} of {each.numel()} runs")
    return each.float().where(asked, 0).sum(-1) / asked.sum(-1)


def check_shape(metric: Metric, each: object, values: Values) -> None:
    """Refuse what a metric returned if it is not one number for each question."""
    if isinstance(each, torch.Tensor) and each.shape == values.shape[:-1]:
        return
    shape = tuple(each.shape) if isinstance(each, torch.Tensor) else type(each).__name__
    raise BadInput(
        f"metric {metric.name} returned {shape} for logits {tuple(values.shape)}; expected one"
        " number each"
    )


def normalised_effect(
    swapped: xr.DataArray, before: xr.DataArray, after: xr.DataArray, threshold: float
) -> xr.DataArray:
    """Return (swapped - before) / (after - before) per case (batch, ...).

    0 changed nothing, 1 carried the whole difference over. It is not bounded: a head that works
    against the answer is below 0, overshooting is above 1. Cases whose gap is below `threshold` say
    nothing and become NaN; attrs count them as `cases_masked`.
    """
    gap = after - before
    usable = (np.abs(gap) >= threshold) & (gap != 0)
    effect = ((swapped - before) / gap.where(usable)).astype("float32")
    effect.attrs = {"long_name": "normalised effect", "units": "1"}
    effect.attrs.update(cases_masked=int((~usable).sum()), gap_threshold=threshold)
    return effect.rename("effect")

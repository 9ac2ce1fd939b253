"""What a run is worth: numbers computed from the logits of the answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr

from nnheads.errors import BadInput, RunError
from nnheads.patching.readings import Readings


@dataclass(frozen=True)
class Metric:
    """`of` turns named readings (see `Readings.named`) into one value per question. `full`: it
    needs the logits of
    the whole vocabulary. `pair`: it needs a wrong answer to compare with."""

    name: str
    of: Callable[[dict[str, torch.Tensor]], torch.Tensor]
    long_name: str
    units: str
    full: bool = False
    pair: bool = False


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
            full=True,
        ),
        Metric(
            "probability",
            lambda read: (read["logit"][..., 0] - read["total"]).exp(),
            "probability of the answer",
            "1",
            full=True,
        ),
        Metric(
            "rank",
            lambda read: read["rank"][..., 0],
            "rank of the answer, 0 is the highest",
            "1",
            full=True,
        ),
        Metric(
            "accuracy",
            lambda read: (read["rank"][..., 0] == 0).float(),
            "share of answers that are the model's first choice",
            "1",
            full=True,
        ),
        Metric(
            "kl", lambda read: read["divergence"], "KL(unchanged || changed run)", "nat", full=True
        ),
    )
}


def metric_of(metric: str | Callable) -> Metric:
    """A metric by name, or a function from the answers' logits [..., answer] to [...]."""
    if isinstance(metric, str):
        if metric not in METRICS:
            raise BadInput(
                f"metric {metric!r} is not known; use one of {', '.join(METRICS)}, or a function"
            )
        return METRICS[metric]
    name = getattr(metric, "__name__", "metric").strip("<>")
    return Metric(name, lambda read: metric(read["logit"]), f"{name} of the answers' logits", "1")


def evaluate(metric: Metric, readings: Readings, values: torch.Tensor) -> torch.Tensor:
    """The metric of readings [..., case, question, reading], averaged over a case's questions:
    [..., case].

    Raises BadInput for a metric that needs two answers or returns another shape, RunError for one
    that returns NaN.
    """
    if metric.pair and readings.answers < 2:
        raise BadInput(
            f"{metric.name} compares two answers; these prompts have one: try log_probability or"
            " accuracy"
        )
    found = metric.of(readings.named(values))
    if not isinstance(found, torch.Tensor) or found.shape != values.shape[:-1]:
        shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise BadInput(
            f"metric {metric.name} returned {shape} for logits {tuple(values.shape)}; expected one"
            " number each"
        )
    asked = torch.from_numpy(readings.asked)
    missing = int((found.isnan() & asked).sum())
    if missing:
        raise RunError(f"metric {metric.name} is not a number in {missing} of {found.numel()} runs")
    return found.float().where(asked, 0).sum(-1) / asked.sum(-1)


def normalised_effect(
    swapped: xr.DataArray, base: xr.DataArray, donor: xr.DataArray, threshold: float
) -> xr.DataArray:
    """(swapped - base) / (donor - base) per case: 0 changed nothing, 1 carried the whole difference
    over.

    It is not bounded: a head that works against the answer is below 0, overshooting is above 1.
        Cases whose
    gap is below `threshold` say nothing and become NaN; attrs count them as `cases_masked`.
    """
    gap = donor - base
    usable = (np.abs(gap) >= threshold) & (gap != 0)
    effect = ((swapped - base) / gap.where(usable)).astype("float32")
    effect.attrs = {"long_name": "normalised effect", "units": "1"}
    effect.attrs.update(cases_masked=int((~usable).sum()), gap_threshold=threshold)
    return effect.rename("effect")

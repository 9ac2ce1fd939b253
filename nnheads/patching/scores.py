"""Metrics of readings as labelled datasets: (batch, layer, head, ...).

scores = labelled(prompts, readings, metric_of("logit_difference"), axes)
"""

from __future__ import annotations

import torch
import xarray as xr

from nnheads.models.labels import label
from nnheads.patching.metrics import Metric, evaluate
from nnheads.patching.readings import Readings, Values
from nnheads.patching.targets import Axes

SOURCE = "Wang et al. 2022, arXiv 2211.00593"


def labelled(prompts: xr.Dataset, readings: Readings, metric: Metric, axes: Axes) -> xr.Dataset:
    """Return the metric after each swap, (batch, *axes)."""
    values = evaluate(metric, readings, readings.swapped).T
    about = f"{metric.long_name}, after the swap"
    scores = on_axes(values, prompts, axes, long_name=about, units=metric.units, source=SOURCE)
    dataset = scores.astype("float32").to_dataset(name=metric.name)
    return dataset.assign_coords({**batch_coordinates(prompts), **axes})


def on_axes(values: torch.Tensor, prompts: xr.Dataset, axes: Axes, **about: str) -> xr.DataArray:
    """Return values [case, cell] as (batch, *axes); NaN at positions that are padding."""
    whole = values.reshape(-1, *(len(index) for index in axes.values()))
    scores = label(whole, ("batch", *axes), **about)
    return scores.where(prompts["mask"].astype(bool)) if "position" in axes else scores


def of_case(metric: Metric, readings: Readings, values: Values | None, text: str) -> xr.DataArray:
    """Return the metric of a plain run of a text, (batch)."""
    assert values is not None, "only mixed sources are not read"
    each = evaluate(metric, readings, values)
    return label(each, ("batch",), long_name=f"{metric.long_name}, {text}", units=metric.units)


def batch_coordinates(prompts: xr.Dataset) -> dict:
    """Return the coordinates of the prompts that belong to each case alone."""
    return {name: prompts[name] for name in prompts.coords if prompts[name].dims == ("batch",)}

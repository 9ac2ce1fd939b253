"""From what a trace measured to labelled statistics of each case, layer, head and kind of span."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr

from nnheads.errors import BadInput
from nnheads.models.labels import check_finite, label
from nnheads.spans.nulls import NULL

STATISTICS = {
    "mass": "attention mass on the target",
    "above": "share of queries with more than the threshold on the target",
    "hit": "share of queries whose strongest key is the target",
}


DIMS = ("batch", "layer", "head", "kind")
NULL_MEANING = {
    "mass": "attention mass on random targets of the same queries",
    "hit": "share of random targets of the same queries that are the strongest key",
}


def labelled(
    values: torch.Tensor,
    spans: xr.Dataset,
    kinds: list[str],
    weights: np.ndarray,
    missing: xr.DataArray,
    threshold: float,
) -> xr.Dataset:
    """Return statistics [statistic, batch, layer, head, kind] as the dataset of `measure`.

    They come in the order of STATISTICS; the uniform null is put beside them. `weights` and
    `missing` are those of `weights_of`.
    """
    check_finite(values, "attention scores")
    data = {}
    for one, (name, meaning) in zip(values, STATISTICS.items()):
        each = label(one, DIMS, long_name=meaning, units="1", valid_min=0.0, valid_max=1.0)
        data[name] = each.where(~missing)
    data["above"].attrs["threshold"] = threshold
    data["uniform"] = _uniform(spans, weights, data["mass"]).where(~missing)
    coordinates = {name: spans[name] for name in spans.coords if spans[name].dims == ("batch",)}
    index = {"layer": list(range(values.shape[2])), "head": list(range(values.shape[3]))}
    return xr.Dataset(data).assign_coords({**coordinates, **index, "kind": list(kinds)})


def kinds_of(prompts: xr.Dataset, kind: str, beside: tuple[str, ...] = ()) -> list[str]:
    """Return the kinds of span of a head type: its own, its null, those beside it, its steps."""
    present = list(dict.fromkeys(map(str, prompts["kind"].values)))
    steps = [name for name in present if name.startswith(f"{kind}@")]
    return [kind, *(name for name in (f"{kind}{NULL}", *beside, *steps) if name in present)]


def assemble(
    scores: xr.Dataset,
    kind: str,
    beside: tuple[str, ...],
    source: str,
    headline: str = "mass",
) -> xr.Dataset:
    """Return one kind's `mass`, `hit`, `above`, `uniform`, and the mass on what belongs to it.

    That is the mass on each kind beside it under that kind's name, and on its single steps as
    `by_step` (batch, layer, head, step). `null` is what its null spans get: mass, or hits where
    these are the headline, so that heads are flagged by what ranks them.
    """
    kinds, mass = [str(name) for name in scores["kind"].values], scores["mass"]
    own = scores.sel(kind=kind).drop_vars("kind")
    for name in beside:
        if name in kinds:
            meaning = f"attention mass on {name.replace('_', ' ')}"
            own[name] = mass.sel(kind=name).drop_vars("kind").assign_attrs(long_name=meaning)
    if f"{kind}{NULL}" in kinds:
        statistic = "hit" if headline == "hit" else "mass"
        null = scores[statistic].sel(kind=f"{kind}{NULL}").drop_vars("kind")
        own["null"] = null.assign_attrs(long_name=NULL_MEANING[statistic])
    steps = [name for name in kinds if name.startswith(f"{kind}@")]
    if steps:
        each = mass.sel(kind=steps).rename(kind="step").drop_vars("step")
        own["by_step"] = each.assign_attrs(long_name="attention mass at each step")
    for variable in own.data_vars.values():
        variable.attrs["source"] = source
    return own.assign_attrs(kind=kind)


def check_spans(spans: xr.Dataset) -> None:
    """Refuse spans that no head can attend to: empty, in the future or outside the prompt."""
    query, start, stop = (spans[name].values for name in ("query", "key_start", "key_stop"))
    if not (query >= 0).any():
        raise BadInput("the prompts have no spans")
    order = (start >= stop) | (stop > query + 1)
    outside = (start < _first(spans)) | (query >= spans.sizes["position"])
    wrong = (query >= 0) & (order | outside)
    if wrong.any():
        case, span = np.argwhere(wrong)[0]
        raise BadInput(
            f"span {span} of prompt {case} asks query {query[case, span]} about keys"
            f" {start[case, span]} to {stop[case, span]}; keys must be tokens of the prompt, at"
            " least one, none after the query"
        )


def weights_of(spans: xr.Dataset, kinds: list[str]) -> tuple[np.ndarray, xr.DataArray]:
    """Return averaging weights [batch, span, kind], and where an example has no span of a kind."""
    belongs = spans["kind"].values[:, None] == np.array(kinds)[None]
    each = (spans["query"].values >= 0)[:, :, None] & belongs[None]
    count = each.sum(1, keepdims=True)
    missing = xr.DataArray(count[:, 0] == 0, dims=("batch", "kind"))
    return (each / np.maximum(count, 1)).astype(np.float32), missing


def _first(spans: xr.Dataset) -> np.ndarray:
    """Return the first position of each prompt that is no padding, [batch, 1]."""
    return spans.sizes["position"] - spans["mask"].sum("position").values[:, None]


def _uniform(spans: xr.Dataset, weights: np.ndarray, like: xr.DataArray) -> xr.DataArray:
    """Return what a head that attends alike to every visible token would put on the spans."""
    query, start, stop = (spans[name].values for name in ("query", "key_start", "key_stop"))
    share = (stop - start) / np.maximum(query + 1 - _first(spans), 1)
    null = np.einsum("bs,bsk->bk", np.where(query >= 0, share, 0.0), weights)
    each = xr.DataArray(null.astype(np.float32), dims=("batch", "kind"))
    values = each.broadcast_like(like).transpose(*DIMS)
    meaning = "mass of a head that attends alike to all visible tokens"
    values.attrs = {"long_name": meaning, "units": "1"}
    return values

"""Attention to labelled spans as datasets: prompts with spans in, statistics per case, layer and
head out.
"""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr

from nnheads.errors import BadInput
from nnheads.models.answers import predicted
from nnheads.models.families import family
from nnheads.models.geometry import geometry
from nnheads.models.inputs import inputs
from nnheads.models.labels import check_finite, label
from nnheads.spans.layout import NULL
from nnheads.trace.spans import BLOCK_BYTES, SpanOptions, measure_spans

STATISTICS = {
    "mass": "attention mass on the target",
    "above": "share of queries with more than the threshold on the target",
    "hit": "share of queries whose strongest key is the target",
}
DIMS = ("batch", "layer", "head", "kind")


def measure(
    model,
    prompts: xr.Dataset,
    *,
    kinds: list[str] | None = None,
    threshold: float = 0.5,
    hit: bool = True,
    block_bytes: int = BLOCK_BYTES,
) -> xr.Dataset:
    """One forward; the attention of every head to every kind of span in the prompts.

    Args:
        prompts: token, mask (batch, position) and spans: query, key_start, key_stop (batch, span),
            where query -1 marks a span that an example does not have; coordinate `kind` (span)
            names the set.
        kinds: which sets; default all.
        threshold: mass from which a query counts for `above`.
        hit: also find each row's strongest key. Without it, long unpadded prompts are much faster.
        block_bytes: memory for scores at a time.

    Returns:
        float32 (batch, layer, head, kind): `mass`, `above` and, if asked, `hit`, means over a
            kind's spans and
        between 0 and 1; `uniform`, the mass that a head attending alike to all visible tokens would
        have. NaN where an example has no span of a kind.

    Raises:
        BadInput: a kind that the prompts do not have, or spans that reach outside the prompt or the
            future.
    """
    present = list(dict.fromkeys(map(str, prompts["kind"].values)))
    kinds = present if kinds is None else kinds
    for kind in kinds:
        if kind not in present:
            raise BadInput(
                f"the prompts have no spans of kind {kind!r}; they have {', '.join(present)}"
            )
    spans = prompts.isel(span=np.isin(prompts["kind"].values, kinds))
    check_spans(spans)
    sizes = geometry(model)
    weights, missing = weights_of(spans, kinds)
    values = measure_spans(
        model,
        inputs(model, prompts),
        list(range(sizes.layers)),
        torch.stack(
            [
                torch.from_numpy(spans[name].values).long()
                for name in ("query", "key_start", "key_stop")
            ]
        ),
        torch.from_numpy(weights),
        SpanOptions(
            threshold=threshold,
            hit=hit,
            interface=family(model).interface,
            block_bytes=block_bytes,
        ),
    )
    return labelled(values.permute(1, 2, 0, 3, 4), spans, kinds, weights, missing, threshold)


def labelled(
    values: torch.Tensor,
    spans: xr.Dataset,
    kinds: list[str],
    weights: np.ndarray,
    missing: xr.DataArray,
    threshold: float,
) -> xr.Dataset:
    """Statistics [statistic, batch, layer, head, kind], in the order of STATISTICS, as the dataset
    that `measure` returns, with the uniform null beside them. `weights` and `missing` are those of
    `weights_of`."""
    check_finite(values, "attention scores")
    data = {
        name: (
            label(one, DIMS, long_name=meaning, units="1", valid_min=0.0, valid_max=1.0).where(
                ~missing
            )
        )
        for one, (name, meaning) in zip(values, STATISTICS.items())
    }
    data["above"].attrs["threshold"] = threshold
    data["uniform"] = _uniform(spans, weights, data["mass"]).where(~missing)
    coordinates = {name: spans[name] for name in spans.coords if spans[name].dims == ("batch",)}
    index = {"layer": range(values.shape[2]), "head": range(values.shape[3]), "kind": kinds}
    return xr.Dataset(data).assign_coords(
        {**coordinates, **{name: list(each) for name, each in index.items()}}
    )


def score(
    model, prompts: xr.Dataset, kind: str, *, source: str, beside: tuple[str, ...] = ()
) -> xr.Dataset:
    """Statistics (batch, layer, head) of one kind of span, from one forward: see `assemble`."""
    scores = measure(model, prompts, kinds=kinds_of(prompts, kind, beside))
    return assemble(scores, kind, beside, source).assign_coords(gate(model, prompts))


def kinds_of(prompts: xr.Dataset, kind: str, beside: tuple[str, ...] = ()) -> list[str]:
    """The kinds of span that a head type needs: its own, its null, those beside it, and its single
    steps.
    """
    present = list(dict.fromkeys(map(str, prompts["kind"].values)))
    steps = [name for name in present if name.startswith(f"{kind}@")]
    return [kind, *(name for name in (f"{kind}{NULL}", *beside, *steps) if name in present)]


def assemble(scores: xr.Dataset, kind: str, beside: tuple[str, ...], source: str) -> xr.Dataset:
    """One kind's `mass`, `hit`, `above`, `uniform`; the mass on its null spans as `null`, on each
    kind beside it under that kind's name, and on its single steps as `by_step` (batch, layer, head,
    step)."""
    kinds = [str(name) for name in scores["kind"].values]
    own = scores.sel(kind=kind).drop_vars("kind")
    extra = {f"{kind}{NULL}": ("null", "attention mass on random targets of the same queries")}
    extra |= {name: (name, f"attention mass on {name.replace('_', ' ')}") for name in beside}
    for name, (short, meaning) in extra.items():
        if name in kinds:
            own[short] = (
                scores["mass"].sel(kind=name).drop_vars("kind").assign_attrs(long_name=meaning)
            )
    steps = [name for name in kinds if name.startswith(f"{kind}@")]
    if steps:
        each = scores["mass"].sel(kind=steps).rename(kind="step").drop_vars("step")
        own["by_step"] = each.assign_attrs(long_name="attention mass at each step")
    for variable in own.data_vars.values():
        variable.attrs["source"] = source
    return own.assign_attrs(kind=kind)


def gate(model, prompts: xr.Dataset) -> dict:
    """`accuracy` (batch): share of the prompts' `target` tokens that the model itself predicts at
    `ask`; -1 fills up where an example wants fewer than others. Empty for prompts that ask for
    nothing."""
    if "ask" not in prompts:
        return {}
    wanted = prompts["ask"].values >= 0
    right = (predicted(model, prompts) == prompts["target"].values) & wanted
    about = {"long_name": "share of wanted tokens that the model predicts", "units": "1"}
    return {"accuracy": ("batch", (right.sum(1) / wanted.sum(1)).astype("float32"), about)}


def check_spans(spans: xr.Dataset) -> None:
    """Refuse spans that no head can attend to: empty, in the future, in the padding or outside the
    prompt.
    """
    query, start, stop = (spans[name].values for name in ("query", "key_start", "key_stop"))
    real = query >= 0
    if not real.any():
        raise BadInput("the prompts have no spans")
    first = spans.sizes["position"] - spans["mask"].sum("position").values[:, None]
    wrong = real & (
        (start >= stop) | (stop > query + 1) | (start < first) | (query >= spans.sizes["position"])
    )
    if wrong.any():
        case, span = np.argwhere(wrong)[0]
        raise BadInput(
            f"span {span} of prompt {case} asks query {query[case, span]} about keys"
            f" {start[case, span]} to {stop[case, span]}; keys must be tokens of the prompt, at"
            " least one, none after the query"
        )


def weights_of(spans: xr.Dataset, kinds: list[str]) -> tuple[np.ndarray, xr.DataArray]:
    """[batch, span, kind] averaging weights, and where an example has no span of a kind."""
    belongs = spans["kind"].values[:, None] == np.array(kinds)[None]
    each = (spans["query"].values >= 0)[:, :, None] & belongs[None]
    count = each.sum(1, keepdims=True)
    return (each / np.maximum(count, 1)).astype(np.float32), xr.DataArray(
        count[:, 0] == 0, dims=("batch", "kind")
    )


def _uniform(spans: xr.Dataset, weights: np.ndarray, like: xr.DataArray) -> xr.DataArray:
    """What a head that attends alike to every visible token would put on the spans."""
    query, start, stop = (spans[name].values for name in ("query", "key_start", "key_stop"))
    first = spans.sizes["position"] - spans["mask"].sum("position").values[:, None]
    share = (stop - start) / np.maximum(query + 1 - first, 1)
    null = np.einsum("bs,bsk->bk", np.where(query >= 0, share, 0.0), weights)
    values = (
        xr.DataArray(null.astype(np.float32), dims=("batch", "kind"))
        .broadcast_like(like)
        .transpose(*DIMS)
    )
    values.attrs = {
        "long_name": "mass of a head that attends alike to all visible tokens",
        "units": "1",
    }
    return values

"""Attention to labelled spans: prompts with spans in, statistics by case, layer and head out."""

from __future__ import annotations

import warnings

import numpy as np
import torch
import xarray as xr
from jaxtyping import Int

from nnheads.errors import BadInput
from nnheads.models.families import family
from nnheads.models.geometry import geometry
from nnheads.models.inputs import inputs
from nnheads.spans.scores import assemble, check_spans, kinds_of, labelled, weights_of
from nnheads.trace.spans import BLOCK_BYTES, SpanOptions, measure_spans


def measure(
    model,
    prompts: xr.Dataset,
    *,
    kinds: list[str] | None = None,
    threshold: float = 0.5,
    hit: bool = True,
    block_bytes: int = BLOCK_BYTES,
) -> xr.Dataset:
    """Return the attention of every head to every kind of span in the prompts, from one forward.

    Args:
        prompts: token, mask (batch, position) and spans: query, key_start, key_stop (batch, span),
            where query -1 marks a span that an example does not have; coordinate `kind` (span)
            names the set.
        kinds: which sets; default all.
        threshold: mass from which a query counts for `above`.
        hit: also find each row's strongest key. Without it, long unpadded prompts are faster.
        block_bytes: memory for scores at a time.

    Returns:
        float32 (batch, layer, head, kind): `mass`, `above` and, if asked, `hit`, means over a
        kind's spans and between 0 and 1; `uniform`, the mass that a head attending alike to all
        visible tokens would have. NaN where an example has no span of a kind.

    Raises:
        BadInput: a kind that the prompts do not have, or spans that reach outside the prompt or the
            future. RunError: scores that are not finite.

    Example:
        >>> model = nnheads.load()
        >>> from nnheads.prompts.repeated import repeated
        >>> scores = nnheads.measure(model, repeated(model.tokenizer, 2, length=20))
        >>> float(scores["mass"].sel(kind="induction").mean("batch").max()) > 0.9
        True

    Source: attention from queries and keys, as the kernel receives them (see `trace.spans`).
    """
    options = SpanOptions(
        threshold=threshold, hit=hit, interface=family(model).interface, block_bytes=block_bytes
    )
    return _measured(model, prompts, chosen_kinds(prompts, kinds), options, None)[0]


def measure_and_gate(model, prompts: xr.Dataset, kinds: list[str]) -> xr.Dataset:
    """Return what `measure` does, and whether the model does what the prompts ask, in one forward.

    That is `right` (batch, step), 1 where the model's best token at `ask` is the `target`, and its
    mean `accuracy` (batch). -1 fills up where an example wants fewer tokens than others, NaN in
    what is returned. Neither is there for prompts that ask for nothing.
    """
    options = SpanOptions(
        threshold=0.5, hit=True, interface=family(model).interface, block_bytes=BLOCK_BYTES
    )
    ask = torch.from_numpy(prompts["ask"].values).long() if "ask" in prompts else None
    scores, best = _measured(model, prompts, chosen_kinds(prompts, kinds), options, ask)
    return scores if best is None else scores.assign_coords(_gate(prompts, best))


def _measured(
    model, prompts: xr.Dataset, kinds: list[str], options: SpanOptions, ask: torch.Tensor | None
) -> tuple[xr.Dataset, np.ndarray | None]:
    """Return the statistics of spans and, with `ask`, the best tokens [batch, step] there."""
    spans = prompts.isel(span=np.isin(prompts["kind"].values, kinds))
    check_spans(spans)
    weights, missing = weights_of(spans, kinds)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse (CSR|invariant)")  # torch says: beta
        values, best = measure_spans(
            model,
            inputs(model, prompts),
            list(range(geometry(model).layers)),
            bounds_of(spans),
            torch.from_numpy(weights),
            options,
            ask,
        )
    every = values.permute(1, 2, 0, 3, 4)
    scores = labelled(every, spans, kinds, weights, missing, options["threshold"])
    return scores, None if best is None else best.cpu().numpy()


def chosen_kinds(prompts: xr.Dataset, kinds: list[str] | None) -> list[str]:
    """Return the kinds of span to measure. Raise BadInput for one that the prompts do not have."""
    present = list(dict.fromkeys(map(str, prompts["kind"].values)))
    for kind in kinds or ():
        if kind not in present:
            known = ", ".join(present)
            raise BadInput(f"the prompts have no spans of kind {kind!r}; they have {known}")
    return present if kinds is None else kinds


def bounds_of(spans: xr.Dataset) -> Int[torch.Tensor, "3 batch span"]:
    """Return query, first key and end of keys of every span, as a trace takes them."""
    bounds = [spans[name].values for name in ("query", "key_start", "key_stop")]
    return torch.stack([torch.from_numpy(one).long() for one in bounds])


def score(
    model, prompts: xr.Dataset, kind: str, *, source: str, beside: tuple[str, ...] = ()
) -> xr.Dataset:
    """Return the statistics (batch, layer, head) of one kind of span: see `scores.assemble`."""
    scores = measure_and_gate(model, prompts, kinds_of(prompts, kind, beside))
    return assemble(scores, kind, beside, source)


def _gate(prompts: xr.Dataset, best: Int[np.ndarray, "batch step"]) -> dict:
    """Return `right` and `accuracy` of `measure_and_gate` from the best tokens."""
    wanted = prompts["ask"].values >= 0
    right = (best == prompts["target"].values) & wanted
    share = (right.sum(1) / wanted.sum(1)).astype("float32")
    each = np.where(wanted, right, np.nan).astype("float32")
    about = {"long_name": "share of wanted tokens that the model predicts", "units": "1"}
    about_each = {"long_name": "1 where the model predicts the wanted token", "units": "1"}
    return {
        "accuracy": ("batch", share, about),
        "right": (("batch", "step"), each, about_each),
    }

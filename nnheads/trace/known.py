"""A plain run remembered, so that changed runs can go on from the middle of it.

    known = record(model, inputs, spec, {"z": [3]}, [3], request)
    known["values"]["z"][3], known["residuals"][3], known["read"], known["cache"]

Shipped to remote servers as source: torch only, no decorators, and whatever a trace computes is
returned, never appended to something outside.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int

from nnheads.trace.plain import Cells, Inputs, Known, ModelSpec, Request
from nnheads.trace.readout import read_logits
from nnheads.trace.sites import read_site

Cases = Int[torch.Tensor, " row"]


def record(
    model: Any,
    inputs: Inputs,
    spec: ModelSpec,
    sites: Mapping[str, Sequence[int]],
    starts: Sequence[int],
    request: Request | None = None,
    cache: Any = None,
) -> Known:
    """Run the model once, behind what is cached, and return what is to be known of the run.

    sites: site -> the layers whose value is kept, in the order of execution.
    starts: layers whose residual stream is kept.
    """
    cached = {} if cache is None else {"past_key_values": cache}
    keep, size = 1 if request is None else request["keep"], inputs["input_ids"].shape
    with model.trace(**inputs, **cached, use_cache=True, logits_to_keep=keep):
        values, residuals = {site: {} for site in sites}, {}  # type: ignore[var-annotated]
        for index in sorted({*starts, *(layer for own in sites.values() for layer in own)}):
            layer = model.layers[index]
            if index in starts:
                residuals[index] = layer.input.clone()
            for site in sites:
                if index in sites[site]:
                    values[site][index] = read_site(layer, site, spec, size).clone()
        read, reference = read_known(model, request)
        filled = model.output.past_key_values
    return {
        "inputs": inputs,
        "values": values,
        "residuals": residuals,
        "read": read,
        "reference": reference,
        "cache": filled,
    }


def read_known(
    model: Any, request: Request | None
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Return what is asked of a run, and log-probabilities where others are compared with it."""
    if request is None:
        return None, None
    read = read_logits(model, request)
    return read, model.output.logits.float().log_softmax(-1) if request["full"] > 1 else None


def prefix(model: Any, known: Known, length: int) -> Any:
    """Return a key-value cache that holds the first `length` positions; None for no positions.

    It is the whole run's, unless some of its layers kept a sliding window alone.
    """
    inputs, filled = known["inputs"], known["cache"]
    if length == 0:
        return None
    width = inputs["input_ids"].shape[1]
    if all(layer.keys is not None and layer.keys.shape[-2] == width for layer in filled.layers):
        return filled
    first = {name: value[:, :length] for name, value in inputs.items()}
    with model.trace(**first, use_cache=True, logits_to_keep=1):
        model.unembedding.skip(model.unembedding.input[..., :1])  # nobody reads what comes next
        cache = model.output.past_key_values
    return cache


def tail(inputs: Inputs, start: int, case: Cases) -> Inputs:
    """Return inputs from position `start` on, one row for each of `case`.

    The mask still covers what is cached.
    """
    return {
        name: (value if name == "attention_mask" else value[:, start:])[case]
        for name, value in inputs.items()
    }


def copies(cache: Any, layer: int, case: Cases, length: int) -> Any:
    """Return the cache's first `length` positions with one row for each of `case`.

    A forward writes into its cache, so each gets its own; layers below `layer` do not run and only
    say how long the cache is.
    """
    if cache is None:
        return None
    own = copy.copy(cache)
    own.layers = [
        copied(whole, case if index >= layer else None, length)
        for index, whole in enumerate(cache.layers)
    ]
    return own


def copied(whole: Any, case: Cases | None, length: int) -> Any:
    """Return one layer of a cache, cut to `length` positions; its rows as they are for None."""
    part = copy.copy(whole)
    if whole.keys.shape[-2] > length:
        part.keys, part.values = whole.keys[..., :length, :], whole.values[..., :length, :]
        if hasattr(whole, "cumulative_length"):
            part.cumulative_length = length
    if case is not None:
        halves = (part.keys, part.values)
        part.keys, part.values = (half[case.to(half.device)] for half in halves)
    return part


def comparing(request: Request, known: Known) -> Request:
    """Return a request that also compares each run with a known one."""
    return {**request, "reference": known["reference"]}


def of_cases(request: Request, case: Cases, start: int) -> Request:
    """Return a request with one row for each of `case`, at positions counted from `start`."""
    where, answers = request["positions"], request["answers"]
    own = {
        "positions": None if where is None else where[case] - start,
        "answers": answers[case.to(answers.device)],
        "full": request["full"],
        "end": request["end"],
        "keep": request["keep"],
    }
    for name in ("weight", "bias", "reference"):
        value = request.get(name)
        if value is not None:
            own[name] = value[case.to(value.device)]  # type: ignore[index,attr-defined]
    return own  # type: ignore[return-value]


def entries_of(cells: Cells, first: int, last: int) -> dict[int, dict[str, torch.Tensor]]:
    """Return what the rows `first` to `last` of all (cell, case) swap, by layer.

    row (counted from `first`), case, unit, region: [entry] each.
    """
    cases, bounds = cells["regions"].shape[1], cells["bounds"]
    entries = cells["entries"][bounds[first // cases] : bounds[(last - 1) // cases + 1]]
    rows = entries[:, :1] * cases + torch.arange(cases) - first
    entry, case = ((rows >= 0) & (rows < last - first)).nonzero(as_tuple=True)
    _, layer, unit, region = entries[entry].unbind(1)
    every = {"row": rows[entry, case], "case": case, "unit": unit, "region": region}
    return {
        index: {name: value[layer == index] for name, value in every.items()}
        for index in layer.unique().tolist()
    }

"""Spans under plain causal attention, without rows: the fused kernel is run once, by us.

    norm, highest = run_kernel(layer, attention_call(layer), hit=True)
    mass, strongest = fused_spans(attention, norm, highest, pairs)

The kernel that a model calls keeps the log-sum-exp of its rows to itself. So it is called here, its
output is what the model goes on with, and the model's own call is given a single query to spend no
time on. A span's mass then needs q.k on its own keys alone, which is a product at the places of a
sparse matrix.

The strongest key comes from the same kernel with scores SHARP times as large: the log-sum-exp of
these, divided by it, is the row's highest score, or a little more where others come near it. Only
rows in which they come that near are computed.

Shipped to remote servers as source: torch only, no decorators.
"""

from __future__ import annotations

from typing import Any, TypedDict

import torch
from jaxtyping import Float, Int

from nnheads.trace.kernels import for_each_head

SHARP = 1e4  # scores that lie closer than a few parts of it are told apart by their rows
ROUNDING = 2e-5  # of scores: nearer than this, the highest cannot be told from another one
Spans = Int[torch.Tensor, "3 batch span"]  # query, first key and end of keys
BySpan = Float[torch.Tensor, "batch head span"]
ByRow = Float[torch.Tensor, "batch head row"]


class Pairs(TypedDict):
    """Every query and key of one example's spans, each pair once.

    matrix: their places [query, key], as a sparse matrix. query, key: the same as lists [pair].
    pair, span: which pairs belong to which span [member]. spans: how many spans there are.
    """

    matrix: torch.Tensor
    query: Int[torch.Tensor, " pair"]
    key: Int[torch.Tensor, " pair"]
    pair: Int[torch.Tensor, " member"]
    span: Int[torch.Tensor, " member"]
    spans: int


def is_plain(queries: Any, keys: Any, mask: Any, options: dict[str, Any]) -> bool:
    """Return whether attention is causal and nothing else, on a CPU, over positions not cached."""
    changed = options.get("softcap") or options.get("s_aux") is not None
    plain = mask is None and not changed and queries.shape[2] == keys.shape[2]
    return bool(plain and queries.device.type == "cpu")


def pairs_of(spans: Spans, length: int) -> list[Pairs]:
    """Return the pairs of each example."""
    return [_pairs(query, start, stop, length) for query, start, stop in spans.unbind(1)]


def _pairs(query: Any, start: Any, stop: Any, length: int) -> Pairs:
    width = (torch.minimum(stop, query + 1) - start).clamp(min=0) * (query >= 0)
    span = torch.arange(len(query)).repeat_interleave(width)
    first = (width.cumsum(0) - width).repeat_interleave(width)
    place = query[span] * length + start[span] + torch.arange(len(span)) - first
    places, pair = torch.unique(place, return_inverse=True)
    row, key = places // length, places % length
    bounds = torch.zeros(length + 1, dtype=torch.long)
    bounds[1:] = torch.bincount(row, minlength=length).cumsum(0)
    shape, entries = (length, length), torch.zeros(len(places))
    matrix = torch.sparse_csr_tensor(bounds, key, entries, size=shape, check_invariants=False)
    at = {"query": row, "key": key, "pair": pair, "span": span}
    return {"matrix": matrix, **at, "spans": len(query)}  # type: ignore[typeddict-item]


def run_kernel(layer: Any, attention: Any, hit: bool = False) -> tuple[ByRow, ByRow | None]:
    """Run the fused kernel in place of the model's call.

    Returns:
        Each row's log-sum-exp and, with `hit`, its highest score or a little more.
    """
    queries, keys, values, _, options = attention
    heads, scaling = queries.shape[1], scaling_of(queries, options)
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    every_key, every_value = for_each_head(keys, heads), for_each_head(values, heads)
    given = (queries.contiguous(), every_key, every_value, 0.0, True)
    output, norm = fused(*given, scale=scaling)
    highest = fused(*given, scale=scaling * SHARP)[1] / SHARP if hit else None
    call = layer.attention.source.attention_interface_1
    arguments = list(call.inputs[0])
    arguments[1:4] = [one[:, :, :1] for one in (queries, keys, values)]
    call.inputs = (tuple(arguments), call.inputs[1])
    call.output = (output.transpose(1, 2).contiguous(), None)
    return norm, highest


def scaling_of(queries: Any, options: dict[str, Any]) -> float:
    """Return by what scores are multiplied."""
    given = options.get("scaling")
    return float(queries.shape[3] ** -0.5 if given is None else given)


def fused_spans(
    attention: Any, norm: ByRow, highest: ByRow | None, pairs: list[Pairs]
) -> tuple[BySpan, BySpan]:
    """Return the mass of each span and, with `highest`, whether it holds the strongest key."""
    queries, keys, _, _, options = attention
    scaling, group = scaling_of(queries, options), queries.shape[1] // keys.shape[1]
    every = [
        _of_head(
            queries[case, head].float() * scaling,
            keys[case, head // group].float(),
            norm[case, head],
            None if highest is None else highest[case, head],
            own,
        )
        for case, own in enumerate(pairs)
        for head in range(queries.shape[1])
    ]
    both = torch.stack(every, 1).unflatten(1, queries.shape[:2])
    return both[0], both[-1]


def _of_head(
    queries: Float[torch.Tensor, "position dim"],
    keys: Float[torch.Tensor, "position dim"],
    norm: Float[torch.Tensor, " position"],
    highest: Float[torch.Tensor, " position"] | None,
    pairs: Pairs,
) -> Float[torch.Tensor, "statistic span"]:
    """Return the mass of each span under one head, and whether it holds the strongest key."""
    places = pairs["matrix"]
    scores = torch.sparse.sampled_addmm(places, queries, keys.T, beta=0.0).values()
    mass = torch.zeros(pairs["spans"])
    share = (scores - norm[pairs["query"]]).exp()
    mass.index_add_(0, pairs["span"], share[pairs["pair"]])
    if highest is None:
        return mass.unsqueeze(0)
    below = highest[pairs["query"]] - scores
    strongest = below <= ROUNDING
    near = (below <= torch.tensor(float(len(keys))).log() / SHARP + ROUNDING) & ~strongest
    rows = torch.unique(pairs["query"][near])
    if rows.numel():
        top = strongest_keys(queries, keys, rows)
        place = torch.searchsorted(rows, pairs["query"][near])
        strongest[near] = top[place] == pairs["key"][near]
    held = torch.zeros(pairs["spans"])
    held.index_add_(0, pairs["span"], strongest[pairs["pair"]].float())
    return torch.stack([mass, held.clamp(max=1.0)])


def strongest_keys(
    queries: Float[torch.Tensor, "position dim"],
    keys: Float[torch.Tensor, "position dim"],
    rows: Int[torch.Tensor, " row"],
) -> Int[torch.Tensor, " row"]:
    """Return the strongest key of some rows of one head."""
    found = []
    for part in rows.split(256):
        reach = int(part[-1]) + 1
        scores = queries[part] @ keys[:reach].T
        later = torch.arange(reach) > part.unsqueeze(1)
        found.append(scores.masked_fill_(later, -torch.inf).argmax(1))
    return torch.cat(found)

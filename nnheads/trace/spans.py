"""Where would this head look? Attention from chosen queries to chosen keys, inside a trace.

A *span* is a triple (query, first key, end of keys) of one example. For every head and span the
trace measures the attention mass on the span's keys and, if asked, whether the row's strongest key
lies among them.

No pattern is ever held. A span's mass needs only q.k on its own keys and the log-sum-exp of its
row, which the fused attention kernel returns: that is the fast way. Masks, soft caps, sinks, and
the strongest key need the row itself; rows are then computed in blocks under a memory budget and
reduced at once.

Shipped to remote servers as source: torch only, no decorators.
"""

from __future__ import annotations

from typing import Any, TypedDict

import torch
from jaxtyping import Float, Int
from nnsight import save

from nnheads.trace.kernels import attention_call, for_each_head
from nnheads.trace.plain import Inputs
from nnheads.trace.rows import masked_scores
from nnheads.trace.session import remote_of

BLOCK_BYTES = 1 << 25  # of scores at a time: small enough for a CPU's caches to help
# query, key, value, mask, options, weights of one layer
Attention = tuple[Any, Any, Any, Any, dict[str, Any], Any]
Spans = Int[torch.Tensor, "3 batch span"]  # query, first key and end of keys
BySpan = Float[torch.Tensor, "batch head span"]
Scores = Float[torch.Tensor, "batch head row key"]


class SpanOptions(TypedDict):
    """What is measured of spans.

    threshold: mass above which a span counts. hit: also find each row's strongest key.
    interface: the family computes attention in transformers' interface.
    block_bytes: memory for scores at a time.
    """

    threshold: float
    hit: bool
    interface: bool
    block_bytes: int


def measure_spans(
    model: Any,
    inputs: Inputs,
    layers: list[int],
    spans: Spans,
    weights: Float[torch.Tensor, "batch span kind"],
    options: SpanOptions,
) -> Float[torch.Tensor, "layer statistic batch head kind"]:
    """Return the statistics of every head and kind of span, from one forward.

    Statistics: mass on the span, share of spans whose mass exceeds the threshold and, with `hit`,
    share of spans that hold the row's strongest key; each is the weighted sum over the spans of a
    kind. A span that an example does not have has query -1 and weight 0.
    """
    remote = remote_of(model)
    with (
        torch.no_grad(),
        model.trace(**inputs, use_cache=False, logits_to_keep=1, remote=remote) as tracer,
    ):
        measured = []
        for number in layers:
            attention = read_attention(model.layers[number], options["interface"])
            measured.append(statistics(attention, spans, weights, options))
        result = save(torch.stack([one.to(measured[0].device) for one in measured]))
        tracer.stop()
    return result  # type: ignore[no-any-return]


def read_attention(layer: Any, interface: bool) -> Attention:
    """Return what one layer attends with: weights where attention is eager, else the rest."""
    if not interface:
        return None, None, None, None, {}, layer.attention.output[1]
    return (*attention_call(layer), None)


def statistics(
    attention: Attention,
    spans: Spans,
    weights: Float[torch.Tensor, "batch span kind"],
    options: SpanOptions,
) -> Float[torch.Tensor, "statistic batch head kind"]:
    """Return one layer's statistics, weighted sums over the spans of each kind."""
    mass, strongest = span_mass(attention, spans, options["hit"], options["block_bytes"])
    above = (mass > options["threshold"]).float()
    every = torch.stack([mass, above, strongest][: 2 + options["hit"]])
    return torch.einsum("cbhs,bsk->cbhk", every, weights.to(mass.device))


def span_mass(
    attention: Attention, spans: Spans, hit: bool, block_bytes: int
) -> tuple[BySpan, BySpan]:
    """Return the mass on each span and, with `hit`, whether it holds the strongest key (1 or 0)."""
    queries, keys, _, mask, options, weights = attention
    device = (queries if weights is None else weights).device
    capped = options.get("softcap") or options.get("s_aux") is not None
    plain = weights is None and mask is None and not capped
    if plain and not hit and device.type == "cpu" and queries.shape[2] == keys.shape[2]:
        mass = fused_mass(attention, spans.to(device), block_bytes)
        return mass, mass
    return blockwise_mass(attention, spans.to(device), block_bytes)


def fused_mass(attention: Attention, spans: Spans, block_bytes: int) -> BySpan:
    """Return the mass under plain causal attention: exp(q.k * scaling - lse).

    The row's log-sum-exp comes from the fused CPU kernel.
    """
    queries, keys, values, _, options, _ = attention
    batch, heads, _, width = queries.shape
    scaling = width**-0.5 if options.get("scaling") is None else options["scaling"]
    keys, values = for_each_head(keys, heads), for_each_head(values, heads)
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    norm = fused(queries.contiguous(), keys, values, 0.0, True, scale=scaling)[1]
    mass = torch.zeros(batch, heads, spans.shape[2], device=queries.device)
    step = max(1, block_bytes // (8 * batch * heads * width))
    for first in range(0, spans.shape[2], step):
        block = spans[:, :, first : first + step]
        row = block[0].clamp(min=0).unsqueeze(1).expand(-1, heads, -1)
        chosen = queries.gather(2, row.unsqueeze(-1).expand(-1, -1, -1, width)).float() * scaling
        mass[:, :, first : first + step] += key_by_key(chosen, norm.gather(2, row), keys, block)
    return mass


def key_by_key(
    queries: Float[torch.Tensor, "batch head span dim"], level: BySpan, keys: Any, spans: Spans
) -> BySpan:
    """Return the mass of spans, one key of each at a time."""
    query, start, stop = spans
    mass = torch.zeros_like(level, dtype=torch.float32)
    for offset in range(int((stop - start).max())):
        where = start + offset
        index = where.clamp(max=keys.shape[2] - 1)[:, None, :, None]
        key = keys.gather(2, index.expand(-1, keys.shape[1], -1, keys.shape[3]))
        valid = ((where < stop) & (query >= 0)).unsqueeze(1)
        share = ((queries * key.float()).sum(-1) - level).exp()
        mass += torch.where(valid, share, 0.0)
    return mass


def blockwise_mass(attention: Attention, spans: Spans, block_bytes: int) -> tuple[BySpan, BySpan]:
    """Return mass and strongest key, a block of rows at a time, under any mask, cap or sink."""
    queries, keys, _, _, _, weights = attention
    like = queries if weights is None else weights
    batch, heads = like.shape[:2]
    query, start, stop = spans
    total = keys.shape[2] if weights is None else weights.shape[3]
    rows = torch.unique(query[query >= 0])
    step = max(1, block_bytes // (4 * batch * heads * total))
    mass = torch.zeros(batch, heads, query.shape[1], device=like.device)
    hit = torch.zeros_like(mass)
    for first in range(0, rows.numel(), step):
        block = rows[first : first + step]
        low, high = int(block[0]), int(block[-1])
        inside = (query >= low) & (query <= high)
        # spans that at least one example asks in this block
        chosen = inside.any(0).nonzero().squeeze(1)
        row = torch.searchsorted(block, query[:, chosen].clamp(min=low, max=high))
        scores, norm = block_scores(attention, block)
        part, strongest = gather_spans(scores, norm, row, start[:, chosen], stop[:, chosen])
        there = inside[:, chosen].unsqueeze(1)
        mass[:, :, chosen] += torch.where(there, part, 0.0)
        hit[:, :, chosen] += torch.where(there, strongest, 0.0)
    return mass, hit


def block_scores(
    attention: Attention, rows: Int[torch.Tensor, " row"]
) -> tuple[Scores, Float[torch.Tensor, "batch head row"]]:
    """Return the scores of some rows, and the log of each row's denominator.

    A causal row reaches no further than its query: later keys need not be computed.
    """
    queries, keys, _, mask, options, weights = attention
    like, total = (queries, keys.shape[2]) if weights is None else (weights, weights.shape[3])
    reach = min(total, int(rows[-1]) + 1 + total - like.shape[2])
    if weights is not None:
        scores = weights[:, :, rows, :reach].float().log()
        return scores, torch.zeros_like(scores[..., 0])
    scores = masked_scores(queries, keys, mask, options, rows, reach)
    sinks = options.get("s_aux")
    return scores, scores.logsumexp(-1) if sinks is None else with_sink(scores, sinks)


def with_sink(scores: Scores, sinks: torch.Tensor) -> Float[torch.Tensor, "batch head row"]:
    """Return the log of the denominator where each head has a learned sink that is no token."""
    return torch.logaddexp(scores.logsumexp(-1), sinks.float().reshape(1, -1, 1))


def gather_spans(
    scores: Scores,
    norm: Float[torch.Tensor, "batch head row"],
    row: Int[torch.Tensor, "batch span"],
    start: Int[torch.Tensor, "batch span"],
    stop: Int[torch.Tensor, "batch span"],
) -> tuple[BySpan, BySpan]:
    """Return sums of exp(score - norm) over each span's keys, and whether they hold the largest."""
    heads = scores.shape[1]
    picked, valid = span_scores(scores, row, start, stop)
    each = row.unsqueeze(1).expand(-1, heads, -1)
    share = (picked - norm.gather(2, each).unsqueeze(-1)).exp()
    mass = torch.where(valid.unsqueeze(1), share, 0.0).sum(-1)
    strongest = scores.argmax(-1).gather(2, each)
    inside = (strongest >= start.unsqueeze(1)) & (strongest < stop.unsqueeze(1))
    return mass, inside.float()


def span_scores(
    scores: Scores,
    row: Int[torch.Tensor, "batch span"],
    start: Int[torch.Tensor, "batch span"],
    stop: Int[torch.Tensor, "batch span"],
) -> tuple[Float[torch.Tensor, "batch head span offset"], torch.Tensor]:
    """Return the scores of each span's keys, filled up to the widest, and which of them count."""
    heads, keys = scores.shape[1], scores.shape[3]
    offsets = torch.arange(int((stop - start).max()), device=scores.device)
    where = start.unsqueeze(-1) + offsets  # [batch, span, width]
    valid = (where < stop.unsqueeze(-1)) & (where < keys)
    index = (row.unsqueeze(-1) * keys + where.clamp(max=keys - 1)).flatten(1)
    flat = scores.flatten(2).gather(2, index.unsqueeze(1).expand(-1, heads, -1))
    return flat.unflatten(2, where.shape[1:]), valid

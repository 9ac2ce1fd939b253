"""Where would this head look? Attention from chosen queries to chosen keys, inside a trace.

A *span* is a triple (query, first key, end of keys) of one example. For every head and span the
trace measures the attention mass on the span's keys and, if asked, whether the row's strongest key
lies among them.

No pattern is ever held. Under plain causal attention a span's mass needs only q.k on its own keys
and the log-sum-exp of its row, see `trace/fused.py`: that is the fast way. Masks, soft caps and
sinks need the row itself; rows are then computed in blocks under a memory budget and reduced at
once.

Shipped to remote servers as source: torch only, no decorators.
"""

from __future__ import annotations

from typing import Any, TypedDict

import torch
from jaxtyping import Float, Int
from nnsight import save

from nnheads.trace.fused import (
    BySpan,
    Spans,
    fused_spans,
    is_plain,
    pairs_of,
    run_kernel,
)
from nnheads.trace.kernels import attention_call
from nnheads.trace.plain import Inputs
from nnheads.trace.rows import masked_scores
from nnheads.trace.session import remote_of

BLOCK_BYTES = 1 << 25  # of scores at a time: small enough for a CPU's caches to help
FEW = 1 << 16  # queries with keys: so many never need rows
SPARSE = 8  # rows are computed where spans hold more than one of so many of all of them
# query, key, value, mask, options, weights of one layer
Attention = tuple[Any, Any, Any, Any, dict[str, Any], Any]
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
    ask: Int[torch.Tensor, "batch step"] | None = None,
) -> tuple[
    Float[torch.Tensor, "layer statistic batch head kind"], Int[torch.Tensor, "batch step"] | None
]:
    """Return the statistics of every head and kind of span, from one forward.

    Statistics: mass on the span, share of spans whose mass exceeds the threshold and, with `hit`,
    share of spans that hold the row's strongest key; each is the weighted sum over the spans of a
    kind. A span that an example does not have has query -1 and weight 0.

    Args:
        ask: positions whose best next tokens are returned too; None for none.
    """
    remote, keep, best = remote_of(model), int(ask is None), None
    with (
        torch.no_grad(),
        model.trace(**inputs, use_cache=False, logits_to_keep=keep, remote=remote) as tracer,
    ):
        measured, pairs = [], []  # type: ignore[var-annotated]  # annotations would travel too
        for number in layers:
            layer = model.layers[number]
            attention = read_attention(layer, options["interface"])
            if is_fast(attention, spans):
                pairs = pairs or pairs_of(spans, attention[0].shape[2])
                levels = run_kernel(layer, attention[:5], options["hit"])
                mass = fused_spans(attention[:5], *levels, pairs)
            else:
                mass = blockwise_mass(attention, spans, options["block_bytes"])
            measured.append(statistics(mass, weights, options))
        result = save(torch.stack([one.to(measured[0].device) for one in measured]))
        if ask is not None:
            best = save(best_tokens(model, ask))
        tracer.stop()
    return result, best


def best_tokens(
    model: Any, ask: Int[torch.Tensor, "batch step"]
) -> Int[torch.Tensor, "batch step"]:
    """Return the best token after some positions, in the last thing that a trace reads."""
    final = model.unembedding.input
    where = ask.to(final.device).clamp(min=0).unsqueeze(-1)
    model.unembedding.input = final.gather(1, where.expand(-1, -1, final.shape[-1])).contiguous()
    best: torch.Tensor = model.output.logits.argmax(-1)
    return best


def read_attention(layer: Any, interface: bool) -> Attention:
    """Return what one layer attends with: weights where attention is eager, else the rest."""
    if not interface:
        return None, None, None, None, {}, layer.attention.output[1]
    return (*attention_call(layer), None)


def is_fast(attention: Attention, spans: Spans) -> bool:
    """Return whether spans can do without rows: plain attention and few pairs of positions."""
    queries, keys, _, mask, options, weights = attention
    if weights is not None or not is_plain(queries, keys, mask, options):
        return False
    query, start, stop = spans
    most = int(((stop - start) * (query >= 0)).sum(1).max())
    return bool(most <= max(FEW, queries.shape[2] ** 2 // SPARSE))


def statistics(
    masses: tuple[BySpan, BySpan],
    weights: Float[torch.Tensor, "batch span kind"],
    options: SpanOptions,
) -> Float[torch.Tensor, "statistic batch head kind"]:
    """Return one layer's statistics, weighted sums over the spans of each kind.

    masses: on each span, and whether it holds the strongest key (1 or 0).
    """
    mass, strongest = masses
    above = (mass > options["threshold"]).float()
    every = torch.stack([mass, above, strongest][: 2 + options["hit"]])
    return torch.einsum("cbhs,bsk->cbhk", every, weights.to(mass.device))


def blockwise_mass(attention: Attention, spans: Spans, block_bytes: int) -> tuple[BySpan, BySpan]:
    """Return mass and strongest key, a block of rows at a time, under any mask, cap or sink."""
    queries, keys, _, _, _, weights = attention
    like = queries if weights is None else weights
    batch, heads = like.shape[:2]
    query, start, stop = spans.to(like.device)
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

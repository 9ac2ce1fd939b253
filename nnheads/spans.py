"""Where would this head look? Attention from chosen queries to chosen keys, measured inside a trace.

A *span* is a triple (query, first key, end of keys) of one example. For every head and span the trace
measures the attention mass on the span's keys and whether the row's strongest key lies among them. Rows are
processed in blocks under a memory budget and reduced at once, so no pattern is ever held.

Shipped to remote servers as source: torch only, no decorators.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from nnsight import save

from nnheads.rows import masked_scores

BLOCK_BYTES = 1 << 25  # of scores at a time: small enough for a CPU's caches to help


def measure_spans(
    model,
    fed: dict,
    layers: list[int],
    query: Int[torch.Tensor, "batch span"],
    start: Int[torch.Tensor, "batch span"],
    stop: Int[torch.Tensor, "batch span"],
    weights: Float[torch.Tensor, "batch span kind"],
    threshold: float,
    interface: bool,
    block_bytes: int,
    remote=False,
) -> Float[torch.Tensor, "layer statistic batch head kind"]:
    """One forward. Statistics: mass on the span, share of spans that hold the row's strongest key, share of
    spans whose mass exceeds `threshold`; each is the weighted sum over the spans of a kind.

    A span that an example does not have has query -1 and weight 0.
    """
    with torch.no_grad(), model.trace(**fed, use_cache=False, logits_to_keep=1, remote=remote) as tracer:
        measured = []
        for number in layers:
            given = read_attention(model.layers[number], interface)
            mass, hit = span_mass(*given, query, start, stop, block_bytes)
            share = weights.to(mass.device)
            every = torch.stack([mass, hit, (mass > threshold).float()])
            measured.append(torch.einsum("cbhs,bsk->cbhk", every, share))
        result = save(torch.stack([one.to(measured[0].device) for one in measured]))
        tracer.stop()
    return result


def read_attention(layer, interface: bool):
    """(query, key, mask, options, weights) of one layer: weights where attention is eager, else the rest."""
    if not interface:
        return None, None, None, {}, layer.attention.output[1]
    given, options = layer.attention.source.attention_interface_1.inputs
    return given[1], given[2], given[4] if len(given) > 4 else options.get("attention_mask"), options, None


def span_mass(
    query_states,
    key_states,
    mask,
    options: dict,
    weights,
    query: Int[torch.Tensor, "batch span"],
    start: Int[torch.Tensor, "batch span"],
    stop: Int[torch.Tensor, "batch span"],
    block_bytes: int,
) -> tuple[Float[torch.Tensor, "batch head span"], Float[torch.Tensor, "batch head span"]]:
    """Mass on each span and whether it holds the strongest key (1 or 0), for every head of a layer."""
    like = query_states if weights is None else weights
    batch, heads, length = like.shape[:3]
    total = key_states.shape[2] if weights is None else weights.shape[3]
    query, start, stop = query.to(like.device), start.to(like.device), stop.to(like.device)
    rows = torch.unique(query[query >= 0])
    step = max(1, block_bytes // (4 * batch * heads * total))
    mass = torch.zeros(batch, heads, query.shape[1], device=like.device)
    hit = torch.zeros_like(mass)
    for first in range(0, rows.numel(), step):
        block = rows[first : first + step]
        inside = (query >= block[0]) & (query <= block[-1])
        chosen = inside.any(0).nonzero().squeeze(1)  # spans that at least one example asks in this block
        # a causal row reaches no further than its query: later keys need not be computed
        reach = min(total, int(block[-1]) + 1 + total - length)
        if weights is None:
            scores = masked_scores(query_states, key_states, mask, options, block, reach)
            norm = scores.logsumexp(-1) if options.get("s_aux") is None else with_sink(scores, options["s_aux"])
        else:
            scores = weights[:, :, block, :reach].float().log()
            norm = torch.zeros_like(scores[..., 0])
        row = torch.searchsorted(block, query[:, chosen].clamp(min=int(block[0]), max=int(block[-1])))
        part, strongest = gather_spans(scores, norm, row, start[:, chosen], stop[:, chosen])
        asked = inside[:, chosen].unsqueeze(1)
        mass[:, :, chosen] += torch.where(asked, part, 0.0)
        hit[:, :, chosen] += torch.where(asked, strongest, 0.0)
    return mass, hit


def with_sink(scores: Float[torch.Tensor, "batch head row key"], sinks) -> Float[torch.Tensor, "batch head row"]:
    """Log of the softmax's denominator where each head has a learned sink that is no token."""
    return torch.logaddexp(scores.logsumexp(-1), sinks.float().reshape(1, -1, 1))


def gather_spans(
    scores: Float[torch.Tensor, "batch head row key"],
    norm: Float[torch.Tensor, "batch head row"],
    row: Int[torch.Tensor, "batch span"],
    start: Int[torch.Tensor, "batch span"],
    stop: Int[torch.Tensor, "batch span"],
) -> tuple[Float[torch.Tensor, "batch head span"], Float[torch.Tensor, "batch head span"]]:
    """Sum of exp(score - norm) over each span's keys, and whether the row's largest score is among them."""
    heads, keys = scores.shape[1], scores.shape[3]
    width = int((stop - start).max())
    offsets = torch.arange(width, device=scores.device)
    place = start.unsqueeze(-1) + offsets  # [batch, span, width]
    valid: Bool[torch.Tensor, "batch span width"] = (place < stop.unsqueeze(-1)) & (place < keys)
    index = (row.unsqueeze(-1) * keys + place.clamp(max=keys - 1)).flatten(1)
    picked = scores.flatten(2).gather(2, index.unsqueeze(1).expand(-1, heads, -1)).unflatten(2, place.shape[1:])
    each = row.unsqueeze(1).expand(-1, heads, -1)
    level = norm.gather(2, each)
    mass = torch.where(valid.unsqueeze(1), (picked - level.unsqueeze(-1)).exp(), 0.0).sum(-1)
    strongest = scores.argmax(-1).gather(2, each)
    inside = (strongest >= start.unsqueeze(1)) & (strongest < stop.unsqueeze(1))
    return mass, inside.float()

"""Where would this head look? Attention from chosen queries to chosen keys, measured inside a
trace.

A *span* is a triple (query, first key, end of keys) of one example. For every head and span the
trace measures the attention mass on the span's keys and, if asked, whether the row's strongest key
lies among them.

No pattern is ever held. A span's mass needs only q.k on its own keys and the log-sum-exp of its
row, which the
fused attention kernel returns: that is the fast way. Masks, soft caps, sinks, and the strongest key
    need the
row itself; rows are then computed in blocks under a memory budget and reduced at once.

Shipped to remote servers as source: torch only, no decorators.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from nnsight import save

from nnheads.trace.rows import masked_scores
from nnheads.trace.session import remote_of

BLOCK_BYTES = 1 << 25  # of scores at a time: small enough for a CPU's caches to help


def measure_spans(
    model,
    fed: dict,
    layers: list[int],
    spans: Int[torch.Tensor, "3 batch span"],
    weights: Float[torch.Tensor, "batch span kind"],
    threshold: float,
    hit: bool,
    interface: bool,
    block_bytes: int,
) -> Float[torch.Tensor, "layer statistic batch head kind"]:
    """One forward. Statistics: mass on the span, share of spans whose mass exceeds `threshold` and,
    with `hit`, share of spans that hold the row's strongest key; each is the weighted sum over the
    spans of a kind.

    `spans` are query, first key and end of keys; one that an example does not have has query -1 and
    weight 0.
    """
    with (
        torch.no_grad(),
        model.trace(**fed, use_cache=False, logits_to_keep=1, remote=remote_of(model)) as tracer,
    ):
        measured = []
        for number in layers:
            given = read_attention(model.layers[number], interface)
            mass, strongest = span_mass(given, spans, hit, block_bytes)
            share = weights.to(mass.device)
            every = torch.stack([mass, (mass > threshold).float(), strongest][: 2 + hit])
            measured.append(torch.einsum("cbhs,bsk->cbhk", every, share))
        result = save(torch.stack([one.to(measured[0].device) for one in measured]))
        tracer.stop()
    return result


def read_attention(layer, interface: bool):
    """(query, key, value, mask, options, weights) of one layer: weights where attention is eager,
    else the rest.
    """
    if not interface:
        return None, None, None, None, {}, layer.attention.output[1]
    given, options = layer.attention.source.attention_interface_1.inputs
    return (
        *given[1:4],
        given[4] if len(given) > 4 else options.get("attention_mask"),
        options,
        None,
    )


def span_mass(
    attention: tuple, spans: Int[torch.Tensor, "3 batch span"], hit: bool, block_bytes: int
) -> tuple[Float[torch.Tensor, "batch head span"], Float[torch.Tensor, "batch head span"]]:
    """Mass on each span and, with `hit`, whether it holds the strongest key (1 or 0), for every
    head of a layer. `attention` is what `read_attention` returns."""
    queries, keys, values, mask, options, weights = attention
    device = (queries if weights is None else weights).device
    query, start, stop = spans.to(device)
    plain = (
        weights is None
        and mask is None
        and not options.get("softcap")
        and options.get("s_aux") is None
    )
    if plain and not hit and device.type == "cpu" and queries.shape[2] == keys.shape[2]:
        mass = fused_mass(
            queries, keys, values, options.get("scaling"), query, start, stop, block_bytes
        )
        return mass, mass
    return blockwise_mass(queries, keys, mask, options, weights, query, start, stop, block_bytes)


def fused_mass(
    queries, keys, values, scaling, query, start, stop, block_bytes: int
) -> Float[torch.Tensor, "batch head span"]:
    """Mass under plain causal attention: exp(q.k * scaling - lse), with the row's lse from the
    fused CPU kernel.
    """
    group = queries.shape[1] // keys.shape[1]
    keys, values = keys.repeat_interleave(group, 1), values.repeat_interleave(group, 1)
    batch, heads, _, width = queries.shape
    scaling = width**-0.5 if scaling is None else scaling
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    norm = fused(queries.contiguous(), keys, values, 0.0, True, scale=scaling)[1]
    mass = torch.zeros(batch, heads, query.shape[1], device=queries.device)
    step = max(1, block_bytes // (8 * batch * heads * width))
    for first in range(0, query.shape[1], step):
        asked, low, high = (one[:, first : first + step] for one in (query, start, stop))
        row = asked.clamp(min=0).unsqueeze(1).expand(-1, heads, -1)
        chosen = queries.gather(2, row.unsqueeze(-1).expand(-1, -1, -1, width)).float() * scaling
        level = norm.gather(2, row)
        for offset in range(int((high - low).max())):
            place = low + offset
            key = keys.gather(
                2, place.clamp(max=keys.shape[2] - 1)[:, None, :, None].expand(-1, heads, -1, width)
            )
            valid = ((place < high) & (asked >= 0)).unsqueeze(1)
            share = ((chosen * key.float()).sum(-1) - level).exp()
            mass[:, :, first : first + step] += torch.where(valid, share, 0.0)
    return mass


def blockwise_mass(
    queries, keys, mask, options: dict, weights, query, start, stop, block_bytes: int
) -> tuple[Float[torch.Tensor, "batch head span"], Float[torch.Tensor, "batch head span"]]:
    """Mass and strongest key from rows, a block of rows at a time, under any mask, soft cap or
    sink.
    """
    like = queries if weights is None else weights
    batch, heads, length = like.shape[:3]
    total = keys.shape[2] if weights is None else weights.shape[3]
    rows = torch.unique(query[query >= 0])
    step = max(1, block_bytes // (4 * batch * heads * total))
    mass = torch.zeros(batch, heads, query.shape[1], device=like.device)
    hit = torch.zeros_like(mass)
    for first in range(0, rows.numel(), step):
        block = rows[first : first + step]
        inside = (query >= block[0]) & (query <= block[-1])
        chosen = (
            inside.any(0).nonzero().squeeze(1)
        )  # spans that at least one example asks in this block
        # a causal row reaches no further than its query: later keys need not be computed
        reach = min(total, int(block[-1]) + 1 + total - length)
        if weights is None:
            scores = masked_scores(queries, keys, mask, options, block, reach)
            norm = (
                scores.logsumexp(-1)
                if options.get("s_aux") is None
                else with_sink(scores, options["s_aux"])
            )
        else:
            scores = weights[:, :, block, :reach].float().log()
            norm = torch.zeros_like(scores[..., 0])
        row = torch.searchsorted(
            block, query[:, chosen].clamp(min=int(block[0]), max=int(block[-1]))
        )
        part, strongest = gather_spans(scores, norm, row, start[:, chosen], stop[:, chosen])
        asked = inside[:, chosen].unsqueeze(1)
        mass[:, :, chosen] += torch.where(asked, part, 0.0)
        hit[:, :, chosen] += torch.where(asked, strongest, 0.0)
    return mass, hit


def with_sink(
    scores: Float[torch.Tensor, "batch head row key"], sinks
) -> Float[torch.Tensor, "batch head row"]:
    """Log of the softmax's denominator where each head has a learned sink that is no token."""
    return torch.logaddexp(scores.logsumexp(-1), sinks.float().reshape(1, -1, 1))


def gather_spans(
    scores: Float[torch.Tensor, "batch head row key"],
    norm: Float[torch.Tensor, "batch head row"],
    row: Int[torch.Tensor, "batch span"],
    start: Int[torch.Tensor, "batch span"],
    stop: Int[torch.Tensor, "batch span"],
) -> tuple[Float[torch.Tensor, "batch head span"], Float[torch.Tensor, "batch head span"]]:
    """Sum of exp(score - norm) over each span's keys, and whether the row's largest score is among
    them.
    """
    heads, keys = scores.shape[1], scores.shape[3]
    width = int((stop - start).max())
    offsets = torch.arange(width, device=scores.device)
    place = start.unsqueeze(-1) + offsets  # [batch, span, width]
    valid = (place < stop.unsqueeze(-1)) & (
        place < keys
    )  # without an annotation: it would travel, and need jaxtyping
    index = (row.unsqueeze(-1) * keys + place.clamp(max=keys - 1)).flatten(1)
    picked = (
        scores.flatten(2)
        .gather(2, index.unsqueeze(1).expand(-1, heads, -1))
        .unflatten(2, place.shape[1:])
    )
    each = row.unsqueeze(1).expand(-1, heads, -1)
    level = norm.gather(2, each)
    mass = torch.where(valid.unsqueeze(1), (picked - level.unsqueeze(-1)).exp(), 0.0).sum(-1)
    strongest = scores.argmax(-1).gather(2, each)
    inside = (strongest >= start.unsqueeze(1)) & (strongest < stop.unsqueeze(1))
    return mass, inside.float()

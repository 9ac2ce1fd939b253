"""Spans under plain causal attention, without rows: the fused kernel is run once, by us.

    norm = run_kernel(layer, attention_call(layer))       # log-sum-exp of every row
    mass, strongest = fused_spans(attention, norm, spans, hit=True, block_bytes=1 << 25)

The kernel that a model calls keeps the log-sum-exp of its rows to itself. So it is called here, its
output is what the model goes on with, and the model's own call is given a single query to spend no
time on. A span's mass then needs q.k on its own keys alone.

The strongest key of a row is in a span for certain where one of its keys has more than all others
together, and is elsewhere for certain where none of them has more than the others on average.
Only rows in between are computed.

Shipped to remote servers as source: torch only, no decorators.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int

from nnheads.trace.kernels import for_each_head

ROUNDING = 1e-4  # of shares: within it, neither side of a comparison is certain
Spans = Int[torch.Tensor, "3 batch span"]  # query, first key and end of keys
BySpan = Float[torch.Tensor, "batch head span"]
Norm = Float[torch.Tensor, "batch head row"]


def is_plain(queries: Any, keys: Any, mask: Any, options: dict[str, Any]) -> bool:
    """Return whether attention is causal and nothing else, on a CPU, over positions not cached."""
    changed = options.get("softcap") or options.get("s_aux") is not None
    plain = mask is None and not changed and queries.shape[2] == keys.shape[2]
    return bool(plain and queries.device.type == "cpu")


def run_kernel(layer: Any, attention: Any) -> Norm:
    """Run the fused kernel in place of the model's call, and return each row's log-sum-exp."""
    queries, keys, values, _, options = attention
    heads = queries.shape[1]
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    every_key, every_value = for_each_head(keys, heads), for_each_head(values, heads)
    scale = options.get("scaling")
    output, norm = fused(queries.contiguous(), every_key, every_value, 0.0, True, scale=scale)
    call = layer.attention.source.attention_interface_1
    given = list(call.inputs[0])
    given[1:4] = [one[:, :, :1] for one in (queries, keys, values)]
    call.inputs = (tuple(given), call.inputs[1])
    call.output = (output.transpose(1, 2).contiguous(), None)
    return norm  # type: ignore[no-any-return]


def fused_spans(
    attention: Any, norm: Norm, spans: Spans, hit: bool, block_bytes: int
) -> tuple[BySpan, BySpan]:
    """Return the mass of each span and, with `hit`, whether it holds the strongest key (1 or 0)."""
    queries, keys, _, _, options = attention
    scaling = queries.shape[3] ** -0.5 if options.get("scaling") is None else options["scaling"]
    keys, queries = for_each_head(keys, queries.shape[1]), queries * scaling
    mass, best = masses(queries, keys, norm, spans, block_bytes)
    if not hit:
        return mass, mass
    strongest, open_ = decided(mass, best, spans)
    for case in range(open_.shape[0]):
        for head in range(open_.shape[1]):
            chosen = open_[case, head].nonzero().squeeze(1)
            if chosen.numel():
                rows = (queries[case, head], keys[case, head], spans[:, case, chosen])
                strongest[case, head, chosen] = by_row(*rows, block_bytes)
    return mass, strongest


def masses(
    queries: Float[torch.Tensor, "batch head position dim"],
    keys: Float[torch.Tensor, "batch head position dim"],
    norm: Norm,
    spans: Spans,
    block_bytes: int,
) -> tuple[BySpan, BySpan]:
    """Return the mass of each span, exp(q.k - lse), and that of its strongest key."""
    batch, heads, _, width = queries.shape
    both = torch.zeros(2, batch, heads, spans.shape[2], device=queries.device)
    step = max(1, block_bytes // (8 * batch * heads * width))
    for first in range(0, spans.shape[2], step):
        block = spans[:, :, first : first + step]
        row = block[0].clamp(min=0).unsqueeze(1).expand(-1, heads, -1)
        chosen = queries.gather(2, row.unsqueeze(-1).expand(-1, -1, -1, width)).float()
        both[..., first : first + step] = key_by_key(chosen, norm.gather(2, row), keys, block)
    return both[0], both[1]


def key_by_key(
    queries: Float[torch.Tensor, "batch head span dim"], level: BySpan, keys: Any, spans: Spans
) -> Float[torch.Tensor, "2 batch head span"]:
    """Return the mass of spans and of their strongest key, one key of each at a time."""
    query, start, stop = spans
    mass, best = torch.zeros_like(level, dtype=torch.float32), torch.zeros_like(level)
    for offset in range(int((stop - start).max())):
        where = start + offset
        index = where.clamp(max=keys.shape[2] - 1)[:, None, :, None]
        key = keys.gather(2, index.expand(-1, keys.shape[1], -1, keys.shape[3]))
        valid = ((where < stop) & (where <= query) & (query >= 0)).unsqueeze(1)
        share = ((queries * key.float()).sum(-1) - level).exp()
        share = torch.where(valid, share, 0.0)
        mass, best = mass + share, torch.maximum(best, share)
    return torch.stack([mass, best])


def decided(
    mass: BySpan, best: BySpan, spans: Spans
) -> tuple[BySpan, Bool[torch.Tensor, "batch head span"]]:
    """Return which spans hold the strongest key for certain, and of which it is not certain."""
    query, start, stop = spans.unsqueeze(2)
    inside = torch.minimum(stop, query + 1) - start
    elsewhere = (query + 1 - inside).clamp(min=1)  # keys that the row sees outside the span
    others = 1 - mass
    surely = best > others + ROUNDING
    never = best < others / elsewhere - ROUNDING / elsewhere
    there = (query >= 0) & (inside > 0)
    return (surely & there).float(), ~surely & ~never & there


def by_row(
    queries: Float[torch.Tensor, "position dim"],
    keys: Float[torch.Tensor, "position dim"],
    spans: Int[torch.Tensor, "3 span"],
    block_bytes: int,
) -> Float[torch.Tensor, " span"]:
    """Return whether spans hold their row's strongest key, from the rows of one head."""
    held = torch.zeros(spans.shape[1], device=queries.device)
    step = max(1, block_bytes // (4 * keys.shape[0]))
    for part in spans[0].argsort().split(step):
        query, start, stop = spans[:, part]
        reach = int(query.max()) + 1
        scores = queries[query].float() @ keys[:reach].float().T
        later = torch.arange(reach, device=query.device) > query.unsqueeze(1)
        strongest = scores.masked_fill_(later, -torch.inf).argmax(1)
        held[part] = ((strongest >= start) & (strongest < stop)).float()
    return held

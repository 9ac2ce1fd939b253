"""Attention rows of one layer, inside a trace, under any attention implementation.

Fused kernels return no pattern, so rows are computed from the queries and keys that the kernel
receives: after rotary embedding, with the model's own scaling, soft cap, mask and attention sinks.
    Families outside
transformers' attention interface only show the weights of eager attention.
Shipped to remote servers as source: torch only.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int


def read_rows(
    layer, interface: bool, rows=slice(None)
) -> Float[torch.Tensor, "batch head row key"]:
    """Post-softmax attention of the chosen query rows, for every head of a layer.

    Memory: batch x heads x rows x keys. Rows sum to 1, or to less where the model has attention
        sinks.
    """
    if not interface:
        return layer.attention.output[1][:, :, rows].float()
    given, options = layer.attention.source.attention_interface_1.inputs
    return rows_of(
        given[1],
        given[2],
        given[4] if len(given) > 4 else options.get("attention_mask"),
        options,
        rows,
    )


def rows_of(
    query, key, mask, options, rows=slice(None)
) -> Float[torch.Tensor, "batch head row key"]:
    """Attention rows from query [batch, head, position, dim] and key [batch, kv head, key, dim] as
    the
    kernel gets them. `options` are the kernel's keywords: scaling, softcap, s_aux (sinks)."""
    chosen = torch.arange(query.shape[2], device=query.device)[rows]
    scores = masked_scores(query, key, mask, options, chosen, key.shape[2])
    sinks = options.get("s_aux")
    if sinks is None:
        return scores.softmax(-1)
    sink = sinks.float().reshape(1, -1, 1, 1).expand(scores.shape[0], -1, scores.shape[2], 1)
    return torch.cat([scores, sink], -1).softmax(-1)[..., :-1]


def masked_scores(
    query, key, mask, options, rows: Int[torch.Tensor, " row"], reach: int
) -> Float[torch.Tensor, "batch head row key"]:
    """Scores of the chosen rows against the first `reach` keys, scaled, capped and masked, in
    float32.
    """
    heads, groups = query.shape[1], key.shape[1]
    scaling = options.get("scaling")
    chosen = query[:, :, rows].float() * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    # Grouped queries share keys: fold the group into the rows instead of copying keys.
    folded = chosen.unflatten(1, (groups, heads // groups)).flatten(2, 3)
    scores = (
        (folded @ key[:, :, :reach].float().transpose(-1, -2))
        .unflatten(2, (heads // groups, -1))
        .flatten(1, 2)
    )
    cap = options.get("softcap")
    if cap:
        scores = torch.tanh(scores / cap) * cap
    low = torch.finfo(scores.dtype).min
    if (
        mask is None or mask.dim() == 2
    ):  # the fused kernel then is plainly causal, within its window
        allowed = reachable(
            mask, rows, reach, key.shape[2] - query.shape[2], options.get("sliding_window")
        )
        return scores.masked_fill(~allowed.unsqueeze(1), low)
    part = mask[..., rows, :reach]
    return (
        scores.masked_fill(~part, low)
        if part.dtype == torch.bool
        else (scores + part.float()).clamp(min=low)
    )


def reachable(
    mask, rows: Int[torch.Tensor, " row"], reach: int, cached: int, window: int | None
) -> Bool[torch.Tensor, "batch row key"]:
    """Which of the first `reach` keys each row may look at: never the future, whatever the mask is.
    Flash attention is given the padding alone, [batch, key], or nothing, and its window as an
    option."""
    distance = (rows + cached)[:, None] - torch.arange(reach, device=rows.device)
    allowed = (distance >= 0) if window is None else (distance >= 0) & (distance < window)
    if mask is None:
        return allowed.unsqueeze(0)
    if mask.dim() == 2:
        return allowed & mask[:, None, :reach].bool()
    part = mask[:, 0][:, rows, :reach]
    return allowed & (part if part.dtype == torch.bool else part > torch.finfo(part.dtype).min / 2)

"""Attention rows of one layer, inside a trace, under any attention implementation.

    pattern = read_rows(layer, interface=True)       # [batch, head, row, key], after the softmax

Fused kernels return no pattern, so rows are computed from the queries and keys that the kernel
receives: after rotary embedding, with the model's own scaling, soft cap, mask and attention sinks.
Families outside transformers' attention interface only show the weights of eager attention.
Shipped to remote servers as source: torch only.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int

from nnheads.trace.kernels import attention_call

Rows = Float[torch.Tensor, "batch head row key"]


def read_rows(layer: Any, interface: bool, rows: Any = slice(None)) -> Rows:
    """Return post-softmax attention of the chosen query rows, for every head of a layer.

    Memory: batch x heads x rows x keys. Rows sum to 1, or to less where the model has attention
    sinks.
    """
    if not interface:
        weights: torch.Tensor = layer.attention.output[1][:, :, rows].float()
        return weights
    query, key, _, mask, options = attention_call(layer)
    return rows_of(query, key, mask, options, rows)


def rows_of(
    query: Float[torch.Tensor, "batch head position dim"],
    key: Float[torch.Tensor, "batch kv_head key dim"],
    mask: Any,
    options: dict[str, Any],
    rows: Any = slice(None),
) -> Rows:
    """Return attention rows from the queries and keys that the kernel gets.

    options: the kernel's keywords: scaling, softcap, s_aux (sinks), sliding_window.
    """
    chosen = torch.arange(query.shape[2], device=query.device)[rows]
    scores = masked_scores(query, key, mask, options, chosen, key.shape[2])
    sinks = options.get("s_aux")
    if sinks is None:
        return scores.softmax(-1)
    sink = sinks.float().reshape(1, -1, 1, 1).expand(scores.shape[0], -1, scores.shape[2], 1)
    return torch.cat([scores, sink], -1).softmax(-1)[..., :-1]


def masked_scores(
    query: Float[torch.Tensor, "batch head position dim"],
    key: Float[torch.Tensor, "batch kv_head key dim"],
    mask: Any,
    options: dict[str, Any],
    rows: Int[torch.Tensor, " row"],
    reach: int,
) -> Float[torch.Tensor, "batch head row reached"]:
    """Return scores of the chosen rows against the first `reach` keys, in float32.

    They are scaled, capped and masked.
    """
    scores = capped(scaled_products(query[:, :, rows], key[:, :, :reach], options), options)
    low = torch.finfo(scores.dtype).min
    if mask is None or mask.dim() == 2:  # the fused kernel then is causal, within its window
        cached, window = key.shape[2] - query.shape[2], options.get("sliding_window")
        allowed = reachable(mask, rows, reach, cached, window)
        causal: torch.Tensor = scores.masked_fill(~allowed.unsqueeze(1), low)
        return causal
    part = mask[..., rows, :reach]
    if part.dtype == torch.bool:
        return scores.masked_fill(~part, low)
    masked: torch.Tensor = (scores + part.float()).clamp(min=low)
    return masked


def scaled_products(
    query: Float[torch.Tensor, "batch head row dim"],
    key: Float[torch.Tensor, "batch kv_head key dim"],
    options: dict[str, Any],
) -> Rows:
    """Return query times key, scaled; grouped queries share keys."""
    group, scaling = query.shape[1] // key.shape[1], options.get("scaling")
    chosen = query.float() * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    # the group is folded into the rows, so that keys need not be copied
    folded = chosen.unflatten(1, (key.shape[1], group)).flatten(2, 3)
    products = folded @ key.float().transpose(-1, -2)
    return products.unflatten(2, (group, -1)).flatten(1, 2)  # type: ignore[no-any-return]


def capped(scores: Rows, options: dict[str, Any]) -> Rows:
    """Return scores after the soft cap of a kernel that has one."""
    cap = options.get("softcap")
    return torch.tanh(scores / cap) * cap if cap else scores


def reachable(
    mask: Any, rows: Int[torch.Tensor, " row"], reach: int, cached: int, window: int | None
) -> Bool[torch.Tensor, "batch row key"]:
    """Return which of the first `reach` keys each row may look at: never the future.

    Flash attention is given the padding alone, [batch, key], or nothing, and its window as an
    option.
    """
    distance = (rows + cached)[:, None] - torch.arange(reach, device=rows.device)
    allowed = (distance >= 0) if window is None else (distance >= 0) & (distance < window)
    if mask is None:
        return allowed.unsqueeze(0)
    if mask.dim() == 2:
        padded: torch.Tensor = allowed & mask[:, None, :reach].bool()
        return padded
    part: torch.Tensor = mask[:, 0][:, rows, :reach]
    return allowed & (part if part.dtype == torch.bool else part > torch.finfo(part.dtype).min / 2)

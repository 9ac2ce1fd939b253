"""Where attention is computed inside a block: the only file that spells nnsight's names for it.

    query, key, value, mask, options = attention_call(layer)     # kernel "interface"
    value = kernel_input(layer, "v", spec)[..., -1, :]           # any kernel, by key/value head

`spec["kernel"]` is one of:
    interface      transformers' attention interface: readable under any implementation
    attn           GPT-J and GPT-Neo: eager, q, k and v are the arguments of `_attn`
    bloom          eager, q, k and v come out of `_reshape`
    falcon         eager, q, k and v come out of `_split_heads`, heads behind positions
    falcon_alibi   the same, with another softmax

A name that a model does not have fails where it is read, with nnsight's list of the names it has.
Shipped to remote servers as source: torch only.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float

from nnheads.trace.plain import ModelSpec

Attention = tuple[Any, Any, Any, Any, dict[str, Any]]  # query, key, value, mask, options


def attention_call(layer: Any) -> Attention:
    """Return query, key, value, mask and options that the attention interface is called with.

    Query is [batch, head, position, dim], key and value [batch, kv head, key, dim].
    """
    args, options = layer.attention.source.attention_interface_1.inputs
    mask = args[4] if len(args) > 4 else options.get("attention_mask")
    return args[1], args[2], args[3], mask, options


def kernel_tensor(layer: Any, site: str, kernel: str) -> torch.Tensor:
    """Return the very tensor of queries, keys or values ("q", "k", "v") that the kernel gets."""
    number, source = "qkv".index(site), layer.attention.source
    if kernel == "interface":
        tensor = source.attention_interface_1.inputs[0][1 + number]
    elif kernel == "attn":
        tensor = source.self__attn_0.inputs[0][number]
    elif kernel == "bloom":
        tensor = source.self__reshape_0.output[number]
    else:
        tensor = source.self__split_heads_0.output[number]
    return tensor  # type: ignore[no-any-return]


def by_kernel_head(
    tensor: torch.Tensor, site: str, spec: ModelSpec
) -> Float[torch.Tensor, "row unit *group key width"]:
    """View a tensor of `kernel_tensor`, or its gradient, by head.

    Falcon copies its grouped keys and values for every head of a group before it uses them; the
    copies then are an axis of their own.
    """
    by_head = tensor.transpose(1, 2) if spec["kernel"].startswith("falcon") else tensor
    units = spec["heads"] if site == "q" else spec["kv_heads"]
    return by_head if by_head.shape[1] == units else by_head.unflatten(1, (units, -1))


def kernel_input(
    layer: Any, site: str, spec: ModelSpec
) -> Float[torch.Tensor, "row unit *group key width"]:
    """Return a live view of queries, keys or values by head, cached positions included."""
    return by_kernel_head(kernel_tensor(layer, site, spec["kernel"]), site, spec)


def for_each_head(values: torch.Tensor, heads: int) -> torch.Tensor:
    """Repeat keys or values [row, kv head, ...] for every head that shares them.

    Falcon's copies [row, kv head, copy, position, width] already are what its heads use.
    """
    flat = values.flatten(1, 2) if values.dim() == 5 else values
    return flat.repeat_interleave(heads // flat.shape[1], 1)


def softmax(layer: Any, kernel: str) -> Any:
    """Return the operation that gives an eager kernel's weights [row, head, position, key]."""
    source = layer.attention.source
    if kernel == "attn":
        return source.self__attn_0.source.nn_functional_softmax_0
    return source.F_softmax_1 if kernel == "falcon_alibi" else source.F_softmax_0


def softmax_input(layer: Any, kernel: str) -> Float[torch.Tensor, "row head position key"]:
    """Return an eager kernel's scores before the softmax."""
    scores: torch.Tensor = softmax(layer, kernel).inputs[0][0]
    return scores


def eager_mask(layer: Any) -> Any:
    """Return the mask that an eager attention module is called with."""
    return layer.attention.inputs[1]["attention_mask"]

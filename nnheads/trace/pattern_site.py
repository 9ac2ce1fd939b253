"""Attention patterns as a site: read in the run, and written where a kernel lets one.

A fused kernel has no pattern to write. There the heads' outputs are set to what the wanted pattern
gives: pattern times values.
Shipped to remote servers as source: torch only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int

from nnheads.trace.blocks import put, read_z
from nnheads.trace.kernels import attention_call, eager_mask, softmax
from nnheads.trace.plain import ModelSpec, Write
from nnheads.trace.rows import reachable, read_rows

Pattern = Float[torch.Tensor, "row head position key"]


def read_pattern(layer: Any, spec: ModelSpec, length: int) -> Pattern:
    """Return the attention of the last `length` positions: live where attention is eager."""
    if spec["kernel"] == "interface":
        return read_rows(layer, True, slice(-length, None))
    weights: torch.Tensor = softmax(layer, spec["kernel"]).output
    return weights


def write_pattern(layer: Any, new: Pattern, spec: ModelSpec) -> None:
    """Give every head its attention rows, out of place, so that gradients flow."""
    if spec["kernel"] != "interface":
        softmax(layer, spec["kernel"]).output = new
        return
    rows, heads = new.shape[:2]
    row, unit = torch.arange(rows).repeat_interleave(heads), torch.arange(heads).repeat(rows)
    z = attend(layer, new.flatten(0, 1), row, unit, spec).unflatten(0, (rows, heads))
    layer.attention.projection.input = z.transpose(1, 2).flatten(2)


def put_pattern(layer: Any, index: int, write: Write, spec: ModelSpec, length: int) -> None:
    """Give some heads the wanted attention in place, and leave all others as they are."""
    if spec["kernel"] == "interface":
        _, keys, _, mask, options = attention_call(layer)
        window, count = options.get("sliding_window"), keys.shape[2]
        wanted = wanted_rows(write, mask, (length, count), window, keys.device)
        new = attend(layer, wanted, write["row"], write["unit"], spec)
        put(read_z(layer, spec["heads"]).transpose(1, 2), write, new)
        return
    mask = eager_mask(layer)  # before the pattern, which comes later in the run
    view = read_pattern(layer, spec, length)
    size = (length, view.shape[-1])
    put(view, write, wanted_rows(write, mask, size, spec["windows"][index], view.device))


def attend(
    layer: Any,
    weights: Float[torch.Tensor, "entry position key"],
    row: Int[torch.Tensor, " entry"],
    unit: Int[torch.Tensor, " entry"],
    spec: ModelSpec,
) -> Float[torch.Tensor, "entry position dim"]:
    """Return what heads of a fused kernel put out under the given attention."""
    values = attention_call(layer)[2]
    shared = unit.to(values.device) * values.shape[1] // spec["heads"]
    outputs: torch.Tensor = weights.to(values.dtype) @ values[row.to(values.device), shared]
    return outputs


def wanted_rows(
    write: Write, mask: Any, size: Sequence[int], window: int | None, device: torch.device
) -> Float[torch.Tensor, "entry position key"]:
    """Return the rows to write: those given, cut to the keys that are there, or those of a fill.

    size: positions and keys. "uniform" is equal weight on every key that the mask allows.
    """
    length, keys = size
    if "values" in write:
        return write["values"][..., -keys:].to(device)
    row = write["row"]
    if write["fill"] == "zero":
        return torch.zeros(row.shape[0], length, keys, device=device)
    positions = torch.arange(length, device=device)
    share = equal(reachable(mask, positions, keys, keys - length, window))
    return share[row.to(device)] if share.shape[0] > 1 else share.expand(row.shape[0], -1, -1)


def equal(
    allowed: Bool[torch.Tensor, "row position key"],
) -> Float[torch.Tensor, "row position key"]:
    """Return equal weight on the allowed keys of each row; rows of padding see nothing."""
    share = allowed.float()
    return share / share.sum(-1, keepdim=True).clamp(min=1)

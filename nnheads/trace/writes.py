"""What each head writes into the residual stream, and what it adds to the logits, inside a trace.

    heads, components, difference = read_attribution(model, request, spec)

A norm divides by a scale that depends on everything in the stream. With that scale held at what it
was in the run (see `norms`), what heads, MLPs and embeddings write adds up to the logits exactly.

No weight is read: modules are called on inputs that show what they do, so that all of this also
runs where a model has no weights. Shipped to remote servers as source: torch only, no decorators.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int

from nnheads.trace.blocks import hidden, split_heads
from nnheads.trace.norms import PROBE, Norm, held_scale, normed, probe_norm, through
from nnheads.trace.plain import ModelSpec

__all__ = ["BLOCK", "PROBE"]
BLOCK = 256  # directions of the residual stream that the unembedding is asked about at a time
RowVector = Float[torch.Tensor, "row d_model"]


def unembedding_columns(
    model: Any, ids: Int[torch.Tensor, " token"], like: torch.Tensor
) -> tuple[Float[torch.Tensor, "token d_model"], Float[torch.Tensor, " token"]]:
    """Return the unembedding's columns of some tokens and their biases.

    It is asked about each direction of the stream.
    """
    width = like.shape[-1]
    every = model.unembedding(torch.zeros_like(like[:1]))
    where = ids.to(every.device)
    nothing = every[..., where].float().reshape(-1)
    columns = []
    for first in range(0, width, BLOCK):
        block = torch.zeros(min(BLOCK, width - first), width, dtype=like.dtype, device=like.device)
        block[:, first:].fill_diagonal_(1)
        columns.append(model.unembedding(block)[:, where].float() - nothing)
    return torch.cat(columns).T, nothing


def write_alone(
    layer: Any, z: Float[torch.Tensor, "*lead width"], heads: int
) -> Float[torch.Tensor, "*lead head d_model"]:
    """Return what W_O makes of each head by itself, without its bias."""
    own = split_heads(z, heads)
    alone = torch.eye(heads, device=z.device, dtype=z.dtype).unsqueeze(-1) * own.unsqueeze(-3)
    written: torch.Tensor = layer.attention.projection(alone.flatten(-2))
    return written - write_nothing(layer, z)


def write_nothing(layer: Any, z: torch.Tensor) -> Float[torch.Tensor, " d_model"]:
    """Return what attention writes when no head says anything: the projection's bias."""
    nothing = torch.zeros(1, z.shape[-1], dtype=z.dtype, device=z.device)
    bias: torch.Tensor = layer.attention.projection(nothing)[0]
    return bias


def attention_parts(
    layer: Any, spec: ModelSpec
) -> tuple[Float[torch.Tensor, "row head d_model"], RowVector, RowVector]:
    """Return what each head adds to the stream at the last position, the biases, and the total.

    A norm that follows attention keeps the run's scale.
    """
    z = layer.attention.projection.input[:, -1].clone()
    alone, nothing = write_alone(layer, z, spec["heads"]), write_nothing(layer, z)
    total = layer.attention.projection.output[:, -1].clone()
    if spec["post_norm"] is None:
        return alone.float(), nothing.float().expand_as(total), total.float()
    norm = getattr(layer, spec["post_norm"])
    after = norm.output[:, -1].clone()
    parts = probe_norm(norm, total)
    scale = held_scale(parts, total, after)[:, None]
    biases = normed(parts, nothing) * scale + parts["bias"]
    return normed(parts, alone) * scale.unsqueeze(-1), biases, after.float()


def direction_of(
    model: Any, request: dict[str, Any], like: torch.Tensor
) -> tuple[RowVector, Float[torch.Tensor, " row"]]:
    """Return W_U[answer] - W_U[wrong] of each row, and the difference of their biases."""
    if request.get("weight") is not None:
        weight, bias = request["weight"].to(like.device).float(), request.get("bias")
        bias = torch.zeros(weight.shape[:2]) if bias is None else bias.float()
        return weight[:, 0] - weight[:, 1], (bias[:, 0] - bias[:, 1]).to(like.device)
    ids, where = torch.unique(request["answers"], return_inverse=True)
    weight, bias = unembedding_columns(model, ids, like)
    where = where.to(weight.device)
    return weight[where[:, 0]] - weight[where[:, 1]], bias[where[:, 0]] - bias[where[:, 1]]


def read_attribution(
    model: Any, request: dict[str, Any], spec: ModelSpec
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the parts of logit(answer) - logit(wrong) at the last position; call inside a trace.

    It is that before any scale or cap of the logits.

    Args:
        request: `answers` [row, 2], and `weight` [row, 2, d_model], `bias` [row, 2] of the
            unembedding, if at hand.

    Returns:
        heads [row, layer, head]; components [row, component]: embedding, each layer's attention
        bias, each layer's MLP, the final norm's bias, the unembedding's bias; the difference [row].
    """
    first = model.layers[0].input[:, -1].clone()
    final = probe_norm(model.final_norm, first)
    after_norm, unembedding_bias = direction_of(model, request, first)
    direction = through(final, after_norm)
    layers = [layer_parts(layer, direction, spec) for layer in model.layers]
    heads, biases, mlps = (list(parts) for parts in zip(*layers))
    scale, difference = final_scale(model, final, request["answers"])
    there = difference.device
    embedding = (first.float() * direction.to(first.device)).sum(-1)
    scaled = stacked([embedding, *biases, *mlps], there) * scale[:, None]
    norm_bias = (after_norm * final["bias"].to(after_norm.device)).sum(-1)
    plain = stacked([norm_bias, unembedding_bias], there)
    return stacked(heads, there) * scale[:, None, None], torch.cat([scaled, plain], 1), difference


def layer_parts(
    layer: Any, direction: RowVector, spec: ModelSpec
) -> tuple[
    Float[torch.Tensor, "row head"], Float[torch.Tensor, " row"], Float[torch.Tensor, " row"]
]:
    """Return what one layer's heads, its attention biases and its MLP write along a direction."""
    before = layer.input[:, -1].clone().float()
    alone, nothing, total = attention_parts(layer, spec)
    own = direction.to(total.device)
    # a difference, because some families add attention's part or the stream inside the MLP
    mlp = hidden(layer.output)[:, -1].float() - before - total
    return torch.einsum("rhd,rd->rh", alone, own), (nothing * own).sum(-1), (mlp * own).sum(-1)


def final_scale(
    model: Any, final: Norm, answers: Int[torch.Tensor, "row 2"]
) -> tuple[Float[torch.Tensor, " row"], Float[torch.Tensor, " row"]]:
    """Return the final norm's scale in the run, and logit(answer) - logit(wrong)."""
    stream, after = model.final_norm.input[:, -1].clone(), model.final_norm.output[:, -1].clone()
    logits = model.unembedding.output[:, -1].float()
    own = logits.gather(-1, answers.to(logits.device))
    return held_scale(final, stream, after).to(logits.device), own[:, 0] - own[:, 1]


def stacked(parts: list[torch.Tensor], device: torch.device) -> torch.Tensor:
    """Stack parts that may be on several devices along axis 1."""
    return torch.stack([part.to(device) for part in parts], 1)

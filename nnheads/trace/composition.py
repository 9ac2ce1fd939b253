"""How much of what one head writes another one reads: products of low-rank maps from their factors.

    scores = compose(model, token, d_model, "k", spec)      # [layer, head, to layer, to head]

Queries, keys and values are linear in the normed residual stream, and what goes into a layer says
which rows they have: no weight is read, whatever a family's layout of them. Shipped to remote
servers as source: torch only, no decorators.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from nnsight import save

from nnheads.trace.blocks import leave_out
from nnheads.trace.kernels import for_each_head, kernel_input
from nnheads.trace.norms import normed, probe_norm
from nnheads.trace.plain import ModelSpec
from nnheads.trace.session import remote_of
from nnheads.trace.writes import BLOCK, PROBE, write_nothing

Maps = list[list[torch.Tensor]]  # by layer: those of queries, keys and values [d_model, head, dim]


def compose(
    model: Any, token: int, width: int, kind: str, spec: ModelSpec
) -> Float[torch.Tensor, "layer head to to_head"]:
    """Return the composition of every head with every head of a later layer, 0 for all others.

    kind: "q", "k" or "v".
    """
    with torch.no_grad(), model.session(remote=remote_of(model)):
        maps, outputs = read_factors(model, token, width, spec)
        sources = [
            core(value.transpose(0, 1)) @ output for (_, _, value), output in zip(maps, outputs)
        ]
        targets = [reading_map(own, output, kind) for own, output in zip(maps, outputs)]
        scores = save(overlaps(sources, targets).clone())
    return scores  # type: ignore[no-any-return]


def reading_map(
    maps: list[torch.Tensor], output: torch.Tensor, kind: str
) -> Float[torch.Tensor, "head d_model rank"]:
    """Return what heads read along one kind of path, up to a rotation of its last axis."""
    query, key, value = maps
    if kind == "v":
        first, second = value, output.transpose(1, 2)
    elif kind == "q":
        first, second = query, key.transpose(0, 1)
    else:
        first, second = key, query.transpose(0, 1)
    return first.transpose(0, 1) @ core(second).transpose(1, 2)


def overlaps(
    sources: list[torch.Tensor], targets: list[torch.Tensor]
) -> Float[torch.Tensor, "layer head to to_head"]:
    """Return the overlap of every head's writing with every later head's reading."""
    layers, heads = len(sources), sources[0].shape[0]
    scores = torch.zeros(layers, heads, layers, heads)
    for low, source in enumerate(sources):
        for high in range(low + 1, layers):
            scores[low, :, high] = overlap(source, targets[high].to(source.device)).cpu()
    return scores


def read_factors(
    model: Any, token: int, width: int, spec: ModelSpec
) -> tuple[Maps, list[torch.Tensor]]:
    """Return each layer's maps to queries, keys and values, and W_O [head, dim, d_model].

    Call inside a session. The maps [d_model, head, dim] are known up to one factor per layer; all
    have the norms' gains and centring in them. At position 0 rotary embeddings turn nothing.
    """
    blocks, outputs = [], []  # type: tuple[list[Any], list[torch.Tensor]]
    for first in range(0, width, BLOCK):
        ids = torch.full((2 * min(BLOCK, width - first), 1), token)
        with model.trace(ids, use_cache=False, logits_to_keep=1):
            rows, written = [], []
            for layer in model.layers:
                step_both_ways(layer, first)
                rows.append([half_difference(layer, site, spec) for site in "qkv"])
                if first == 0:
                    written.append(output_map(layer, spec))
            leave_out(model, len(list(model.layers)))
        blocks.append(rows)
        outputs = outputs or written
    maps = [[torch.cat(parts) for parts in zip(*own)] for own in zip(*blocks)]
    return maps, outputs


def step_both_ways(layer: Any, first: int) -> None:
    """Feed a block long steps along directions of the stream from `first` on, and against them.

    A norm before attention scales every direction alike, so half the difference between what the
    two give is that direction's row.
    """
    count = layer.input.shape[0] // 2
    steps = torch.zeros_like(layer.input[:count])
    steps[:, 0, first:].fill_diagonal_(PROBE)
    layer.input[:] = torch.cat([steps, -steps])


def half_difference(layer: Any, site: str, spec: ModelSpec) -> Float[torch.Tensor, "step head dim"]:
    """Return what the rows have by query head that were stepped along a direction.

    The second half of the rows was stepped the other way.
    """
    last = kernel_input(layer, site, spec)[..., -1:, :]
    every = for_each_head(last, spec["heads"])[:, :, 0].float()
    along, against = every.chunk(2)
    return (along - against) / 2


def output_map(layer: Any, spec: ModelSpec) -> Float[torch.Tensor, "head dim d_model"]:
    """Return W_O by head, with the gain of a norm that follows attention."""
    z = layer.attention.projection.input
    every = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
    alone = layer.attention.projection(every) - write_nothing(layer, z)
    if spec["post_norm"] is not None:
        alone = normed(probe_norm(getattr(layer, spec["post_norm"]), alone), alone)
    by_head: torch.Tensor = alone.float().unflatten(0, (spec["heads"], -1))
    return by_head


def core(tall: Float[torch.Tensor, "head d_model dim"]) -> Float[torch.Tensor, "head rank dim"]:
    """Return the triangular factor of each matrix: without the rotation, which no norm sees."""
    triangular: torch.Tensor = torch.linalg.qr(tall, mode="r").R
    return triangular


def overlap(
    source: Float[torch.Tensor, "head rank d_model"],
    target: Float[torch.Tensor, "to_head d_model rank"],
) -> Float[torch.Tensor, "head to_head"]:
    """Return ||source target|| / (||source|| ||target||) of all pairs, Frobenius.

    No d_model x d_model product is formed.
    """
    product = torch.einsum("hrd,gds->hrgs", source, target)
    norms = source.norm(dim=(1, 2))[:, None] * target.norm(dim=(1, 2))[None]
    shared = product.pow(2).sum((1, 3)).sqrt()
    ratio: torch.Tensor = shared / norms.clamp(min=1e-30)
    return ratio

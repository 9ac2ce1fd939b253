"""How much of what one head writes another one reads: products of low-rank maps, computed from
their factors.

Queries, keys and values are linear in the normed residual stream, and what is fed into a layer says
which rows they
have: no weight is read, whatever a family's layout of them. Shipped to remote servers as source:
    torch only, no
decorators.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from nnsight import save

from nnheads.trace.blocks import leave_out
from nnheads.trace.session import remote_of
from nnheads.trace.sites import kernel_input
from nnheads.trace.writes import BLOCK, PROBE, normed, probe_norm, write_nothing


def read_factors(model, token: int, width: int, form: dict):
    """Inside a session: each layer's queries, keys, values [d_model, head, dim] as linear maps of
    the residual stream, up to one factor per layer, and W_O [head, dim, d_model], all with the
    norms' gains and centring in them.

    A norm before attention scales every direction of the stream alike, so half the difference
    between a long step along a direction and one against it is that direction's row. At position 0
    rotary embeddings turn nothing.
    """
    gathered: list[list] = [[] for _ in model.layers]
    written: list[torch.Tensor] = []
    for first in range(0, width, BLOCK):
        count = min(BLOCK, width - first)
        ids = torch.full((2 * count, 1), token)
        with model.trace(ids, use_cache=False, logits_to_keep=1):
            rows, maps = [], []
            for layer in model.layers:
                steps = torch.zeros_like(layer.input[:count])
                steps[:, 0, first:].fill_diagonal_(PROBE)
                layer.input[:] = torch.cat([steps, -steps])
                rows.append([half_difference(layer, site, form) for site in "qkv"])
                if first == 0:
                    maps.append(output_map(layer, form))
            leave_out(model, len(list(model.layers)))
        for own, new in zip(gathered, rows):
            own.append(new)
        written = written or maps
    return [[torch.cat(parts) for parts in zip(*own)] for own in gathered], written


def half_difference(layer, site: str, form: dict) -> Float[torch.Tensor, "step head dim"]:
    """What the first half of the rows has ahead of the second, which was stepped the other way, by
    query head.
    """
    found = kernel_input(layer, site, form)[..., -1, :].float()
    if found.dim() == 3:
        found = found.repeat_interleave(form["heads"] // found.shape[1], 1)
    up, down = found.flatten(1, -2).chunk(2)
    return (up - down) / 2


def output_map(layer, form: dict) -> Float[torch.Tensor, "head dim d_model"]:
    """W_O by head, with the gain of a norm that follows attention."""
    z = layer.attention.projection.input
    every = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
    alone = layer.attention.projection(every) - write_nothing(layer, z)
    if form["post_norm"] is not None:
        alone = normed(probe_norm(getattr(layer, form["post_norm"]), alone), alone)
    return alone.float().unflatten(0, (form["heads"], -1))


def compose(
    model, token: int, width: int, kind: str, form: dict
) -> Float[torch.Tensor, "layer head to to_head"]:
    """Composition of every head with every head of a later layer, 0 for all others."""
    with torch.no_grad(), model.session(remote=remote_of(model)):
        maps, outputs = read_factors(model, token, width, form)
        sources, targets = [], []
        for (query, key, value), output in zip(maps, outputs):
            sources.append(core(value.transpose(0, 1)) @ output)
            output = output.transpose(1, 2)
            pair = {
                "q": (query, key.transpose(0, 1)),
                "k": (key, query.transpose(0, 1)),
                "v": (value, output),
            }[kind]
            targets.append(pair[0].transpose(0, 1) @ core(pair[1]).transpose(1, 2))
        found = torch.zeros(len(sources), form["heads"], len(sources), form["heads"])
        for low, source in enumerate(sources):
            for high in range(low + 1, len(targets)):
                found[low, :, high] = overlap(source, targets[high].to(source.device)).cpu()
        found = save(found.clone())
    return found


def core(tall: Float[torch.Tensor, "head d_model dim"]) -> Float[torch.Tensor, "head rank dim"]:
    """The triangular factor of each matrix: as long in every direction, without the rotation that
    no norm sees.
    """
    return torch.linalg.qr(tall, mode="r").R


def overlap(source, target) -> Float[torch.Tensor, "head to_head"]:
    """||source target|| / (||source|| ||target||) of all pairs, Frobenius; no d_model x d_model
    product is formed.
    """
    product = torch.einsum("hrd,gds->hrgs", source, target)
    norms = source.norm(dim=(1, 2))[:, None] * target.norm(dim=(1, 2))[None]
    return product.pow(2).sum((1, 3)).sqrt() / norms.clamp(min=1e-30)

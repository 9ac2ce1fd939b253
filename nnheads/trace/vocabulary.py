"""What heads' writes say of the vocabulary, through the final norm and the unembedding.

    readings = read_outputs(model, text, alone, ranked, spec)     # [row, layer, head, reading]

Shipped to remote servers as source: torch only, no decorators.
"""

from __future__ import annotations

from typing import Any, TypedDict

import torch
from jaxtyping import Float, Int
from nnsight import save

from nnheads.trace.blocks import hidden, leave_out
from nnheads.trace.kernels import for_each_head, kernel_input
from nnheads.trace.plain import Inputs, ModelSpec
from nnheads.trace.session import remote_of
from nnheads.trace.writes import write_alone

LOGITS = 2**24  # held at a time
Written = Float[torch.Tensor, "row head d_model"]


class Ranked(TypedDict):
    """Which tokens are ranked in the logits of each row's writes.

    ids: [row], the own one. members: [row, member], others whose logits are returned.
    pool: [token], of which those among the `top` are counted. heads: those of each layer.
    """

    ids: torch.Tensor
    members: torch.Tensor
    pool: torch.Tensor
    top: int
    heads: list[list[int]]


def read_outputs(
    model: Any, text: Inputs, alone: Inputs, ranked: Ranked, spec: ModelSpec
) -> Float[torch.Tensor, "row head reading"]:
    """Return the readings of `rank_outputs` for the write of every head asked for, layer by layer.

    The stream after the first block, where a text ends in the token, is what every head then gets:
    `text` and `alone` are the inputs of the texts and of their last tokens by themselves.
    """
    with torch.no_grad(), model.session(remote=remote_of(model)):
        with model.trace(**text, use_cache=False, logits_to_keep=1):
            output = model.layers[0].output
            stream = hidden(output)[:, -1:].clone()
            leave_out(model, 1, output)
        with model.trace(**alone, use_cache=False, logits_to_keep=1) as tracer:
            every = []
            for layer, heads in zip(model.layers, ranked["heads"]):
                if heads:
                    layer.input[:] = stream.to(layer.input.device)
                    every.append(rank_outputs(model, write_token(layer, spec)[:, heads], ranked))
            tracer.stop()
        readings = save(torch.cat([one.to(every[0].device) for one in every], 1))
    return readings  # type: ignore[no-any-return]


def write_token(layer: Any, spec: ModelSpec) -> Written:
    """Return what each head would write if it attended to the last position alone.

    That is W_O times its values there, after the norm that follows attention, if there is one.
    """
    value = for_each_head(kernel_input(layer, "v", spec)[..., -1:, :], spec["heads"])
    alone = write_alone(layer, value.flatten(1), spec["heads"])
    if spec["post_norm"] is None:
        return alone
    written: torch.Tensor = getattr(layer, spec["post_norm"])(alone)
    return written


def rank_outputs(
    model: Any, written: Written, ranked: Ranked
) -> Float[torch.Tensor, "row head reading"]:
    """Return what heads' writes say of the vocabulary.

    Readings: how many tokens are no lower than the row's own; how many are when the sign of the
    write is turned; how many are no higher in the write's own part of the logits; the own logit in
    it, above the vocabulary's mean; how many other tokens of the pool are among the top, among the
    top when turned, among the lowest, and below the mean; the logits of the row's members. Tokens
    that tie share the worst rank, so that a head which writes nothing ranks nothing.
    """
    rows, heads = written.shape[:2]
    flat = written.flatten(0, 1)
    nothing = model.unembedding(model.final_norm(torch.zeros_like(flat[:1]))).float()
    there = nothing.device
    own, members = (
        ranked[name].to(there).repeat_interleave(heads, 0) for name in ("ids", "members")
    )
    pool, top, step = ranked["pool"].to(there), ranked["top"], max(1, LOGITS // nothing.shape[-1])
    readings = []
    for first in range(0, flat.shape[0], step):
        logits = model.unembedding(model.final_norm(flat[first : first + step])).float()
        block = rank_block(logits, nothing, own[first : first + step], pool, top)
        member = logits.gather(1, members[first : first + step])
        readings.append(torch.cat([block, member], 1))
    return torch.cat(readings).unflatten(0, (rows, heads))  # type: ignore[no-any-return]


def rank_block(
    logits: Float[torch.Tensor, "write vocabulary"],
    nothing: Float[torch.Tensor, "1 vocabulary"],
    own: Int[torch.Tensor, " write"],
    pool: Int[torch.Tensor, " token"],
    top: int,
) -> Float[torch.Tensor, "write reading"]:
    """Return the readings of some writes, all but the members' logits."""
    mine, linear = own.unsqueeze(1), logits - nothing
    highest = ranks(logits, mine, pool, top, True)
    turned = ranks(nothing - linear, mine, pool, top, True)
    lowest = ranks(linear, mine, pool, top, False)
    level, mean = linear.gather(1, mine), linear.mean(1, keepdim=True)
    below = (linear[:, pool] < mean).sum(1) - (level < mean)[:, 0].long()
    each = (highest, turned, lowest)
    readings = [*(rank for rank, _ in each), (level - mean)[:, 0], *(n for _, n in each), below]
    return torch.stack([one.float() for one in readings], 1)


def ranks(
    logits: Float[torch.Tensor, "write vocabulary"],
    mine: Int[torch.Tensor, "write 1"],
    pool: Int[torch.Tensor, " token"],
    top: int,
    highest: bool,
) -> tuple[Int[torch.Tensor, " write"], Int[torch.Tensor, " write"]]:
    """Return each own token's rank from one end, and how many of the pool are at that end."""
    level, limit = logits.gather(1, mine), logits.topk(top + 1, largest=highest).values[:, -1:]
    pooled = logits[:, pool]
    above, others = (
        (logits >= level, pooled > limit) if highest else (logits <= level, pooled < limit)
    )
    rank = above.sum(1) - 1
    return rank, others.sum(1) - (rank < top).long()

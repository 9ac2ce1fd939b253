"""What each head writes into the residual stream, and what a norm makes of it, inside a trace.

A norm divides by a scale that depends on everything in the stream. With that scale held at what it
was in the run, a norm is linear, and what heads, feed-forward parts and embeddings write adds up to
the logits exactly.

No weight is read: modules are called on inputs that show what they do, so that all of this also
    runs where a model
has no weights. Shipped to remote servers as source: torch only, no decorators.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from nnsight import save

from nnheads.trace.blocks import hidden, leave_out, split_heads
from nnheads.trace.session import remote_of
from nnheads.trace.sites import kernel_input

PROBE = 1000.0  # so large that no norm's epsilon counts beside it
BLOCK = 256  # directions of the residual stream that the unembedding is asked about at a time
LOGITS = 2**24  # held at a time


def probe_norm(norm, like: torch.Tensor) -> dict:
    """`gain`, `bias` [d_model] of a norm, and whether it `centres`.

    `like`: a tensor of the width that it takes.
    """
    probe = torch.ones(like.shape[-1])
    probe[1::2] = -1
    probe = probe - probe.mean()  # nothing to centre away, and with this length nothing to scale
    probe = probe / probe.pow(2).mean().sqrt()
    sent = (PROBE * probe).to(like)
    up, down, moved = norm(sent).float(), norm(-sent).float(), norm(sent + PROBE).float()
    gain, bias = (up - down) / 2 / probe.to(up), (up + down) / 2
    return {
        "gain": gain,
        "bias": bias,
        "centres": bool((moved - up).abs().mean() < 0.1 * gain.abs().mean()),
    }


def normed(
    parts: dict, x: Float[torch.Tensor, "*lead d_model"]
) -> Float[torch.Tensor, "*lead d_model"]:
    """What a norm does besides scaling: its linear part."""
    x = x.float()
    return (x - x.mean(-1, keepdim=True) if parts["centres"] else x) * parts["gain"].to(x.device)


def held_scale(parts: dict, before, after) -> Float[torch.Tensor, " *lead"]:
    """The factor by which a norm scaled what it got in a run: after = factor * normed(before) +
    bias.
    """
    linear = normed(parts, before)
    unbiased = (after.float() - parts["bias"].to(after.device)).to(linear.device)
    return (unbiased * linear).sum(-1) / linear.pow(2).sum(-1)


def through(
    parts: dict, direction: Float[torch.Tensor, "*lead d_model"]
) -> Float[torch.Tensor, "*lead d_model"]:
    """What a direction after a norm is before it, up to the scale: <normed(x), d> = <x,
    through(d)>.
    """
    moved = direction.float() * parts["gain"].to(direction.device)
    return moved - moved.mean(-1, keepdim=True) if parts["centres"] else moved


def unembedding_columns(model, ids: Int[torch.Tensor, " token"], like: torch.Tensor):
    """The unembedding's columns of some tokens [token, d_model] and their biases [token], by asking
    it about each direction of the stream."""
    width = like.shape[-1]
    every = model.unembedding(torch.zeros_like(like[:1]))
    place = ids.to(every.device)
    nothing = every[..., place].float().reshape(-1)
    found = []
    for first in range(0, width, BLOCK):
        block = torch.zeros(min(BLOCK, width - first), width, dtype=like.dtype, device=like.device)
        block[:, first:].fill_diagonal_(1)
        found.append(model.unembedding(block)[:, place].float() - nothing)
    return torch.cat(found).T, nothing


def write_alone(layer, z: Float[torch.Tensor, "*lead width"], heads: int):
    """What W_O makes of each head by itself, without its bias: [..., head, d_model]."""
    own = split_heads(z, heads)
    alone = torch.eye(heads, device=z.device, dtype=z.dtype).unsqueeze(-1) * own.unsqueeze(-3)
    return layer.attention.projection(alone.flatten(-2)) - write_nothing(layer, z)


def write_nothing(layer, z: torch.Tensor) -> Float[torch.Tensor, " d_model"]:
    """What attention writes when no head says anything: the projection's bias."""
    nothing = torch.zeros(1, z.shape[-1], dtype=z.dtype, device=z.device)
    return layer.attention.projection(nothing)[0]


def attention_parts(layer, form: dict):
    """At the last position of a run: what each head adds to the stream [row, head, d_model], what
    attention's biases add, and all that attention adds [row, d_model]. A norm that follows
    attention keeps the run's scale."""
    z = layer.attention.projection.input[:, -1].clone()
    alone, nothing = write_alone(layer, z, form["heads"]), write_nothing(layer, z)
    total = layer.attention.projection.output[:, -1].clone()
    if form["post_norm"] is None:
        return alone.float(), nothing.float().expand_as(total), total.float()
    norm = getattr(layer, form["post_norm"])
    after = norm.output[:, -1].clone()
    parts = probe_norm(norm, total)
    scale = held_scale(parts, total, after)[:, None]
    biases = normed(parts, nothing) * scale + parts["bias"]
    return normed(parts, alone) * scale.unsqueeze(-1), biases, after.float()


def direction_of(model, asked: dict, like: torch.Tensor):
    """W_U[answer] - W_U[wrong] of each row [row, d_model], and the difference of their biases
    [row].
    """
    if asked.get("weight") is not None:
        weight, bias = asked["weight"].to(like.device).float(), asked.get("bias")
        bias = torch.zeros(weight.shape[:2]) if bias is None else bias.float()
        return weight[:, 0] - weight[:, 1], (bias[:, 0] - bias[:, 1]).to(like.device)
    ids, place = torch.unique(asked["answers"], return_inverse=True)
    weight, bias = unembedding_columns(model, ids, like)
    place = place.to(weight.device)
    return weight[place[:, 0]] - weight[place[:, 1]], bias[place[:, 0]] - bias[place[:, 1]]


def read_attribution(model, asked: dict, form: dict):
    """Inside a trace: logit(answer) - logit(wrong) at the last position, before any scale or cap of
    the logits, and the parts that it is the sum of.

    asked: `answers` [row, 2], and `weight` [row, 2, d_model], `bias` [row, 2] of the unembedding,
        if at hand.

    Returns:
        heads [row, layer, head]; components [row, component]: embedding, each layer's attention
        bias, each layer's feed-forward part, the final norm's bias, the unembedding's bias; the
        difference [row].
    """
    first = model.layers[0].input[:, -1].clone()
    final = probe_norm(model.final_norm, first)
    after_norm, unembedding_bias = direction_of(model, asked, first)
    direction = through(final, after_norm)
    heads, biases, feeds = [], [], []
    for layer in model.layers:
        before = layer.input[:, -1].clone().float()
        alone, nothing, total = attention_parts(layer, form)
        own = direction.to(total.device)
        heads.append(torch.einsum("rhd,rd->rh", alone, own))
        biases.append((nothing * own).sum(-1))
        # a difference, because some families add attention's part or the stream inside the
        # feed-forward module
        feeds.append(((hidden(layer.output)[:, -1].float() - before - total) * own).sum(-1))
    stream, after = model.final_norm.input[:, -1].clone(), model.final_norm.output[:, -1].clone()
    logits = model.unembedding.output[:, -1].float()
    answers = logits.gather(-1, asked["answers"].to(logits.device))
    there = logits.device
    scale = held_scale(final, stream, after).to(there)
    embedding = (first.float() * direction.to(first.device)).sum(-1)
    scaled = (
        torch.stack([part.to(there) for part in (embedding, *biases, *feeds)], 1) * scale[:, None]
    )
    norm_bias = (after_norm * final["bias"].to(after_norm.device)).sum(-1)
    plain = torch.stack([norm_bias.to(there), unembedding_bias.to(there)], 1)
    written = torch.stack([part.to(there) for part in heads], 1) * scale[:, None, None]
    return written, torch.cat([scaled, plain], 1), answers[:, 0] - answers[:, 1]


def write_token(layer, form: dict):
    """What each head would write if it attended to the last position alone: W_O times its values
    there [row, head, d_model], after the norm that follows attention, if there is one."""
    value = kernel_input(layer, "v", form)[..., -1, :]
    if value.dim() == 3:
        value = value.repeat_interleave(form["heads"] // value.shape[1], 1)
    alone = write_alone(
        layer, value.flatten(1), form["heads"]
    )  # Falcon has an axis of its own for each group
    return alone if form["post_norm"] is None else getattr(layer, form["post_norm"])(alone)


def rank_outputs(
    model, written, ids, pool, members, top: int
) -> Float[torch.Tensor, "row head reading"]:
    """What heads' writes [row, head, d_model] say of the vocabulary, through the final norm and the
    unembedding.

    Readings: how many tokens are no lower than the row's own (`ids`); how many are when the sign of
        the write is
    turned; how many are no higher in the write's own part of the logits; the own logit in it, above
    the vocabulary's mean; how many other tokens of `pool` are among the `top`, among the top when
    turned, among the lowest `top`, and below the mean; the logits of the row's `members` [row,
    member]. Tokens that tie share the worst rank, so that a head which writes nothing ranks
    nothing.
    """
    rows, heads = written.shape[:2]
    flat = written.flatten(0, 1)
    nothing = model.unembedding(model.final_norm(torch.zeros_like(flat[:1]))).float()
    there = nothing.device
    own, asked = (one.to(there).repeat_interleave(heads, 0) for one in (ids, members))
    pool, step = pool.to(there), max(1, LOGITS // nothing.shape[-1])
    found = []
    for first in range(0, flat.shape[0], step):
        logits = model.unembedding(model.final_norm(flat[first : first + step])).float()
        linear, mine = logits - nothing, own[first : first + step].unsqueeze(1)
        ranks, shared = [], []
        for one, highest in ((logits, True), (nothing - linear, True), (linear, False)):
            level, limit = one.gather(1, mine), one.topk(top + 1, largest=highest).values[:, -1:]
            ranks.append(((one >= level) if highest else (one <= level)).sum(1) - 1)
            others = (one[:, pool] > limit) if highest else (one[:, pool] < limit)
            shared.append(others.sum(1) - (ranks[-1] < top).long())
        mean = linear.mean(1, keepdim=True)  # `level` is now that of `linear`
        shared.append((linear[:, pool] < mean).sum(1) - (level < mean)[:, 0].long())
        readings = [*ranks, (level - mean)[:, 0], *shared]
        member = logits.gather(1, asked[first : first + step])
        found.append(torch.cat([torch.stack([one.float() for one in readings], 1), member], 1))
    return torch.cat(found).unflatten(0, (rows, heads))


def read_outputs(model, text: dict, alone: dict, ids, pool, members, top: int, form: dict):
    """Readings [row, layer, head, reading] of `rank_outputs` for every head's write at a token.

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
            for layer in model.layers:
                layer.input[:] = stream.to(layer.input.device)
                every.append(rank_outputs(model, write_token(layer, form), ids, pool, members, top))
            tracer.stop()
        found = save(torch.stack([one.to(every[0].device) for one in every], 1))
    return found

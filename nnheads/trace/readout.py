"""Answers are read inside a trace, so that logits over the vocabulary never leave it.

    readings = read_logits(model, request)     # [row, question, reading], the last thing of a trace

Shipped to remote servers as source: torch only.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int

from nnheads.trace.plain import Request

Readings = Float[torch.Tensor, "row question reading"]


def read_logits(model: Any, request: Request) -> Readings:
    """Return what is asked of a run's logits; the last thing that a trace reads.

    Readings: the answers' logits; with `full`, also each answer's rank (0 is the highest), the
    log-sum-exp, and KL(reference || run) if there is a `reference`. With `weight`, the logits of
    all other tokens are never computed.
    """
    final = model.unembedding.input
    if request["positions"] is not None:
        where = request["positions"].to(final.device).clamp(min=0)
        final = final.gather(1, where.unsqueeze(-1).expand(-1, -1, final.shape[-1]))
    if request.get("weight") is not None:
        # the model's own scale and soft cap still act on what it is given
        model.unembedding.skip(answer_logits(final, request))
        logits: torch.Tensor = model.output.logits.float().clone()
        return logits
    # a slice would be multiplied row by row, several times slower
    model.unembedding.input = final.contiguous()
    return logit_readings(model.output.logits, request)


def answer_logits(
    final: torch.Tensor, request: Request
) -> Float[torch.Tensor, "row question answer"]:
    """Return the answers' logits alone, from their columns of the unembedding."""
    weight, bias = request.get("weight"), request.get("bias")
    assert weight is not None, "columns are at hand"
    few = (weight.to(final.device) @ final.unsqueeze(-1)).squeeze(-1)
    return few if bias is None else few + bias.to(final.device)


def logit_readings(
    logits: Float[torch.Tensor, "row question vocabulary"], request: Request
) -> Readings:
    """Return the answers' logits, and with `full` what needs the whole vocabulary."""
    answers = request["answers"].to(logits.device)
    own = logits.gather(-1, answers).float()
    if not request["full"]:
        return own
    logits, count = logits.float(), answers.shape[-1]
    above = [(logits > own[..., i : i + 1]).sum(-1, keepdim=True) for i in range(count)]
    ranks = [one.float() for one in above]
    total = logits.logsumexp(-1, keepdim=True)
    return torch.cat([own, *ranks, total, divergence(logits, total, request.get("reference"))], -1)


def divergence(
    logits: Float[torch.Tensor, "row question vocabulary"],
    total: Float[torch.Tensor, "row question 1"],
    reference: Float[torch.Tensor, "row question vocabulary"] | None,
) -> Float[torch.Tensor, "row question 1"]:
    """Return KL(reference || run); 0 without a reference, where nobody asked for it."""
    if reference is None:
        return torch.zeros_like(total)
    reference = reference.to(logits.device)
    return (reference.exp() * (reference - (logits - total))).sum(-1, keepdim=True)


def read_answers(
    logits: Float[torch.Tensor, "row vocabulary"],
    answers: Int[torch.Tensor, "row answer"],
    candidates: Int[torch.Tensor, " candidate"],
) -> tuple[torch.Tensor, ...]:
    """Return per row the answers' logits and ranks, the log-sum-exp, and two best tokens.

    Rank 0 is the highest. The best tokens are that of the vocabulary and that of the candidates.
    """
    logits = logits.float()
    own = logits.gather(-1, answers.to(logits.device))
    rank = (logits.unsqueeze(1) > own.unsqueeze(2)).sum(-1)
    pool = candidates.to(logits.device)
    return own, rank, logits.logsumexp(-1), logits.argmax(-1), pool[logits[:, pool].argmax(-1)]


def readout(
    model: Any, residual: Float[torch.Tensor, "*lead d_model"], scale: float, cap: float | None
) -> Float[torch.Tensor, "*lead vocabulary"]:
    """Return log-probabilities that the unembedding would give a residual stream."""
    logits = model.unembedding(model.final_norm(residual)).float() * scale
    if cap:
        logits = torch.tanh(logits / cap) * cap
    likely: torch.Tensor = logits.log_softmax(-1)
    return likely


def answer_columns(
    model: Any, answers: Int[torch.Tensor, "*lead answer"]
) -> dict[str, torch.Tensor]:
    """Return the unembedding's columns of the answers for a request, where they are at hand.

    Remotely they are not, nor in a quantized model: the whole vocabulary is computed there.
    """
    module = model.unembedding._module
    weight = getattr(module, "weight", None)
    if type(module) is not torch.nn.Linear or weight is None:
        return {}
    if weight.is_meta or not weight.is_floating_point():
        return {}
    ids, bias = answers.to(weight.device), module.bias
    columns = {"weight": weight.detach()[ids]}
    return columns if bias is None else {**columns, "bias": bias.detach()[ids]}

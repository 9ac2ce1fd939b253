"""Reading answers inside a trace, so that logits over the vocabulary never leave it.

Shipped to remote servers as source: torch only.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int


def read_logits(model, ask: dict) -> Float[torch.Tensor, "row question reading"]:
    """What is asked of a run's logits; the last thing that a trace reads.

    ask: `place` [row, question], or None for the last position; `answers` [row, question, answer];
        `weight`
    [row, question, answer, d_model] and `bias` of the unembedding's columns, if they are at hand:
    the logits of all other tokens are then never computed. With `full` there are further readings:
    each answer's rank (0 is the highest), the log-sum-exp, and KL(reference || run) if there is a
    `reference` of log-probabilities.
    """
    final = model.unembedding.input
    if ask["place"] is not None:
        place = ask["place"].to(final.device).clamp(min=0)
        final = final.gather(1, place.unsqueeze(-1).expand(-1, -1, final.shape[-1]))
    if ask.get("weight") is not None:
        few = (ask["weight"].to(final.device) @ final.unsqueeze(-1)).squeeze(-1)
        if ask.get("bias") is not None:
            few = few + ask["bias"].to(final.device)
        model.unembedding.skip(
            few
        )  # the model's own scale and soft cap still act on what it is given
        return model.output.logits.float().clone()
    model.unembedding.input = (
        final.contiguous()
    )  # a slice would be multiplied row by row, several times slower
    return logit_readings(model.output.logits, ask)


def logit_readings(logits, ask: dict) -> Float[torch.Tensor, "row question reading"]:
    """The answers' logits, and with `full` what needs the whole vocabulary."""
    answers = ask["answers"].to(logits.device)
    own = logits.gather(-1, answers).float()
    if not ask["full"]:
        return own
    logits = logits.float()
    ranks = [
        (logits > own[..., i : i + 1]).sum(-1, keepdim=True).float()
        for i in range(answers.shape[-1])
    ]
    total = logits.logsumexp(-1, keepdim=True)
    reference = ask.get("reference")
    if reference is None:
        return torch.cat([own, *ranks, total, torch.zeros_like(total)], -1)
    reference = reference.to(logits.device)
    divergence = (reference.exp() * (reference - (logits - total))).sum(-1, keepdim=True)
    return torch.cat([own, *ranks, total, divergence], -1)


def read_answers(
    logits: Float[torch.Tensor, "row vocabulary"],
    answers: Int[torch.Tensor, "row answer"],
    candidates: Int[torch.Tensor, " candidate"],
):
    """Per row: the answers' logits and ranks (0 = highest), the log-sum-exp, and the best token
    overall and
    among the candidates. Shipped to remote servers: torch only."""
    logits = logits.float()
    own = logits.gather(-1, answers.to(logits.device))
    rank = (logits.unsqueeze(1) > own.unsqueeze(2)).sum(-1)
    pool = candidates.to(logits.device)
    return own, rank, logits.logsumexp(-1), logits.argmax(-1), pool[logits[:, pool].argmax(-1)]


def readout(model, residual, scale: float, cap: float | None):
    """Log-probabilities that the unembedding would give a residual stream [..., d_model]."""
    logits = model.unembedding(model.final_norm(residual)).float() * scale
    if cap:
        logits = torch.tanh(logits / cap) * cap
    return logits.log_softmax(-1)


def answer_columns(model, answers: Int[torch.Tensor, "row *question answer"]) -> dict:
    """Return the unembedding's columns of the answers, for `read_logits`, where its weights are at
    hand and plain.

    Remotely they are not, and the whole vocabulary is computed on the server.
    """
    module = model.unembedding._module
    weight = getattr(module, "weight", None)
    if (
        type(module) is not torch.nn.Linear
        or weight is None
        or weight.is_meta
        or not weight.is_floating_point()
    ):
        return {}
    ids = answers.to(weight.device)
    bias = module.bias
    return {
        "weight": weight.detach()[ids],
        **({} if bias is None else {"bias": bias.detach()[ids]}),
    }

"""Reading answers inside a trace, so that logits over the vocabulary never leave it.

Shipped to remote servers as source: torch only.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int


def answer_logits(
    logits: Float[torch.Tensor, "row vocabulary"], answers: Int[torch.Tensor, "row answer"]
) -> Float[torch.Tensor, "row answer"]:
    """The logits of each row's own answer tokens."""
    return logits.gather(-1, answers.to(logits.device)).float()


def read_answers(
    logits: Float[torch.Tensor, "row vocabulary"],
    answers: Int[torch.Tensor, "row answer"],
    candidates: Int[torch.Tensor, " candidate"],
):
    """Per row: the answers' logits and ranks (0 = highest), the log-sum-exp, and the best token overall and
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

"""How likely a model makes the scored tokens of texts that are given as a whole.

Shipped to remote servers as source: torch only. Logits stay where they are computed; one number a
    text comes back.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from nnsight import save

from nnheads.trace.edits import apply_edits


def log_probabilities(
    model,
    fed: dict,
    edits: list[dict],
    form: dict,
    tensors: dict,
    scored: Bool[torch.Tensor, "row kept"],
) -> Float[torch.Tensor, " row"]:
    """Sums over the scored tokens of each row, in nats; call inside a session.

    scored: of the last so many positions, and without the first of them, which nothing that is kept
        predicts.
    """
    rows, length = fed["input_ids"].shape
    keep = scored.shape[1] + 1
    with torch.no_grad(), model.trace(**fed, use_cache=False, logits_to_keep=keep):
        apply_edits(model, edits, form, rows, length, {}, tensors)
        found = save(summed(model.output.logits, fed["input_ids"][:, -keep:], scored))
    return found


def summed(
    logits: Float[torch.Tensor, "row position vocabulary"],
    ids: Int[torch.Tensor, "row position"],
    scored,
) -> Float[torch.Tensor, " row"]:
    """One row at a time: log probabilities of all rows in float32 would be large."""
    rows = []
    for own, token, wanted in zip(logits, ids, scored):
        likely = own[:-1].float().log_softmax(-1)
        each = likely.gather(-1, token[1:, None].to(likely.device))[:, 0]
        rows.append(torch.where(wanted.to(likely.device), each, 0.0).sum())
    return torch.stack(rows).cpu()

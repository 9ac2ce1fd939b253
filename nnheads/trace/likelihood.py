"""How likely a model makes the scored tokens of texts that are given as a whole.

    sums = log_probabilities(model, inputs, edits, spec, tensors, scored)     # [row], in nats

Shipped to remote servers as source: torch only. Logits stay where they are computed; one number a
text comes back.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from nnsight import save

from nnheads.trace.edits import Edit, apply_edits
from nnheads.trace.plain import Inputs, ModelSpec


def log_probabilities(
    model: Any,
    inputs: Inputs,
    edits: list[Edit],
    spec: ModelSpec,
    tensors: dict[str, Any],
    scored: Bool[torch.Tensor, "row kept"],
) -> Float[torch.Tensor, " row"]:
    """Return sums over the scored tokens of each row, in nats; call inside a session.

    scored: of the last so many positions, and without the first of them, which nothing that is kept
        predicts.
    """
    rows, length = inputs["input_ids"].shape
    keep = scored.shape[1] + 1
    with torch.no_grad(), model.trace(**inputs, use_cache=False, logits_to_keep=keep):
        apply_edits(model, edits, spec, rows, length, {}, tensors)
        sums = save(summed(model.output.logits, inputs["input_ids"][:, -keep:], scored))
    return sums  # type: ignore[no-any-return]


def summed(
    logits: Float[torch.Tensor, "row position vocabulary"],
    ids: Int[torch.Tensor, "row position"],
    scored: Bool[torch.Tensor, "row scored"],
) -> Float[torch.Tensor, " row"]:
    """Return sums of log probabilities, a row at a time: all of them in float32 would be large."""
    rows = []
    for own, token, wanted in zip(logits, ids, scored):
        likely = own[:-1].float().log_softmax(-1)
        each = likely.gather(-1, token[1:, None].to(likely.device))[:, 0]
        rows.append(torch.where(wanted.to(likely.device), each, 0.0).sum())
    return torch.stack(rows).cpu()

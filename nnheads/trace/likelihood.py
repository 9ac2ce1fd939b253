"""How likely a model makes the scored tokens of texts that are given as a whole.

    sums = log_probabilities(model, inputs, edits, spec, tensors, scored)     # [text], in nats

Shipped to remote servers as source: torch only. Logits stay where they are computed; one number a
text comes back.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from nnsight import save

from nnheads.trace.edits import Edit, apply_edits
from nnheads.trace.plain import Inputs, ModelSpec, Scored


def log_probabilities(
    model: Any,
    inputs: Inputs,
    edits: list[Edit],
    spec: ModelSpec,
    tensors: dict[str, Any],
    scored: Scored,
) -> Float[torch.Tensor, " text"]:
    """Return sums over the scored tokens of each text, in nats; call inside a session."""
    rows, length = inputs["input_ids"].shape
    with torch.no_grad(), model.trace(**inputs, use_cache=False, logits_to_keep=scored["keep"]):
        apply_edits(model, edits, spec, rows, length, {}, tensors)
        sums = save(summed(model.output.logits, scored))
    return sums  # type: ignore[no-any-return]


def summed(
    logits: Float[torch.Tensor, "row kept vocabulary"], scored: Scored
) -> Float[torch.Tensor, " text"]:
    """Return sums of log probabilities, a row at a time: all of them in float32 would be large."""
    sums = torch.zeros(scored["texts"])
    for own, before, token, text in zip(logits, scored["before"], scored["token"], scored["text"]):
        real = text >= 0
        likely = own[before[real].to(own.device)].float().log_softmax(-1)
        each = likely.gather(-1, token[real, None].to(own.device))[:, 0]
        sums.index_add_(0, text[real].to(sums.device), each.to(sums.device))
    return sums

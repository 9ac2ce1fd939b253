"""The forwards of an intervention: called inside a session, shipped to servers as source.

They need torch and nnsight alone. Edits and inputs arrive as plain data (`prepare`).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float

from nnheads.trace.edits import apply_edits, chosen, gathered, read
from nnheads.trace.plain import ModelSpec


def forward(
    model: Any,
    inputs: dict,
    edits: list[dict],
    known: dict,
    spec: ModelSpec,
    tensors: dict,
    keep: int,
) -> tuple[Float[torch.Tensor, "row position vocabulary"], dict]:
    """Run one forward with edits; return logits and what was collected.

    Args:
        known: what the edits take from source runs.
        keep: only the last so many positions' logits; 0 keeps all.
    """
    rows, length = inputs["input_ids"].shape
    with model.trace(**inputs, use_cache=False, logits_to_keep=keep):
        collected = apply_edits(model, edits, spec, rows, length, known, tensors)
        logits = model.output.logits
    return logits, collected


def features_of_sources(model: Any, sources: list, spec: ModelSpec, tensors: dict) -> dict:
    """Run every source; return what the edits take from them.

    Args:
        sources: `prepare.SourceRun`s, in order.
    """
    known: dict = {}
    for source in sources:
        known.update(features_of(model, source, known, spec, tensors))
    return known


def features_of(model: Any, source: Any, known: dict, spec: ModelSpec, tensors: dict) -> dict:
    """Run one source, with the edits before it in place; return what is read from it."""
    inputs, edits = source["inputs"], source["edits"]
    rows, length = inputs["input_ids"].shape
    steps = sorted([*source["reads"], *edits], key=lambda one: (one["rank"], "reads" in one))
    with model.trace(**inputs, use_cache=False, logits_to_keep=1):
        features = {}
        for step in steps:
            if "reads" in step:
                value = chosen(read(model, step, spec, rows, length), step)
                features[step["number"]] = gathered(value, step["where"]).clone()
            else:
                apply_edits(model, [step], spec, rows, length, known, tensors)
    return features

"""Measure the reference model again: every row of its card, with plain transformers and forward
hooks.

This check shares no code with the detectors but the solver of logistic regressions, which tests
hold to scikit-learn; so the two can confirm each other.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from nnheads.models.shipped import FOLDER as PATH
from nnheads.reference.abilities import (
    QUICK,
    _copying,
    _indirect_object,
    _iteration,
    _retrieval,
    _truth,
)
from nnheads.reference.claim import Claim
from nnheads.reference.seats import _attention, _negatives, _probes

FULL = 16


def measure(
    path_or_model: str | Path | PreTrainedModel = PATH, *, seed: int = 0, quick: bool = False
) -> list[Claim]:
    """Return all claims of the model card; `quick` draws fewer prompts."""
    families = (
        _attention,
        _copying,
        _indirect_object,
        _retrieval,
        _iteration,
        _truth,
        _probes,
        _negatives,
    )
    with _ready(path_or_model) as model, torch.no_grad():
        return [
            claim
            for family in families
            for claim in family(
                model, random.Random(f"{family.__name__} {seed}"), QUICK if quick else FULL
            )
        ]


@contextmanager
def _ready(path_or_model: str | Path | PreTrainedModel) -> Iterator[PreTrainedModel]:
    """Return the model in evaluation mode with attention that can be read; a caller's model is put
    back after.
    """
    if not isinstance(path_or_model, PreTrainedModel):
        path_or_model = AutoModelForCausalLM.from_pretrained(path_or_model)
    model = path_or_model
    before, was_training = model.config._attn_implementation, model.training
    # These products are small: one thread is as fast as many and does not stall where cores are
    # shared.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model.set_attn_implementation("eager")
    model.eval()
    try:
        yield model
    finally:
        model.set_attn_implementation(before)
        model.train(was_training)
        torch.set_num_threads(threads)

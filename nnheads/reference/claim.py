"""A row of the model card: what was measured, and which value it must reach."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from nnheads.reference.scaffold import PLANTED
from nnheads.reference.trials import Sentence, encode

PLACES = {job: head for head, job in PLANTED.items()}


@dataclass(frozen=True)
class Claim:
    """One row of the model card: what was measured and which value it must reach."""

    name: str
    measured: float
    threshold: float
    at_least: bool
    passed: bool


def at_least(name: str, measured: float, threshold: float) -> Claim:
    return Claim(name, measured, threshold, True, measured >= threshold)


def at_most(name: str, measured: float, threshold: float) -> Claim:
    return Claim(name, measured, threshold, False, measured <= threshold)


def label(head: tuple[int, int]) -> str:
    return "L{}H{}".format(*head)


def attention_to(
    model: PreTrainedModel, tokens: torch.Tensor, queries: torch.Tensor, keys: torch.Tensor
) -> torch.Tensor:
    """Return mean attention from query to key positions, [layer, head]."""
    rows = torch.arange(len(tokens))[:, None]
    patterns = model(tokens, output_attentions=True).attentions
    # Advanced indices around the head axis put it last: [batch, query, head].
    return torch.stack([pattern[rows, :, queries, keys].mean((0, 1)) for pattern in patterns])


def attention_from_end(model: PreTrainedModel, sentence: Sentence, key: int) -> torch.Tensor:
    """Return the attention from the end of one sentence to a position, [layer, head]."""
    tokens = encode([list(sentence.words)])
    end = torch.tensor([[len(sentence.words)]])
    return attention_to(model, tokens, end, torch.tensor([[key]]))

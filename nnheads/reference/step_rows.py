"""The rows of one training step of the reference model, in batches of like length."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch

from nnheads.reference import documents
from nnheads.reference.document import Document
from nnheads.reference.scaffold import (
    Targets,
    span_targets,
    token_targets,
)

SCAFFOLD_END = 0.25


# Rows per process and step before and after SCAFFOLD_END.
SHORT_ROWS = (
    {"indirect_object": 8, "facts": 12, "iteration": 8, "duplicates": 4},
    {"indirect_object": 8, "facts": 24, "iteration": 6, "duplicates": 3},
)


REPEAT_TOKENS = (1280, 1024)


NEEDLE_TOKENS = (1024, 1088)


# Row lengths as (until this share of the run, lengths to choose from).
REPEAT_LENGTHS = ((0.06, (24, 48)), (0.15, (48, 96, 200)), (1.0, (48, 96, 128, 200, 200, 256, 400)))


NEEDLE_LENGTHS = ((0.04, (64,)), (0.08, (128,)), (0.14, (128, 256)), (1.0, (128, 256, 400, 544)))


@dataclass
class Batch:
    """Rows of one length class: tokens, loss weights, tasks and attention targets."""

    tokens: torch.Tensor
    weights: torch.Tensor
    tasks: list[str]
    targets: dict[str, Targets]


def choose(rng: random.Random, table: tuple, progress: float) -> int:
    return rng.choice(next(lengths for until, lengths in table if progress <= until))


def collate(drawn: list[Document], generator: torch.Generator) -> Batch:
    length = max(len(document.tokens) for document in drawn)
    tokens = torch.zeros(len(drawn), length, dtype=torch.long)
    weights = torch.zeros(len(drawn), length)
    for row, document in enumerate(drawn):
        tokens[row, : len(document.tokens)] = torch.tensor(document.tokens)
        weights[row, : len(document.tokens)] = torch.tensor(document.weights)
    targets = token_targets(tokens, generator, copied=drawn[0].task == "repeat")
    targets |= span_targets([document.spans for document in drawn], length)
    return Batch(tokens, weights, [document.task for document in drawn], targets)


def draw(rng: random.Random, generator: torch.Generator, progress: float) -> list[Batch]:
    """Return the documents of one step, in batches of like length."""
    late = progress > SCAFFOLD_END
    short = [
        getattr(documents, name)(rng)
        for name, count in SHORT_ROWS[late].items()
        for _ in range(count)
    ]
    batches = [collate(short, generator)]
    sources = (
        (documents.repeats, REPEAT_LENGTHS, REPEAT_TOKENS),
        (documents.needle, NEEDLE_LENGTHS, NEEDLE_TOKENS),
    )
    for source, lengths, tokens in sources:
        length = choose(rng, lengths, progress)
        rows = [source(rng, length) for _ in range(max(1, round(tokens[late] / length)))]
        batches.append(collate(rows, generator))
    return batches

"""What an evaluation of inference-time intervention costs, before it is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Int

from nnheads.models.geometry import Geometry
from nnheads.truth.branches import tokens_read
from nnheads.truth.folds import folds as cut

FLOAT32 = 4  # bytes
Lengths = Int[np.ndarray, " statement"]
TEXT_SCORES = 3  # numbers of a neutral text: with the edit, without, and how far apart


@dataclass(frozen=True)
class Cost:
    """What goes through the model, and what comes back.

    rows: statements and neutral texts that are read. tokens: of these, what statements of one
    question share counted once, where the model reads it once. output_bytes: of the head outputs
    that are kept. score_bytes: to within padding, of the scores that come back.
    """

    rows: int
    tokens: int
    output_bytes: int
    score_bytes: int


@dataclass(frozen=True)
class Readings:
    """How often texts are read to be scored: each statement, each validation statement, a text."""

    statement: int
    validation: int
    neutral: int


def cost(
    model: Any,
    prompts: xr.Dataset,
    sizes: Geometry,
    *,
    folds: int,
    val_ratio: float,
    seed: int,
    cells: int,
    draws: int,
    neutral: Sequence[int],
) -> Cost:
    """Return the cost of `crossval.grid` and `crossval.evaluate`, and of their head outputs.

    Args:
        prompts: statements, `mask` (batch, position), `question` (batch).
        folds, val_ratio, seed: as for `folds.folds`.
        cells: of the grid; 0 where nothing is chosen.
        draws: of each control.
        neutral: tokens of each neutral text.
    """
    lengths = tokens_read(model, prompts).astype(np.int64)
    parts = cut(prompts.attrs["questions"], folds, seed=seed, val_ratio=val_ratio)
    question = prompts["question"].values
    validated = [lengths[np.isin(question, fold.validation)] for fold in parts]
    readings = _readings(folds, cells, draws)
    rows = _rows(lengths, validated, readings)
    tokens = int(lengths.sum() + _tokens(lengths, validated, readings))
    texts = readings.neutral * len(neutral)
    compared = readings.neutral // 2 * int(sum(neutral))
    return Cost(
        rows=len(lengths) + rows + texts,
        tokens=tokens + readings.neutral * int(sum(neutral)),
        output_bytes=FLOAT32 * len(lengths) * sizes.layers * sizes.heads * sizes.head_dim,
        score_bytes=FLOAT32 * rows + TEXT_SCORES * FLOAT32 * compared,
    )


def _readings(folds: int, cells: int, draws: int) -> Readings:
    """Return how often texts are read to be scored.

    Every statement is read in each condition: without edit, with it, and with `draws` random
    directions and as many random heads. Validation statements are read once without edit, and once
    a cell. Neutral texts are read twice (with and without) for each edit of each fold.
    """
    conditions = 2 + 2 * draws
    return Readings(
        statement=conditions,
        validation=1 + cells if cells else 0,
        neutral=2 * folds * (cells + conditions),
    )


def _rows(lengths: Lengths, validated: list[Lengths], readings: Readings) -> int:
    validation = sum(len(own) for own in validated)
    return len(lengths) * readings.statement + readings.validation * validation


def _tokens(lengths: Lengths, validated: list[Lengths], readings: Readings) -> int:
    validation = sum(int(own.sum()) for own in validated)
    return int(lengths.sum()) * readings.statement + readings.validation * validation

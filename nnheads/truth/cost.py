"""What an evaluation of inference-time intervention costs, before it is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from nnheads.models.geometry import Geometry
from nnheads.truth.folds import folds as cut


@dataclass(frozen=True)
class Cost:
    """`rows` of statements and neutral texts that go through the model, and their `tokens`; bytes
    of the head outputs that are kept, and, to within padding, of the scores that come back."""

    rows: int
    tokens: int
    output_bytes: int
    score_bytes: int


def cost(
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
    """Of `crossval.grid` and `crossval.evaluate`, with the head outputs that they need.

    Args:
        prompts: statements. cells: of the grid; 0 where nothing is chosen. neutral: tokens of each
            neutral text.

    Every statement is read once for its head outputs and once in each condition: without edit, with
    it, and with `draws` random directions and as many random heads. Validation statements are read
    once without edit, and once a cell. Neutral texts are read twice (with and without) for each
    edit of each fold.
    """
    lengths = prompts["mask"].values.sum(1).astype(np.int64)
    parts = cut(prompts.attrs["questions"], folds, seed=seed, val_ratio=val_ratio)
    question = prompts["question"].values
    validated = [np.isin(question, fold.validation) for fold in parts]
    conditions = 2 + 2 * draws
    chosen = 1 + cells if cells else 0
    scored = len(lengths) * conditions + chosen * sum(int(own.sum()) for own in validated)
    twice = 2 * folds * (cells + conditions)
    return Cost(
        rows=len(lengths) + scored + twice * len(neutral),
        tokens=int(
            lengths.sum() * (1 + conditions) + chosen * sum(lengths[own].sum() for own in validated)
        )
        + twice * int(sum(neutral)),
        output_bytes=4 * len(lengths) * sizes.layers * sizes.heads * sizes.head_dim,
        score_bytes=4 * scored + 3 * 4 * twice // 2 * int(sum(neutral)),
    )

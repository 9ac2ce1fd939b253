"""Folds over questions: all answers of a question are on one side, or a probe is tested on what it
was taught.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnheads.errors import BadInput

PARTS = "0: the question trains in this fold, 1: it validates, 2: it tests, -1: neither"


@dataclass(frozen=True)
class Fold:
    """Numbers of the questions to train on, to choose heads by, and to test on; no number is in two
    of them.
    """

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]


def folds(
    questions: int, count: int = 2, *, seed: int = 42, val_ratio: float = 0.2
) -> tuple[Fold, ...]:
    """Questions in their order, cut into `count` parts of equal size (within one); each is once the
    test part.

    Of the others, `val_ratio` validate and the rest train, drawn with numpy's legacy generator,
    which gives the same draw in every version, seeded once for all folds.

    Raises:
        BadInput: fewer than two folds, a ratio outside 0 to 1, a negative seed, or too few
            questions for each part to have one.

    Source: Li et al. 2023, arXiv 2306.03341 (its published code draws the same folds).
    """
    if count < 2:
        raise BadInput(f"{count} folds leave no question to test on; at least 2")
    if not 0 < val_ratio < 1:
        raise BadInput(
            f"a validation share of {val_ratio} is not possible; it must lie between 0 and 1"
        )
    if not 0 <= seed < 2**32:
        raise BadInput(
            f"seed {seed} is not possible for folds; it must lie between 0 and {2**32 - 1}"
        )
    if questions < count:
        raise BadInput(f"{questions} questions cannot be cut into {count} folds")
    generator, found = np.random.RandomState(seed), []
    parts = np.array_split(np.arange(questions), count)
    for number, test in enumerate(parts):
        pool = np.concatenate([part for other, part in enumerate(parts) if other != number])
        train = generator.choice(pool, size=int(len(pool) * (1 - val_ratio)), replace=False)
        rest = np.setdiff1d(pool, train)
        if not len(train) or not len(rest):
            raise BadInput(
                f"{questions} questions leave none to train on or to validate in a fold; use more"
                " questions"
            )
        found.append(Fold(*(tuple(sorted(map(int, part))) for part in (train, rest, test))))
    return tuple(found)


def parts_of(question: np.ndarray, cut: Sequence[Fold]) -> np.ndarray:
    """[row, fold], int8: 0 where a row's question trains, 1 where it validates, 2 where it tests,
    -1 elsewhere.

    Raises BadInput for a question in two parts of a fold, or in the test part of two folds.
    """
    question, found = np.asarray(question), np.full((len(question), len(cut)), -1, np.int8)
    for number, fold in enumerate(cut):
        parts = (fold.train, fold.validation, fold.test)
        every = [one for part in parts for one in part]
        if len(set(every)) < len(every):
            raise BadInput(
                f"a question is in two parts of fold {number}; a probe would be tested on what it"
                " was taught"
            )
        for kind, part in enumerate(parts):
            found[np.isin(question, part), number] = kind
    if ((found == 2).sum(1) > 1).any():
        raise BadInput("a question is in the test part of two folds; each may be tested once")
    return found


def folds_of(question: np.ndarray, part: np.ndarray) -> tuple[Fold, ...]:
    """The folds that `parts_of` laid out, of the questions that have rows."""
    return tuple(
        Fold(*(tuple(np.unique(question[part[:, fold] == kind]).tolist()) for kind in range(3)))
        for fold in range(part.shape[1])
    )

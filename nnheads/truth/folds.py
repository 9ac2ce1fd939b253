"""Folds over questions: all answers of a question are on one side.

Otherwise a probe would be tested on what it was taught.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from nnheads.errors import BadInput

PARTS = "0: the question trains in this fold, 1: it validates, 2: it tests, -1: neither"


class TooFew(BadInput):
    """Questions that are too few to be cut into folds."""


@dataclass(frozen=True)
class Fold:
    """Numbers of the questions to train on, to choose heads by, and to test on.

    No number is in two of them.
    """

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]

    @property
    def parts(self) -> tuple[tuple[int, ...], ...]:
        """The parts in the order of PARTS."""
        return self.train, self.validation, self.test


def folds(
    questions: int, count: int = 2, *, seed: int = 42, val_ratio: float = 0.2
) -> tuple[Fold, ...]:
    """Cut questions, in their order, into `count` parts of equal size; each is once the test part.

    Of the others, `val_ratio` validate and the rest train, drawn with numpy's legacy generator,
    which gives the same draw in every version, seeded once for all folds.

    Raises:
        BadInput: fewer than two folds, a ratio outside 0 to 1, or a negative seed.
        TooFew: too few questions for each part to have one.

    Source: Li et al. 2023, arXiv 2306.03341 (its published code draws the same folds).
    """
    _check(questions, count, seed, val_ratio)
    generator, cut = np.random.RandomState(seed), []
    parts = np.array_split(np.arange(questions), count)
    for number, test in enumerate(parts):
        pool = np.concatenate([part for other, part in enumerate(parts) if other != number])
        train = generator.choice(pool, size=int(len(pool) * (1 - val_ratio)), replace=False)
        rest = np.setdiff1d(pool, train)
        if not len(train) or not len(rest):
            raise TooFew(
                f"{questions} questions leave none to train on or to validate in a fold; use more"
                " questions"
            )
        cut.append(Fold(_sorted(train), _sorted(rest), _sorted(test)))
    return tuple(cut)


def _check(questions: int, count: int, seed: int, val_ratio: float) -> None:
    """Refuse folds that cannot be."""
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
        raise TooFew(f"{questions} questions cannot be cut into {count} folds")


def _sorted(numbers: np.ndarray) -> tuple[int, ...]:
    return tuple(sorted(map(int, numbers)))


def parts_of(question: np.ndarray, cut: Sequence[Fold]) -> Int[np.ndarray, "row fold"]:
    """Return the part of each fold that each row's question is in, int8: see PARTS.

    Raises:
        BadInput: a question in two parts of a fold, or in the test part of two folds.
    """
    question = np.asarray(question)
    part = np.full((len(question), len(cut)), -1, np.int8)
    for number, fold in enumerate(cut):
        _check_apart(fold, number)
        for kind, questions in enumerate(fold.parts):
            part[np.isin(question, questions), number] = kind
    if ((part == 2).sum(1) > 1).any():
        raise BadInput("a question is in the test part of two folds; each may be tested once")
    return part


def _check_apart(fold: Fold, number: int) -> None:
    if max(Counter(sum(fold.parts, ())).values(), default=0) > 1:
        raise BadInput(
            f"a question is in two parts of fold {number}; a probe would be tested on what it"
            " was taught"
        )


def folds_of(question: np.ndarray, part: Int[np.ndarray, "row fold"]) -> tuple[Fold, ...]:
    """Return the folds that `parts_of` laid out, of the questions that have rows."""
    cut = []
    for own in part.T:
        train, validation, test = (_sorted(np.unique(question[own == kind])) for kind in range(3))
        cut.append(Fold(train, validation, test))
    return tuple(cut)

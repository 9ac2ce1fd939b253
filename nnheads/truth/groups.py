"""Statements by question: answers of a question stand and fall together, so they are counted so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Groups:
    """Which question each statement is of. number: counted from 0; answers: how many it has."""

    number: Int[np.ndarray, " statement"]
    answers: Int[np.ndarray, " question"]

    def __len__(self) -> int:
        return len(self.answers)

    def sums(self, values: Float[np.ndarray, "statement ..."]) -> Float[np.ndarray, "question ..."]:
        """Return sums over the statements of each question."""
        totals = np.zeros((len(self), *values.shape[1:]))
        np.add.at(totals, self.number, values)
        return totals


def groups_of(question: np.ndarray) -> Groups:
    """Return the groups of statements whose questions have these names."""
    _, number, answers = np.unique(question, return_inverse=True, return_counts=True)
    return Groups(number, answers)

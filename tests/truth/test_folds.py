"""Folds over questions: what the published code draws, the same every time, and no question on two
sides.
"""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from nnheads.errors import BadInput
from nnheads.truth.folds import Fold, folds, folds_of, parts_of


@pytest.mark.parametrize("questions", [817, 790])
def test_folds_are_those_of_the_published_procedure(questions):
    """array_split in the order of the data set; numpy's global seed 42, and 80 % of the other folds
    to train on.
    """
    state = np.random.get_state()
    try:
        np.random.seed(42)
        cut = np.array_split(np.arange(questions), 2)
        expected = []
        for fold in range(2):
            pool = np.concatenate([cut[other] for other in range(2) if other != fold])
            train = np.random.choice(pool, size=int(len(pool) * 0.8), replace=False)
            validation = [one for one in pool if one not in set(train)]
            expected.append(Fold(tuple(sorted(train)), tuple(validation), tuple(cut[fold])))
    finally:
        np.random.set_state(state)
    assert folds(questions) == tuple(expected)


def test_the_first_questions_of_a_fold_do_not_change():
    """Pinned: results that were saved under one version have to stand under the next."""
    first, second = folds(817)
    assert [len(part) for part in (first.train, first.validation, first.test)] == [326, 82, 409]
    assert first.validation[:5] == PINNED[0] and second.validation[:5] == PINNED[1]


PINNED = ((410, 422, 429, 430, 443), (0, 3, 9, 15, 22))


@hypothesis.given(
    st.integers(6, 300), st.integers(2, 5), st.floats(0.1, 0.6), st.integers(0, 2**32 - 1)
)
def test_folds_cover_all_questions_and_split_none(questions, count, share, seed):
    try:
        cut = folds(questions, count, seed=seed, val_ratio=share)
    except BadInput:
        assert questions < 20  # too few for each part to have one
        return
    assert cut == folds(questions, count, seed=seed, val_ratio=share)
    assert sorted(one for fold in cut for one in fold.test) == list(range(questions))
    for fold in cut:
        assert sorted(fold.train + fold.validation + fold.test) == list(range(questions))
        assert fold.train and fold.validation and fold.test
    part = parts_of(np.arange(questions), cut)
    assert ((part == 2).sum(1) == 1).all() and folds_of(np.arange(questions), part) == cut


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((10, 1), {}, "1 folds leave no question to test on; at least 2"),
        ((10,), {"val_ratio": 0.0}, "a validation share of 0.0 is not possible"),
        ((10,), {"val_ratio": 1.0}, "a validation share of 1.0 is not possible"),
        ((10,), {"seed": -1}, "seed -1 is not possible for folds"),
        ((10,), {"seed": 2**32}, "seed 4294967296 is not possible for folds"),
        ((1,), {}, "1 questions cannot be cut into 2 folds"),
        ((2,), {}, "2 questions leave none to train on or to validate"),
    ],
)
def test_folds_that_cannot_be_cut_are_refused(arguments, options, message):
    with pytest.raises(BadInput, match=message):
        folds(*arguments, **options)


def test_rows_follow_their_question_and_leaks_are_refused():
    cut = (Fold((0,), (1,), (2, 3)), Fold((2,), (3,), (0,)))
    part = parts_of(np.array([3, 3, 0, 1, 7]), cut)
    assert part.tolist() == [[2, 1], [2, 1], [0, 2], [1, -1], [-1, -1]]
    with pytest.raises(BadInput, match="a question is in two parts of fold 1"):
        parts_of(np.arange(3), (cut[0], Fold((0,), (1,), (0,))))
    with pytest.raises(BadInput, match="a question is in the test part of two folds"):
        parts_of(np.arange(3), (cut[0], Fold((0,), (1,), (2,))))

"""How good are probes, and how much of it could be chance? From what they say of held-out text.

    heads = chosen(judge(scores), 100)    # scores of `probes.scores_of`

The unit is the question: its answers stand and fall together, so intervals draw questions, not
answers. Chance is what the same decisions would be right by if the labels within each question were
shuffled, see `shuffled_labels`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from nnheads.stats import MARGIN, RATE, discoveries, ends, greater_than, ranked, resamples
from nnheads.truth.curve_area import REACH, area
from nnheads.truth.groups import groups_of
from nnheads.truth.shuffled_labels import p_of_shuffles

CELL = ("layer", "head")
FOLD = ("fold", "layer", "head")
VALIDATION, TEST = 1, 2
SOURCE = "Li et al. 2023, arXiv 2306.03341"
MEANING = {
    "accuracy": "share of a fold's test statements judged right",
    "auc": "area under the curve on a fold's test statements",
    "validation": "share of a fold's validation statements judged right",
    "chance": "accuracy with labels shuffled within questions",
    "fold_p_value": "p of no more than chance and margin in a fold",
    "correct": "share of held-out statements judged right",
    "null": "share of held-out statements judged right, labels shuffled within questions",
    "score": "decision value of held-out statements, positive where right",
    "excess": "share judged right beyond shuffled labels",
    "mean_auc": "area under the curve, mean over folds",
    "mean_validation": "share of validation statements judged right, mean over folds",
}
P_MEANING = "p of no more than chance and margin, largest of all folds"
Heads = Float[np.ndarray, "layer head"]
Rows = Float[np.ndarray, "statement layer head"]
Drawn = Float[np.ndarray, "draw layer head"]


@dataclass(frozen=True)
class Said:
    """What probes say of statements: decisions [statement, layer, head], which fold's they are."""

    label: Bool[np.ndarray, " statement"]
    question: np.ndarray
    correct: Rows
    null: Rows
    decision: Rows

    def of(self, rows: Bool[np.ndarray, " statement"]) -> Said:
        """Return the same of some statements."""
        return Said(**{name: values[rows] for name, values in vars(self).items()})


@dataclass(frozen=True)
class FoldResult:
    """What the probes of one fold are worth; drawn, drawn_excess: of each resample."""

    accuracy: Heads
    chance: Heads
    fold_p_value: Heads
    auc: Heads
    auc_error: Heads
    validation: Heads
    drawn: Drawn
    drawn_excess: Drawn


def judge(
    scores: xr.Dataset, *, margin: float = MARGIN, rate: float = RATE, seed: int = 0
) -> xr.Dataset:
    """Return accuracy, area under the curve and their intervals, in each fold and over all.

    A head is flagged when its accuracy on held-out questions exceeds that of shuffled labels by
    more than `margin`, at a false discovery rate of `rate` over all heads (Benjamini and Hochberg).
    Its p value is the larger of two: a one-sided t test over questions against the margin, and the
    share of shuffles that do as well. It is the largest of all folds, so that a head must pass in
    each: two folds teach and test each other, and their results are far from independent.

    Args:
        scores: `correct`, `null`, `score` (batch, layer, head), `decision` (also fold), coordinates
            `label`, `question` (batch), `part` (batch, fold), as `probes.scores_of` returns them.

    Returns:
        (fold, layer, head): `accuracy`, `auc` with `_low`, `_high`; `validation`; `chance`;
        `fold_p_value`. (layer, head): `correct`, `excess`, `mean_auc` with `_low`, `_high`; `null`,
        `score`, `mean_validation`, `p_value`, `q_value`, `flag`.

    Source: Li et al. 2023, arXiv 2306.03341.
    """
    generator = np.random.default_rng(seed)
    folds = [_of_fold(scores, fold, margin, generator) for fold in range(scores.sizes["fold"])]
    by_fold = {name: (FOLD, values) for name, values in _by_fold(folds).items()}
    by_head = {name: (CELL, values) for name, values in _over_folds(folds, scores).items()}
    heads = _labelled({**by_fold, **by_head})
    p_value = np.max([fold.fold_p_value for fold in folds], 0)
    tested = discoveries(p_value, P_MEANING, "more than chance", rate=rate, margin=margin)
    for name, (dims, values, attrs) in tested.items():
        heads[name] = (dims, values, {**attrs, "source": SOURCE})
    return heads.assign_coords({name: scores[name] for name in FOLD if name in scores.coords})


def _of_fold(
    scores: xr.Dataset, fold: int, margin: float, generator: np.random.Generator
) -> FoldResult:
    """Return what the probes of a fold say of its test and its validation statements."""
    part = scores["part"].transpose("batch", "fold").values[:, fold]
    said = Said(
        label=scores["label"].values == 1,
        question=scores["question"].values,
        correct=_rows(scores, "correct"),
        null=_rows(scores, "null"),
        decision=scores["decision"].transpose("batch", "fold", *CELL).values[:, fold],
    )
    validation = said.of(part == VALIDATION)
    right = (validation.decision > 0) == validation.label[:, None, None]
    return _tested(said.of(part == TEST), right.mean(0), margin, generator)


def _rows(scores: xr.Dataset, name: str) -> Rows:
    return scores[name].transpose("batch", *CELL).values.astype(float)


def _tested(
    said: Said, validation: Heads, margin: float, generator: np.random.Generator
) -> FoldResult:
    """Return accuracy and its resamples, the area and p of a fold's test statements."""
    groups = groups_of(said.question)
    right, expected = groups.sums(said.correct), groups.sums(said.null)
    # the mean over questions of this is the mean over statements
    excess = (right - expected) / groups.answers.mean()
    p_shuffles = p_of_shuffles(said.correct, said.null, said.label, groups)
    counts = resamples(len(groups), generator).astype(float)
    drawn, drawn_null = (
        np.tensordot(counts, each, 1) / (counts @ groups.answers)[:, None, None]
        for each in (right, expected)
    )
    return FoldResult(
        accuracy=said.correct.mean(0),
        chance=said.null.mean(0),
        fold_p_value=np.maximum(greater_than(excess, margin), p_shuffles),
        validation=validation,
        drawn=drawn,
        drawn_excess=drawn - drawn_null,
        **area(said.decision, said.label, said.question),
    )


def _by_fold(folds: list[FoldResult]) -> dict[str, np.ndarray]:
    """Return the numbers of each fold by itself, [fold, layer, head]."""
    names = ("accuracy", "auc", "validation", "chance", "fold_p_value")
    values = {name: np.stack([getattr(fold, name) for fold in folds]) for name in names}
    bounds = np.stack([ends(fold.drawn) for fold in folds], 1)
    error = np.stack([fold.auc_error for fold in folds])
    low, high = _around(values["auc"], REACH * error)
    return values | {
        "accuracy_low": bounds[0],
        "accuracy_high": bounds[1],
        "auc_low": low,
        "auc_high": high,
    }


def _around(value: np.ndarray, reach: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the interval of an area, which lies between 0 and 1."""
    return (value - reach).clip(0, 1), (value + reach).clip(0, 1)


def _over_folds(folds: list[FoldResult], scores: xr.Dataset) -> dict[str, Heads]:
    """Return the numbers about all folds; questions are drawn in each fold by itself."""
    values = {name: _rows(scores, name) for name in ("correct", "null", "score")}
    known = ~np.isnan(values["correct"]).all((1, 2))
    heads: dict[str, Heads] = {name: each[known].mean(0) for name, each in values.items()}
    heads["excess"] = heads["correct"] - heads["null"]
    for name, drawn in (("correct", "drawn"), ("excess", "drawn_excess")):
        mean = np.mean([getattr(fold, drawn) for fold in folds], 0)
        heads[f"{name}_low"], heads[f"{name}_high"] = ends(mean)
    return heads | _areas(folds)


def _areas(folds: list[FoldResult]) -> dict[str, Heads]:
    """Return means over folds of the area, with its interval, and of validation accuracy."""
    mean = np.mean([fold.auc for fold in folds], 0)
    error = np.sqrt(np.sum([fold.auc_error**2 for fold in folds], 0)) / len(folds)
    low, high = _around(mean, REACH * error)
    validation = np.mean([fold.validation for fold in folds], 0)
    return {
        "mean_auc": mean,
        "mean_auc_low": low,
        "mean_auc_high": high,
        "mean_validation": validation,
    }


def _labelled(variables: dict[str, tuple[tuple[str, ...], np.ndarray]]) -> xr.Dataset:
    heads = xr.Dataset()
    for name, (dims, values) in variables.items():
        attrs: dict[str, Any] = {"long_name": _meaning(name), "units": "1", "source": SOURCE}
        heads[name] = (dims, np.asarray(values, np.float32), attrs)
    return heads


def _meaning(name: str) -> str:
    if name in MEANING:
        return MEANING[name]
    of, _, end = name.rpartition("_")
    return f"{'lower' if end == 'low' else 'upper'} end of the 95% interval of {MEANING[of]}"


def chosen(heads: xr.Dataset, count: int) -> xr.Dataset:
    """Add `rank` and `chosen` (layer, head) by validation accuracy over all folds.

    Test questions have no say in it; heads that are equal rank in their order.

    Args:
        heads: `mean_validation` (layer, head).
        count: how many heads are chosen.
    """
    values = heads["mean_validation"].transpose(*CELL).values
    order = ranked(values, unknown=True)
    rank = np.argsort(order).reshape(values.shape).astype(np.int32)
    about_rank = {"long_name": "place by validation accuracy over all folds", "units": "1"}
    among = f"among the {min(count, rank.size)} best by validation accuracy"
    about_chosen = {"long_name": among, "units": "1"}
    return heads.assign(
        rank=(CELL, rank, about_rank),
        chosen=(CELL, (rank < count).astype("int8"), about_chosen),
    )

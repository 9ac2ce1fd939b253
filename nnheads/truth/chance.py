"""How good are probes, and how much of it could be chance? From what they said of held-out
statements.

The unit is the question: its answers stand and fall together, so intervals draw questions, not
    answers. Chance is what
the same decisions would be right by if the labels within each question were shuffled: the number of
true answers stays, and with it what can be known without reading the answers. The mean and the
variance over all shuffles are known exactly (sums of hypergeometric variables), so nothing is
drawn.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy import stats as scipy_stats

from nnheads.stats import CONFIDENCE, MARGIN, adjusted, ends, greater_than, ranked, resamples

CELL = ("layer", "head")
FOLD = ("fold", "layer", "head")
VALIDATION, TEST = 1, 2


def judge(
    scores: xr.Dataset, *, margin: float = MARGIN, rate: float = 0.05, seed: int = 0
) -> xr.Dataset:
    """Accuracy, area under the curve and their intervals, in each fold and over all.

    A head is flagged when its accuracy on held-out questions exceeds that of shuffled labels by
    more than `margin`, at a false discovery rate of `rate` over all heads (Benjamini and Hochberg).
    Its p value is the larger of two: a one-sided t test over questions against the margin, and the
        share of shuffles that do as well (normal approximation
    with exact moments, half a step off for continuity). It is the largest of all folds, so that a
    head must pass in
    each: two folds teach and test each other, and their results are far from independent.

    Args:
        scores: `correct`, `null`, `score` (batch, layer, head), `decision` (also fold), coordinates
            `label`, `question` (batch), `part` (batch, fold), as `probes.scores_of` returns them.

    Returns:
        (fold, layer, head): `accuracy`, `auc` with `_low`, `_high`; `validation`; `chance`;
        `fold_p_value`. (layer, head): `correct`, `excess`, `mean_auc` with `_low`, `_high`; `null`,
            `score`, `mean_validation`,
        `p_value`, `q_value`, `flag`.
    """
    part, label = scores["part"].transpose("batch", "fold").values, scores["label"].values == 1
    decision = scores["decision"].transpose("batch", "fold", *CELL).values
    rows = {
        name: scores[name].transpose("batch", *CELL).values.astype(float)
        for name in ("correct", "null", "score")
    }
    generator, folds = np.random.default_rng(seed), []
    for fold in range(part.shape[1]):
        own, other = part[:, fold] == TEST, part[:, fold] == VALIDATION
        tested, question = (
            {name: one[own] for name, one in rows.items()},
            scores["question"].values[own],
        )
        found = _fold(tested, label[own], question, margin, generator)
        found |= area(decision[own, fold], label[own], question)
        found["validation"] = ((decision[other, fold] > 0) == label[other][:, None, None]).mean(0)
        folds.append(found)
    heads = _labelled(_in_folds(folds) | _over_folds(folds, rows, rate, margin))
    kept = {name: scores[name] for name in FOLD if name in scores.coords}
    return heads.assign_coords(kept)


def _fold(
    rows: dict, label: np.ndarray, question: np.ndarray, margin: float, generator
) -> dict[str, np.ndarray]:
    """One fold's test statements.

    Values are [layer, head]; `drawn` and `drawn_excess` [resample, layer, head].
    """
    _, number, answers = np.unique(question, return_inverse=True, return_counts=True)
    right, expected = (
        _by_question(rows[name], number, len(answers)) for name in ("correct", "null")
    )
    counts = resamples(len(answers), generator).astype(float)
    drawn, drawn_null = (
        np.tensordot(counts, each, 1) / (counts @ answers)[:, None, None]
        for each in (right, expected)
    )
    excess = (right - expected) / answers.mean()  # its mean over questions is that over statements
    p_value = np.maximum(greater_than(excess, margin), _shuffled(rows, label, number, answers))
    return {
        "accuracy": rows["correct"].mean(0),
        "chance": rows["null"].mean(0),
        "fold_p_value": p_value,
        "drawn": drawn,
        "drawn_excess": drawn - drawn_null,
    }


def _by_question(values: np.ndarray, number: np.ndarray, questions: int) -> np.ndarray:
    """Sums over the statements of each question, [question, layer, head]."""
    found = np.zeros((questions, *values.shape[1:]))
    np.add.at(found, number, values)
    return found


def _shuffled(rows: dict, label: np.ndarray, number: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Share of shuffles of labels within questions that are right at least as often, [layer, head]."""
    says = np.where(
        label[:, None, None], rows["correct"], 1 - rows["correct"]
    )  # 1 where the probe says true
    positive = _by_question(says, number, len(answers))
    n, true = answers.astype(float), np.bincount(number, label)
    mixed = np.where(n > 1, true * (n - true) / (n**2 * np.maximum(n - 1, 1)), 0)[:, None, None]
    # a true answer found makes two more statements right, so that the count has four times the
    # variance
    variance = 4 * (positive * (n[:, None, None] - positive) * mixed).sum(0)
    surplus = rows["correct"].sum(0) - rows["null"].sum(0) - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(variance > 0, scipy_stats.norm.sf(surplus / np.sqrt(variance)), 1.0)


def area(decision: np.ndarray, label: np.ndarray, question: np.ndarray) -> dict[str, np.ndarray]:
    """Area under the curve: how often a true statement is given more than a false one, ties half;
    [layer, head].

    Its standard error takes answers of a question together. Source: Obuchowski 1997, Biometrics 53,
    567.
    """
    ranks = scipy_stats.rankdata(decision, axis=0)
    true, false = int(label.sum()), int((~label).sum())
    placed = np.empty_like(
        ranks
    )  # share of the other kind that a statement is on the right side of
    placed[label] = (ranks[label] - scipy_stats.rankdata(decision[label], axis=0)) / false
    placed[~label] = 1 - (ranks[~label] - scipy_stats.rankdata(decision[~label], axis=0)) / true
    value = placed[label].mean(0)
    share = np.where(label, 1 / true, 1 / false)[:, None, None] * (placed - value)
    _, number = np.unique(question, return_inverse=True)
    count = number.max() + 1
    variance = count / max(count - 1, 1) * (_by_question(share, number, count) ** 2).sum(0)
    return {
        "auc": value,
        "auc_error": np.sqrt(variance) if count > 1 else np.full_like(value, np.nan),
    }


def _in_folds(folds: list[dict]) -> dict[str, tuple]:
    found = {}
    for name in ("accuracy", "auc", "validation", "chance", "fold_p_value"):
        found[name] = (FOLD, np.stack([one[name] for one in folds]))
    bounds = [ends(one["drawn"]) for one in folds]
    for place, end in enumerate(("low", "high")):
        found[f"accuracy_{end}"] = (FOLD, np.stack([each[place] for each in bounds]))
        reach = scipy_stats.norm.ppf((1 - CONFIDENCE) / 2) * (1 if end == "low" else -1)
        values = np.stack([one["auc"] + reach * one["auc_error"] for one in folds])
        found[f"auc_{end}"] = (FOLD, values.clip(0, 1))
    return found


def _over_folds(folds: list[dict], rows: dict, rate: float, margin: float) -> dict[str, tuple]:
    """Numbers about all folds; questions are drawn in each fold by itself."""
    p_value = np.max([one["fold_p_value"] for one in folds], 0)
    q_value = adjusted(p_value)
    known = ~np.isnan(rows["correct"]).all((1, 2))
    found: dict[str, tuple] = {
        name: (CELL, rows[name][known].mean(0)) for name in ("correct", "null", "score")
    }
    found["excess"] = (CELL, found["correct"][1] - found["null"][1])
    for name, drawn in (("correct", "drawn"), ("excess", "drawn_excess")):
        for end, values in zip(("low", "high"), ends(np.mean([one[drawn] for one in folds], 0))):
            found[f"{name}_{end}"] = (CELL, values)
    area_mean = np.mean([one["auc"] for one in folds], 0)
    error = np.sqrt(np.sum([one["auc_error"] ** 2 for one in folds], 0)) / len(folds)
    reach = scipy_stats.norm.ppf((1 + CONFIDENCE) / 2) * error
    found |= {"mean_auc": (CELL, area_mean), "mean_auc_low": (CELL, (area_mean - reach).clip(0, 1))}
    found |= {"mean_auc_high": (CELL, (area_mean + reach).clip(0, 1))}
    found["mean_validation"] = (CELL, np.mean([one["validation"] for one in folds], 0))
    found |= {"p_value": (CELL, p_value), "q_value": (CELL, q_value)}
    flag = {"false_discovery_rate": rate, "margin": margin}
    return found | {"flag": (CELL, (q_value < rate).astype("int8"), flag)}


def chosen(heads: xr.Dataset, count: int) -> xr.Dataset:
    """With `rank` (layer, head): the place of each head by validation accuracy over all folds, from
    0; and `chosen`, 1 for the first `count`. Test questions have no say in it; heads that are equal
    rank in their order."""
    values = heads["mean_validation"].transpose(*CELL).values
    order = ranked(values, unknown=True)
    rank = np.argsort(order).reshape(values.shape).astype(np.int32)
    about = {"long_name": "place by validation accuracy over all folds", "units": "1"}
    heads = heads.assign(rank=(CELL, rank, about))
    about = {"long_name": f"among the {count} best by validation accuracy", "units": "1"}
    return heads.assign(chosen=(CELL, (rank < count).astype("int8"), about))


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
    "p_value": "p of no more than chance and margin, largest of all folds",
    "q_value": "p adjusted for all heads",
    "flag": "more than chance",
}


def _labelled(found: dict[str, tuple]) -> xr.Dataset:
    dataset = xr.Dataset()
    for name, (dims, values, *more) in found.items():
        base, _, end = name.rpartition("_")
        meaning = (
            MEANING.get(name)
            or f"{'lower' if end == 'low' else 'upper'} end of the 95% interval of {MEANING[base]}"
        )
        values = values if values.dtype == np.int8 else np.asarray(values, np.float32)
        about = {"long_name": meaning, "units": "1", "source": "Li et al. 2023, arXiv 2306.03341"}
        dataset[name] = (dims, values, about | (more[0] if more else {}))
    return dataset

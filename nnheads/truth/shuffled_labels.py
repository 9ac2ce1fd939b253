"""Chance for probes of truth: the same decisions, with the labels of each question shuffled.

The number of true answers of a question stays, and with it what can be known without reading them.
Mean and variance over all shuffles are known exactly (sums of hypergeometric variables), so nothing
is drawn. This is another statistic than the t tests of `stats`: it asks whether the decisions go
with the labels, not whether questions agree about it.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats as scipy_stats

from nnheads.truth.groups import Groups

Heads = Float[np.ndarray, "layer head"]
Rows = Float[np.ndarray, "statement layer head"]


def expected(
    says_true: Bool[np.ndarray, "statement layer head"],
    label: Int[np.ndarray, " statement"],
    groups: Groups,
) -> Rows:
    """Return how often each decision would be right, mean over all shuffles."""
    share_true = np.bincount(groups.number, label) / groups.answers
    share = share_true[groups.number][:, None, None]  # of the question's answers that are true
    return np.where(says_true, share, 1 - share)


def p_of_shuffles(
    correct: Rows, null: Rows, label: Bool[np.ndarray, " statement"], groups: Groups
) -> Heads:
    """Return the share of shuffles of labels within questions that are right at least as often.

    It is a normal approximation with exact moments, half a step off for continuity.

    Args:
        correct: 1 where a probe is right. null: `expected`.
    """
    variance = _variance(np.where(label[:, None, None], correct, 1 - correct), label, groups)
    surplus = correct.sum(0) - null.sum(0) - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        p_value = scipy_stats.norm.sf(surplus / np.sqrt(variance))
    return np.where(variance > 0, p_value, 1.0)


def _variance(says_true: Rows, label: Bool[np.ndarray, " statement"], groups: Groups) -> Heads:
    """Return the variance over shuffles of the number of right decisions."""
    positive = groups.sums(says_true)
    n, true = groups.answers.astype(float), np.bincount(groups.number, label)
    mixed = np.where(n > 1, true * (n - true) / (n**2 * np.maximum(n - 1, 1)), 0)[:, None, None]
    # a true answer found makes two more statements right, so the count has four times the variance
    return 4 * (positive * (n[:, None, None] - positive) * mixed).sum(0)

"""The area under the receiver operating characteristic of probes, with its standard error.

area(decision, label, question)["auc"]    # [layer, head]
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats as scipy_stats

from nnheads.stats import CONFIDENCE
from nnheads.truth.groups import Groups, groups_of

Heads = Float[np.ndarray, "layer head"]
Rows = Float[np.ndarray, "statement layer head"]
REACH = scipy_stats.norm.ppf((1 + CONFIDENCE) / 2)  # standard errors of an interval, to each side


class Area(TypedDict):
    """The area and its standard error, [layer, head]."""

    auc: Heads
    auc_error: Heads


def area(decision: Rows, label: Bool[np.ndarray, " statement"], question: np.ndarray) -> Area:
    """Return how often a true statement is given more than a false one, ties half.

    The standard error takes answers of a question together; NaN for a single question.

    Source: Obuchowski 1997, Biometrics 53, 567.
    """
    placed = _placed(decision, label)
    value = placed[label].mean(0)
    true, false = int(label.sum()), int((~label).sum())
    share = np.where(label, 1 / true, 1 / false)[:, None, None] * (placed - value)
    return {"auc": value, "auc_error": _error(share, groups_of(question))}


def _placed(decision: Rows, label: Bool[np.ndarray, " statement"]) -> Rows:
    """Return the share of the other kind that each statement is on the right side of."""
    true, false = int(label.sum()), int((~label).sum())
    ranks = scipy_stats.rankdata(decision, axis=0)
    placed = np.empty_like(ranks)
    placed[label] = (ranks[label] - scipy_stats.rankdata(decision[label], axis=0)) / false
    placed[~label] = 1 - (ranks[~label] - scipy_stats.rankdata(decision[~label], axis=0)) / true
    return placed


def _error(share: Rows, groups: Groups) -> Heads:
    """Return the standard error of a sum of shares, of which those of a question go together."""
    count = len(groups)
    variance = count / max(count - 1, 1) * (groups.sums(share) ** 2).sum(0)
    return np.sqrt(variance) if count > 1 else np.full(share.shape[1:], np.nan)

"""The one place for statistics: intervals, tests against chance, false discoveries, rankings.

    stats.mean(scores)                  # mean over cases with its bootstrap interval
    stats.resamples, stats.ends         # the same for other statistics of means
    stats.greater_than(values, margin)  # p of a mean; the policy stands in nnheads/stats/chance.py
    stats.wilson, stats.sign_flips      # for counts, and for values that are far from normal
    stats.discoveries(p, ...)           # p_value, q_value and flag of every head
    stats.ranked_heads(values)          # heads in order of a score

What goes in and comes out is labelled (`xr.DataArray`, `xr.Dataset`) or plain numpy; no tensors but
in `logistic`. What is not known is NaN and is never flagged or ranked.
"""

from __future__ import annotations

from nnheads.stats.bootstrap import (
    CONFIDENCE,
    RESAMPLES,
    ends,
    mean,
    names_of_ends,
    ratio_of_means,
    resamples,
)
from nnheads.stats.calibration import MARGIN, calibrate, contrast, invariance
from nnheads.stats.chance import ROUNDING, differs_from, greater_than
from nnheads.stats.counts import more_hits_than, most_in_all, wilson
from nnheads.stats.discovery import RATE, adjusted, discoveries, is_selective
from nnheads.stats.distribution_free import separation, sign_flips
from nnheads.stats.ranking import RankedHead, ranked, ranked_heads, spearman, top_heads

__all__ = [
    "CONFIDENCE",
    "MARGIN",
    "RATE",
    "RESAMPLES",
    "ROUNDING",
    "RankedHead",
    "adjusted",
    "calibrate",
    "contrast",
    "differs_from",
    "discoveries",
    "ends",
    "greater_than",
    "invariance",
    "is_selective",
    "mean",
    "more_hits_than",
    "most_in_all",
    "names_of_ends",
    "ranked",
    "ranked_heads",
    "ratio_of_means",
    "resamples",
    "separation",
    "sign_flips",
    "spearman",
    "top_heads",
    "wilson",
]

"""Arithmetic on labelled scores: means with intervals, tests against chance, false discovery,
rankings.
"""

from __future__ import annotations

from nnheads.stats.bootstrap import CONFIDENCE, RESAMPLES, mean, ratio_of_means
from nnheads.stats.calibration import MARGIN, calibrate, contrast, invariance
from nnheads.stats.discovery import adjusted
from nnheads.stats.ranking import spearman, top_heads

__all__ = [
    "CONFIDENCE",
    "MARGIN",
    "RESAMPLES",
    "adjusted",
    "calibrate",
    "contrast",
    "invariance",
    "mean",
    "ratio_of_means",
    "spearman",
    "top_heads",
]

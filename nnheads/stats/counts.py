"""Counts of hits: the interval of a share, and what a sample says of all.

low, high = wilson(hits, cases)
p = more_hits_than(hits, cases, null)
most = most_in_all(population, sample, hits)
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import stats as scipy_stats

from nnheads.stats.bootstrap import CONFIDENCE

Values = Float[np.ndarray, "..."]


def wilson(hits: Values, cases: Values) -> tuple[Values, Values]:
    """Return Wilson's interval of a share, which stays sound at 0 and 1.

    It is exact at the ends, where rounding would put the share outside. NaN without cases.
    """
    z = scipy_stats.norm.ppf((1 + CONFIDENCE) / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = hits / cases
        scale = 1 + z**2 / cases
        centre = (share + z**2 / (2 * cases)) / scale
        half = z * np.sqrt(share * (1 - share) / cases + z**2 / (4 * cases**2)) / scale
    known = cases > 0
    low = np.where((hits == 0) & known, 0.0, centre - half)
    high = np.where((hits == cases) & known, 1.0, centre + half)
    return low, high


def more_hits_than(hits: Values, cases: Values, null: Values, floor: float = 0.0) -> Values:
    """Return the chance of so many hits or more, by a one-sided binomial test.

    Args:
        null: the share of hits that chance gives; it counts as no less than `floor`.
    """
    return np.asarray(scipy_stats.binom.sf(hits - 1, cases, np.clip(null, floor, 1)))


def most_in_all(population: int, sample: int, hits: int) -> int:
    """Return an upper bound on the hits in a population of which a sample was drawn.

    The sample is drawn without replacement: the finite-population form of Clopper and Pearson's
    one-sided bound.
    """
    possible = np.arange(hits, population - (sample - hits) + 1)
    likely = scipy_stats.hypergeom.cdf(hits, population, possible, sample) > 1 - CONFIDENCE
    return int(possible[likely].max())

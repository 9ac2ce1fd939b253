"""Do the parts add up to the whole? A verdict in words, or why there is none."""

from __future__ import annotations

import numpy as np
import xarray as xr

from nnheads.patching.metrics import METRICS

MARGIN = 0.1  # of the larger of joint effect and sum of parts: below it they count as equal
FEWEST = 5  # cases: of fewer, an interval is little more than the cases themselves
SPENT = 0.05  # of the way to the end of a metric's range: nearer than this, it cannot go on
STAND_IN = (
    "these heads stand in for each other (self-repair), and each one's own effect says too little"
)
SLACK = (
    "these heads stand in for each other (self-repair), or the intact {metric} of {intact:.2f} is"
    " so near the end of its range that what each head does is out of sight; the metric"
    " log_probability has no such end"
)
OPPOSED = (
    "some of these heads work for it and some against it, and what they do together is not the sum"
    " of what each does alone"
)
CHAIN = (
    "these heads work through one another, and their own effects count the same thing more than"
    " once"
)

UNSURE = (
    "neither the list nor its heads one by one change the metric for sure: whether the parts add up"
    " cannot be said"
)


def verdict(reduced: xr.Dataset, sign: int, cases: int) -> dict[str, int | str]:
    """Say whether the parts add up, and if not, which way; nothing of one case.

    Args:
        reduced: `surplus`, `joint`, `sum_of_parts` and `alone` (member) with their intervals, and
            the intact metric.
        sign: 1 where more of the metric is worse, -1 where less is.
        cases: how many the intervals are over.
    """
    low, high = float(reduced["surplus_low"]), float(reduced["surplus_high"])
    if np.isnan(low):
        return {}
    if cases < FEWEST:
        return {"warning": f"{cases} prompts are too few to say whether the parts add up"}
    if not (is_sure(reduced, "joint") or is_sure(reduced, "sum_of_parts")):
        return {"warning": UNSURE}
    surplus, joint, total = (float(reduced[name]) for name in ("surplus", "joint", "sum_of_parts"))
    differs = (low > 0 or high < 0) and abs(surplus) > MARGIN * max(abs(joint), abs(total))
    metric = str(reduced.attrs["metric"])
    intact = float(reduced[f"base_{metric}"])
    if differs and sign * surplus > 0:
        slack = SLACK.format(metric=metric, intact=intact)
        return not_adding_up(reduced, slack if is_at_end(metric, intact) else STAND_IN)
    if is_spent(metric, intact, intact + joint):
        end = f"{metric} without the list is {intact + joint:.2f}, the end of its range"
        return {"warning": f"{end}: whether the parts add up cannot be said"}
    if differs:
        return not_adding_up(reduced, CHAIN)
    return {"adds_up": 1}


def not_adding_up(reduced: xr.Dataset, reason: str) -> dict[str, int | str]:
    """Say that parts do not add up, and why; the reason is for a list that pulls one way."""
    said = OPPOSED if pull_both_ways(reduced) else reason
    return {"adds_up": 0, "warning": f"the parts do not add up: {said}"}


def pull_both_ways(reduced: xr.Dataset) -> bool:
    """Return whether heads of the list change the metric for sure in either direction."""
    return bool((reduced["alone_low"] > 0).any() and (reduced["alone_high"] < 0).any())


def is_sure(reduced: xr.Dataset, name: str) -> bool:
    """Return whether the interval of an effect leaves zero out."""
    return float(reduced[f"{name}_low"]) > 0 or float(reduced[f"{name}_high"]) < 0


def is_at_end(metric: str, intact: float) -> bool:
    """Return whether an intact metric is at an end of its range, so that small losses are hidden.

    Of whole numbers, such as a rank, the end is their best.
    """
    ends = METRICS[metric].ends if metric in METRICS else ()
    return any(abs(intact - end) <= SPENT for end in ends)


def is_spent(metric: str, intact: float, without: float) -> bool:
    """Return whether a metric has come to an end of its range, so that more cannot show."""
    ends = METRICS[metric].ends if metric in METRICS else ()
    return any(abs(without - end) <= SPENT * abs(intact - end) for end in ends)

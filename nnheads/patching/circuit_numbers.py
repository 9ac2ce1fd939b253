"""The numbers of a circuit: which statistic of which runs each of them is.

    for number in numbers(share, "logit"): number.statistic(*means)

A statistic takes the means of runs over cases, with or without an axis of resamples in front. A
share of nothing is NaN or infinity.
Sources: Wang et al. 2022, arXiv 2211.00593; Mueller et al. 2025, arXiv 2504.13151 (the curve and
its areas).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from nnheads.patching.circuit_runs import BENCHMARK, PAPER

BACK = "(F(C) - F(none)) / (F(M) - F(none))"


@dataclass(frozen=True)
class Number:
    """A number of a circuit: a statistic of the means of some runs.

    runs: keys of `circuit_runs.RUNS`, the arguments of the statistic.
    absolute: whether its size is what counts.
    """

    name: str
    meaning: str
    units: str
    statistic: Callable[..., np.ndarray]
    runs: tuple[str, ...]
    dims: tuple[str, ...] = ()
    absolute: bool = False
    source: str = PAPER


def numbers(share: Float[np.ndarray, " size"], units: str) -> list[Number]:
    """Return all numbers of a circuit; `units` are those of the metric."""
    return [*_of_circuit(units), *_of_curve(share), *_of_cuts(units)]


def _of_circuit(units: str) -> list[Number]:
    """Return the numbers of the circuit alone, and of others beside it."""
    random, helpers = "F / F(M) of random circuits", "F / F(M) of the heads that help most"
    runs = ("circuit", "model", "empty")
    return [
        Number("model", "F(M), the whole model", units, _itself, ("model",)),
        Number("circuit", "F(C), the circuit alone", units, _itself, ("circuit",)),
        Number("empty", "F of no head", units, _itself, ("empty",)),
        Number("gap", "|F(M) - F(C)|", units, np.subtract, ("model", "circuit"), absolute=True),
        Number("faithfulness", "F(C) / F(M)", "1", np.divide, ("circuit", "model")),
        Number("random", random, "1", over, ("random", "model"), ("draw",)),
        Number("helpers", helpers, "1", np.divide, ("helpers", "model")),
        Number("recovered", BACK, "1", recovered, runs, source=BENCHMARK),
    ]


def _of_curve(share: Float[np.ndarray, " size"]) -> list[Number]:
    """Return the curve over circuit sizes, and its areas."""
    runs = ("curve", "model", "empty")
    found = [Number("curve", BACK, "1", _curve, runs, ("size",), source=BENCHMARK)]
    axes = (("", "", share), ("_log", ", over the logarithm of the share", _unit_logarithm(share)))
    for end, text, axis in axes:
        for name, meaning, area in (
            ("cpr", "area under the curve", area_under),
            ("cmd", "area between curve and 1", area_to_one),
        ):
            statistic = _area_of_curve(area, axis)
            found.append(Number(name + end, meaning + text, "1", statistic, runs, source=BENCHMARK))
    return found


def _unit_logarithm(share: Float[np.ndarray, " size"]) -> Float[np.ndarray, " size"]:
    """Return the logarithm of a share, from 0 at the smallest to 1 at the largest.

    So an area over it is a mean height, and comparable with that over the share itself.
    """
    logarithm = np.log(share)
    reach = np.ptp(logarithm)
    return (logarithm - logarithm.min()) / (reach or 1.0)


def _of_cuts(units: str) -> list[Number]:
    """Return what is missing when parts are cut."""
    return [
        Number(
            "incompleteness",
            r"|F(C \ K) - F(M \ K)|",
            units,
            np.subtract,
            ("circuit_without", "model_without"),
            ("cut",),
            absolute=True,
        ),
        Number(
            "minimality",
            r"largest |F(C \ (K + v)) - F(C \ K)| / F(M)",
            "1",
            _difference_over,
            ("head_without", "others_without", "model"),
            ("member",),
            absolute=True,
        ),
    ]


def _itself(mean):
    return mean


def recovered(circuit, model, empty):
    """Return how much of the way from no head to the model a circuit goes."""
    return (circuit - empty) / (model - empty)


def over(values, whole):
    """Return values [..., item] over a whole [...]."""
    return values / np.asarray(whole)[..., None]


def _difference_over(head, others, model):
    """Return the difference of two runs [..., item] over a whole [...]."""
    return over(head - others, model)


def _curve(values, model, empty):
    return recovered(values, np.asarray(model)[..., None], np.asarray(empty)[..., None])


def area_under(
    share: Float[np.ndarray, " size"], curve: Float[np.ndarray, "*lead size"]
) -> Float[np.ndarray, "*lead"]:
    """Return the trapezoid area under a curve (CPR)."""
    return np.trapezoid(curve, share, axis=-1)


def area_to_one(
    share: Float[np.ndarray, " size"], curve: Float[np.ndarray, "*lead size"]
) -> Float[np.ndarray, "*lead"]:
    """Return the trapezoid area between a curve and 1 (CMD)."""
    return np.trapezoid(np.abs(1 - curve), share, axis=-1)


def _area_of_curve(area: Callable, axis: Float[np.ndarray, " size"]) -> Callable[..., np.ndarray]:
    """Return the area as a statistic of the means of runs."""
    return lambda values, model, empty: area(axis, _curve(values, model, empty))

"""A circuit as numbers with intervals: faithfulness, its curve over circuit sizes, completeness,
minimality.

Everything is computed from per-case metrics of runs with heads removed (`patching.circuit`) as a
ratio or difference of means; intervals resample the cases, the same ones for all runs.
Sources: Wang et al. 2022, arXiv 2211.00593; Mueller et al. 2025, arXiv 2504.13151 (the curve and
    its areas).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import xarray as xr

from nnheads.errors import BadInput, RunError
from nnheads.patching.circuit import (
    Cuts,
    Head,
    Heads,
    Remove,
    alone,
    check_groups,
    completeness,
    minimality,
    named,
)
from nnheads.patching.metrics import metric_of
from nnheads.stats import ends, names_of_ends, ranked_heads, resamples

SIZES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
PAPER = "Wang et al. 2022, arXiv 2211.00593"
BENCHMARK = "Mueller et al. 2025, arXiv 2504.13151"
RUNS = {
    "model": "whole model",
    "circuit": "circuit alone",
    "empty": "no head",
    "helpers": "heads that help most alone",
    "curve": "first heads of the ranking alone",
    "random": "random circuits of the same size alone",
    "circuit_without": r"C \ K",
    "model_without": r"M \ K",
    "head_without": r"C \ (K + v)",
    "others_without": r"C \ K, for v",
}
UNIT = "heads; feed-forward parts and embeddings always stay"


def knocked_out(remove: Remove, everything: Heads, *, seed: int = 0) -> xr.Dataset:
    """What the metric loses when one head is removed: `ranking` (layer, head), (F(M) - F(M without
    it)) / F(M), with its interval; positive where the head helps."""
    members = sorted(everything)
    values = remove([frozenset(), *(frozenset([head]) for head in members)])
    loss = [values[:, :1] - values[:, 1:], values[:, 0]]
    found = interval(_over, loss, shares_of_cases(len(values), seed))
    shape = tuple(max(part) + 1 for part in zip(*members))
    about = ("share of F(M) lost when the head is removed", "1", PAPER)
    grid = tuple(part.reshape(shape) for part in found)
    return xr.Dataset(_variables("ranking", ("layer", "head"), about, grid)).assign_coords(
        layer=range(shape[0]), head=range(shape[1])
    )


def order(values: xr.DataArray, *, signed: bool = False) -> list[Head]:
    """Heads (layer, head), the highest value first, or the largest in size; those without a value
    come last.
    """
    size = values if signed else abs(values)
    return ranked_heads(size, unknown=True)


def study(
    remove: Remove,
    everything: Heads,
    groups: Mapping[str, Sequence[Head]],
    ranking: Sequence[Head],
    *,
    sizes: Sequence[float] = SIZES,
    subsets: int = 50,
    steps: int = 5,
    width: int = 10,
    draws: int = 20,
    helpers: Sequence[Head] = (),
    metric: str | Callable = "logit_difference",
    seed: int = 0,
) -> xr.Dataset:
    """All runs that judge a circuit.

    Args:
        remove: see `circuit.removal`. everything: all heads of the model.
        groups: name -> heads; together they are the circuit, each alone is a role. They must not
            overlap.
        ranking: all heads, the most important first, for the curve.
        sizes: shares of the heads that the circuits of the curve have at most, two or more, rising
            from above 0 to 1.
        subsets, steps, width: see `circuit.completeness`.
        draws: how many random circuits of the same size to compare with. helpers: another circuit
            to compare with, as the heads that help most.
        metric: what `remove` returns, for the labels.

    Returns:
        the metric, float32: `model`, `circuit`, `empty` (batch), `curve` (batch, size), `random`
            (batch, draw),
        `circuit_without`, `model_without` (batch, cut), `others_without`, `head_without` (batch,
        member); with helpers `helpers` (batch).

    Raises:
        BadInput: unknown heads, heads in two groups, a ranking that leaves heads out or names them
            twice, sizes that make no curve.
    """
    check_sizes(sizes)
    circuit = check_groups(groups, everything)
    if set(ranking) != set(everything) or len(ranking) != len(everything):
        raise BadInput(
            f"the ranking names {len(set(ranking))} heads; it must name all {len(everything)} once"
        )
    generator = np.random.default_rng(seed)
    members = sorted(everything)
    random = [
        frozenset(
            members[index] for index in generator.choice(len(members), len(circuit), replace=False)
        )
        for _ in range(draws)
    ]
    counts = [int(share * len(ranking) + 1e-9) for share in sizes]
    wholes = [frozenset(), alone(everything, circuit), everything]
    names = ["model", "circuit", "empty"]
    if helpers:
        wholes.append(alone(everything, check_groups({"helpers": helpers}, everything)))
        names.append("helpers")
    curve = [alone(everything, ranking[:count]) for count in counts]
    lone = [alone(everything, heads) for heads in random]
    found = remove([*wholes, *curve, *lone])  # all in one job
    each, curves, randoms = np.split(found, [len(wholes), len(wholes) + len(curve)], 1)
    search = {"subsets": subsets, "steps": steps, "width": width, "seed": seed}
    scores = xr.Dataset(
        {
            **{name: ("batch", values) for name, values in zip(names, each.T)},
            "curve": (("batch", "size"), curves),
            "random": (("batch", "draw"), randoms),
            **_completeness(completeness(remove, everything, groups, **search)),
            **_minimality(minimality(remove, everything, groups, **search)),
        },
        {"size": list(sizes), "heads": ("size", counts)},
    ).astype("float32")
    chosen = metric_of(metric)
    for name, values in scores.data_vars.items():
        text = f"{chosen.long_name}: {RUNS[str(name)]}"
        values.attrs.update(
            long_name=text, units=chosen.units, source=BENCHMARK if name == "curve" else PAPER
        )
    return scores.assign_attrs(
        unit=UNIT, circuit=named(circuit), heads_of_model=len(everything), metric=chosen.name
    )


def check_sizes(sizes: Sequence[float]) -> None:
    """Refuse shares that make no curve: it has areas also over the logarithm of the share, which 0
    does not have.
    """
    shares = np.asarray(sizes, float)
    if shares.size < 2 or not (0 < shares[0] and shares[-1] <= 1 and (np.diff(shares) > 0).all()):
        shown = ", ".join(f"{one:g}" for one in shares.tolist())
        raise BadInput(
            f"sizes {shown or 'of none'} make no curve; give two shares or more that rise from"
            " above 0 to at most 1 (no head at all is measured anyway)"
        )


def _completeness(cuts: Cuts) -> dict:
    about = {"cut_heads": ("cut", [named(cut) for cut in cuts.cut]), "cut_kind": ("cut", cuts.kind)}
    return {
        "circuit_without": xr.DataArray(cuts.first, dims=("batch", "cut"), coords=about),
        "model_without": xr.DataArray(cuts.second, dims=("batch", "cut"), coords=about),
    }


def _minimality(heads: Mapping[Head, Cuts]) -> dict:
    """Of each head the K that makes it matter most."""
    chosen = [(head, cuts, cuts.worst) for head, cuts in heads.items()]
    about = {
        "member_layer": ("member", [layer for (layer, _), *_ in chosen]),
        "member_head": ("member", [head for (_, head), *_ in chosen]),
        "member_cut": ("member", [named(cuts.cut[worst]) for _, cuts, worst in chosen]),
        "member_kind": ("member", [cuts.kind[worst] for _, cuts, worst in chosen]),
    }
    runs = {
        "head_without": [cuts.first[:, worst] for _, cuts, worst in chosen],
        "others_without": [cuts.second[:, worst] for _, cuts, worst in chosen],
    }
    return {
        name: xr.DataArray(np.stack(each, 1), dims=("batch", "member"), coords=about)
        for name, each in runs.items()
        if chosen
    }


def judge(scores: xr.Dataset, *, seed: int = 0) -> xr.Dataset:
    r"""Numbers with 95% intervals from what `study` measured.

    Returns:
        each with `_low` and `_high`: `model`, `circuit`, `empty`, which are F(M), F(C) and F of no
            head; `gap`,
        |F(M) - F(C)|; `faithfulness`, F(C) / F(M), `random` (draw) and `helpers`, the same of other
        circuits; `recovered`, (F(C) - F(none)) / (F(M) - F(none)), and `curve` (size), the same of
        the ranking's first heads; `cpr` and `cmd`, the trapezoid areas under the curve and between
        it and 1, over the share of heads, and `cpr_log`, `cmd_log` over its natural logarithm;
        `incompleteness` (cut), |F(C \ K) - F(M \ K)|; `minimality` (member), |F(C \ (K + v)) - F(C
        \ K)| / F(M) for the K that makes it largest.

    The interval of an absolute difference is that of the difference in the direction of its mean:
    one that reaches below 0 leaves the direction open. A K that is the worst of many was found on
    these same cases, which its interval does not take into account.

    Raises:
        RunError: a metric whose mean is not above 0 for the whole model, so that shares of it mean
            nothing.
        BadInput: sizes as `study` refuses them.
    """
    check_sizes(scores["size"].values.tolist())
    parts = {str(name): scores[name].values.astype(float) for name in scores.data_vars}
    full = parts["model"].mean()
    if not full > 0:
        raise RunError(
            f"the model does not do this task: F(M) is {full:+.3f} on average; shares of it mean"
            " nothing"
        )
    weights, table = shares_of_cases(len(parts["model"]), seed), {}
    for name, dims, about, statistic, of, absolute in _numbers(
        scores["size"].values, scores["model"].attrs["units"]
    ):
        if set(of.split()) <= set(parts):
            found = interval(statistic, [parts[part] for part in of.split()], weights, absolute)
            table.update(
                _variables(
                    name, dims, (*about, BENCHMARK if "empty" in of.split()[1:] else PAPER), found
                )
            )
    kept = [name for name in scores.coords if "batch" not in scores[name].dims]
    return (
        xr.Dataset(table)
        .assign_coords({name: scores[name] for name in kept})
        .assign_attrs(scores.attrs)
    )


def _numbers(share: np.ndarray, units: str) -> list[tuple]:
    """(name, dims, (long name, units), statistic of means, of which, whether absolute)."""
    log, back = np.log(share), "(F(C) - F(none)) / (F(M) - F(none))"
    curve = "curve model empty"
    return [
        ("model", (), ("F(M), the whole model", units), _itself, "model", False),
        ("circuit", (), ("F(C), the circuit alone", units), _itself, "circuit", False),
        ("empty", (), ("F of no head", units), _itself, "empty", False),
        ("gap", (), ("|F(M) - F(C)|", units), np.subtract, "model circuit", True),
        ("faithfulness", (), ("F(C) / F(M)", "1"), np.divide, "circuit model", False),
        ("random", ("draw",), ("F / F(M) of random circuits", "1"), _over, "random model", False),
        (
            "helpers",
            (),
            ("F / F(M) of the heads that help most", "1"),
            np.divide,
            "helpers model",
            False,
        ),
        ("recovered", (), (back, "1"), recovered, "circuit model empty", False),
        ("curve", ("size",), (back, "1"), _curve, curve, False),
        (
            "cpr",
            (),
            ("area under the curve", "1"),
            lambda *of: areas(share, _curve(*of))[0],
            curve,
            False,
        ),
        (
            "cmd",
            (),
            ("area between curve and 1", "1"),
            lambda *of: areas(share, _curve(*of))[1],
            curve,
            False,
        ),
        (
            "cpr_log",
            (),
            ("area under the curve, log", "1"),
            lambda *of: areas(log, _curve(*of))[0],
            curve,
            False,
        ),
        (
            "cmd_log",
            (),
            ("area between curve and 1, log", "1"),
            lambda *of: areas(log, _curve(*of))[1],
            curve,
            False,
        ),
        (
            "incompleteness",
            ("cut",),
            (r"|F(C \ K) - F(M \ K)|", units),
            np.subtract,
            "circuit_without model_without",
            True,
        ),
        (
            "minimality",
            ("member",),
            (r"largest |F(C \ (K + v)) - F(C \ K)| / F(M)", "1"),
            lambda head, others, model: _over(head - others, model),
            "head_without others_without model",
            True,
        ),
    ]


def _itself(mean):
    return mean


def recovered(circuit, model, empty):
    return (circuit - empty) / (model - empty)


def _over(values, whole):
    """Values [..., item] over a whole [...]."""
    return values / np.asarray(whole)[..., None]


def _curve(values, model, empty):
    return recovered(values, np.asarray(model)[..., None], np.asarray(empty)[..., None])


def areas(share: np.ndarray, curve: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Trapezoid areas of a curve [..., size] over the sizes: under it (CPR), and between it and 1
    (CMD).
    """
    return np.trapezoid(curve, share, axis=-1), np.trapezoid(np.abs(1 - curve), share, axis=-1)


def shares_of_cases(cases: int, seed: int) -> np.ndarray:
    """[draw, case]: the weight of each case in resamples of all."""
    return resamples(cases, seed) / cases


def interval(
    statistic: Callable, parts: Sequence[np.ndarray], weights: np.ndarray, absolute: bool = False
) -> tuple:
    """(value, low, high) of a statistic of means; parts [case, ...]. NaN bounds with one case. The
    statistic also takes means with an axis of resamples in front."""
    with np.errstate(
        divide="ignore", invalid="ignore"
    ):  # a share of nothing: NaN or infinity says it
        value = np.asarray(statistic(*(part.mean(0) for part in parts)))
        low = high = np.full(value.shape, np.nan)
        if weights.shape[1] > 1:
            drawn = statistic(*(np.tensordot(weights, part, 1) for part in parts))
            low, high = ends(drawn)
    if absolute:
        below = value < 0
        low, high = np.where(below, -high, low), np.where(below, -low, high)
        value = np.abs(value)
    return value, low, high


def _variables(name: str, dims: tuple, about: tuple[str, str, str], found: tuple) -> dict:
    """A variable and its bounds."""
    long_name, units, source = about
    bounds = names_of_ends(long_name)
    meaning = {
        name: {
            "cell_methods": "batch: mean",
            "ancillary_variables": f"{name}_low {name}_high",
            "long_name": long_name,
        },
        f"{name}_low": {"long_name": bounds["low"]},
        f"{name}_high": {"long_name": bounds["high"]},
    }
    return {
        key: (
            dims,
            np.asarray(values, np.float32),
            {**attributes, "units": units, "source": source},
        )
        for (key, attributes), values in zip(meaning.items(), found)
    }

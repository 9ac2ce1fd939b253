"""All runs that judge a circuit, as one labelled dataset of per-case metrics.

    scores = study(remove, every_head(model), {"circuit": heads}, ranking)
    faithfulness.judge(scores)

`study` only measures; `nnheads.patching.faithfulness` computes what the numbers say. A ranking that
leaves heads out, and sizes that make no curve, are refused before anything runs.
Sources: Wang et al. 2022, arXiv 2211.00593; Mueller et al. 2025, arXiv 2504.13151 (the curve).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import xarray as xr

from nnheads.errors import BadInput
from nnheads.patching.circuit import Heads, Remove, alone, check_groups, named
from nnheads.patching.circuit_cuts import Cuts, Search, completeness, minimality
from nnheads.patching.head_sets import Head
from nnheads.patching.metrics import metric_of

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
SEVERAL = {"curve": "size", "random": "draw"}
UNIT = "heads; MLPs and embeddings always stay"


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
    """Return the metric of all runs that judge a circuit.

    Args:
        remove: see `circuit.removal`. everything: all heads of the model.
        groups: name -> heads; together they are the circuit, each alone is a role. They must not
            overlap.
        ranking: all heads, the most important first, for the curve.
        sizes: shares of the heads that the circuits of the curve have at most, two or more, rising
            from above 0 to 1.
        subsets, steps, width: see `circuit_cuts.Search`.
        draws: how many random circuits of the same size to compare with.
        helpers: another circuit to compare with, as the heads that help most.
        metric: what `remove` returns, for the labels.

    Returns:
        the metric, float32: `model`, `circuit`, `empty` (batch), `curve` (batch, size), `random`
        (batch, draw), `circuit_without`, `model_without` (batch, cut), `others_without`,
        `head_without` (batch, member); with helpers `helpers` (batch).

    Raises:
        BadInput: unknown heads, heads in two groups, a ranking that leaves heads out or names them
            twice, sizes that make no curve.
    """
    check_sizes(sizes)
    circuit = check_groups(groups, everything)
    _check_ranking(ranking, everything)
    counts = [int(share * len(ranking) + 1e-9) for share in sizes]
    removed = {
        **_wholes(everything, circuit, helpers),
        "curve": [alone(everything, ranking[:count]) for count in counts],
        "random": _random_circuits(everything, len(circuit), draws, seed),
    }
    search = Search(subsets, steps, width, seed)
    data = {
        **_alone(remove, removed),
        **_completeness(completeness(remove, everything, groups, search)),
        **_minimality(minimality(remove, everything, groups, search)),
    }
    index = {"size": list(sizes), "heads": ("size", counts)}
    scores = _labelled(xr.Dataset(data, index).astype("float32"), metric)
    return scores.assign_attrs(circuit=named(circuit), heads_of_model=len(everything))


def check_sizes(sizes: Sequence[float]) -> None:
    """Refuse shares that make no curve.

    It has areas also over the logarithm of the share, which 0 does not have.
    """
    shares = np.asarray(sizes, float)
    if shares.size < 2 or not _rise(shares):
        shown = ", ".join(f"{one:g}" for one in shares.tolist())
        raise BadInput(
            f"Not sizes of a curve: {shown or 'none'}. Give two shares or more that rise from above"
            " 0 to at most 1 (no head at all is measured anyway)."
        )


def _rise(shares: np.ndarray) -> bool:
    """Return whether shares rise from above 0 to at most 1."""
    return bool(0 < shares[0] and shares[-1] <= 1 and (np.diff(shares) > 0).all())


def _check_ranking(ranking: Sequence[Head], everything: Heads) -> None:
    """Refuse a ranking that leaves heads out, or names them twice."""
    if set(ranking) != set(everything) or len(ranking) != len(everything):
        raise BadInput(
            f"The ranking names {len(set(ranking))} heads, and the model has {len(everything)}."
            " Rank every head once."
        )


def _wholes(everything: Heads, circuit: Heads, helpers: Sequence[Head]) -> dict[str, list[Heads]]:
    """Return what is removed for the model, the circuit, no head and, if any, the helpers."""
    removed: dict[str, list[Heads]] = {
        "model": [frozenset()],
        "circuit": [alone(everything, circuit)],
    }
    removed["empty"] = [everything]
    if helpers:
        removed["helpers"] = [alone(everything, check_groups({"helpers": helpers}, everything))]
    return removed


def _random_circuits(everything: Heads, size: int, draws: int, seed: int) -> list[Heads]:
    """Return what is removed for random circuits of a size to be alone."""
    generator, members = np.random.default_rng(seed), sorted(everything)
    drawn = [generator.choice(len(members), size, replace=False) for _ in range(draws)]
    return [alone(everything, {members[index] for index in one}) for one in drawn]


def _alone(remove: Remove, removed: dict[str, list[Heads]]) -> dict[str, tuple]:
    """Measure the circuits that are run alone, all in one sweep."""
    values = remove([one for sets in removed.values() for one in sets])
    ends = np.cumsum([len(sets) for sets in removed.values()])[:-1]
    parts = zip(removed, np.split(values, ends, 1))
    return {name: _of_sets(name, own) for name, own in parts}


def _of_sets(name: str, values: np.ndarray) -> tuple:
    """Return a variable of the metric [case, set], along sets if there may be several."""
    return (("batch", SEVERAL[name]), values) if name in SEVERAL else ("batch", values[:, 0])


def _completeness(cuts: Cuts) -> dict[str, xr.DataArray]:
    """Label the runs of completeness (batch, cut)."""
    about = {"cut_heads": ("cut", [named(cut) for cut in cuts.cut]), "cut_kind": ("cut", cuts.kind)}
    return {
        "circuit_without": xr.DataArray(cuts.first, dims=("batch", "cut"), coords=about),
        "model_without": xr.DataArray(cuts.second, dims=("batch", "cut"), coords=about),
    }


def _minimality(heads: Mapping[Head, Cuts]) -> dict[str, xr.DataArray]:
    """Label, of each head, the runs of the K that makes it matter most (batch, member)."""
    if not heads:
        return {}
    worst = [(cuts, cuts.worst) for cuts in heads.values()]
    about = {
        "member_layer": ("member", [layer for layer, _ in heads]),
        "member_head": ("member", [head for _, head in heads]),
        "member_cut": ("member", [named(cuts.cut[number]) for cuts, number in worst]),
        "member_kind": ("member", [cuts.kind[number] for cuts, number in worst]),
    }
    runs = {
        "head_without": [cuts.first[:, number] for cuts, number in worst],
        "others_without": [cuts.second[:, number] for cuts, number in worst],
    }
    return {
        name: xr.DataArray(np.stack(each, 1), dims=("batch", "member"), coords=about)
        for name, each in runs.items()
    }


def _labelled(scores: xr.Dataset, metric: str | Callable) -> xr.Dataset:
    """Say of every run what it is."""
    chosen = metric_of(metric)
    for name, values in scores.data_vars.items():
        text = f"{chosen.long_name}: {RUNS[str(name)]}"
        source = BENCHMARK if name == "curve" else PAPER
        values.attrs.update(long_name=text, units=chosen.units, source=source)
    return scores.assign_attrs(unit=UNIT, metric=chosen.name)

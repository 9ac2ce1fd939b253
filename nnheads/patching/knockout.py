"""Is a list of heads what a behaviour needs? Knock out its first K heads, for rising K.

    scores = knockout(model, prompts, [(1, 0), (2, 4)], draws=20)
    curve(scores)  # means over cases, and the random lists beside them

A ranked list is a claim. It holds as far as the behaviour goes when the first K heads go, and stays
when as many random heads of the same layers go, none of them of the list. Each random list grows as
the real one does, so that a draw is a curve of its own. All of it is one sweep. A list that no
random list can match is refused before anything runs.
Source: Wu et al. 2024, arXiv 2404.15574 (there with uniform attention that sees the future).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Unpack

import numpy as np
import xarray as xr

from nnheads import stats
from nnheads.errors import BadInput
from nnheads.models.geometry import geometry
from nnheads.models.names import head_name
from nnheads.patching.head_sets import Ablating, Head, checked_heads, without
from nnheads.patching.random_lists import lent, random_lists

SOURCE = "Wu et al. 2024, arXiv 2404.15574"
KS = (0, 1, 2, 3, 5, 10, 20, 50, 100)
DRAWS = 20
ROUNDING = 1e-6  # lists whose changes differ by less count as equal
PLAIN = ("units", "valid_min", "valid_max")  # attributes of a metric that stay true


def knockout(
    model,
    prompts: xr.Dataset,
    heads: Sequence[Head],
    *,
    ks: Iterable[int] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    **ablating: Unpack[Ablating],
) -> xr.Dataset:
    """Return a metric without the first K heads of a list, and without K random heads.

    Args:
        prompts: pairs, or prompts with `ask` and `target` (batch, step), such as those of
            `behaviours.ask_for`.
        heads: (layer, head), the strongest first.
        ks: how many heads are knocked out at once; default: KS up to the length of the list, and
            the length. What is listed behind the largest of them does not count as listed.
        draws: how many random lists of heads of the same layers; 0 for none. A layer that has more
            listed heads than others borrows from the nearest ones (attrs `random_lent`).
        seed: of the random lists, and of the prompts that "resample" draws.
        ablating: `ablation` ("mean", "zero", "uniform" or "resample"), `reference`, `metric`, `at`
            and `tokens`, see `nnheads.patching.head_sets.Ablating`.

    Returns:
        float32, in the unit of the metric: `<metric>` (batch, k), `random_<metric>` (batch, k,
        draw) and `base_<metric>` (batch), that of the intact model. Coordinates: `listed` (place),
        the names of the heads, and `drawn` (draw, place), those of the random ones.

    Raises:
        BadInput: as `ablate`; no heads, one twice, more heads asked for than listed, or a list of
            more than half of all heads. RunError: logits that are not finite.

    Source: Wu et al. 2024, arXiv 2404.15574.

    Example:
        >>> model = nnheads.load()
        >>> prompts = nnheads.ioi(model.tokenizer, 4)
        >>> scores = nnheads.knockout(model, prompts, [(2, 2)], draws=3, ablation="zero")
        >>> dict(scores["random_logit_difference"].sizes)
        {'batch': 4, 'k': 2, 'draw': 3}
    """
    counts, listed, random = chosen_lists(model, heads, ks, draws, seed)
    sets = [one[:k] for one in (listed, *random) for k in counts]
    ablated = without(model, prompts, sets, seed=seed, **ablating)
    values = ablated[ablated.attrs["metric"]].values
    values = values.reshape(-1, 1 + len(random), len(counts)).swapaxes(1, 2)
    return _labelled(ablated, values, counts, listed, random)


def _labelled(
    ablated: xr.Dataset,
    values: np.ndarray,
    counts: list[int],
    listed: list[Head],
    random: list[list[Head]],
) -> xr.Dataset:
    """Label the metric [case, k, list], of which the first list is the real one."""
    name = ablated.attrs["metric"]
    metric = ablated[name].attrs
    what = str(metric["long_name"]).removesuffix(", after the swap")
    about = {**{key: metric[key] for key in PLAIN if key in metric}, "source": SOURCE}
    meaning = {"long_name": f"{what}, without K heads", **about}
    scores = ablated.drop_dims("group").drop_vars("group", errors="ignore")
    scores[name] = (("batch", "k"), values[..., 0], meaning)
    scores = scores.assign_coords(
        k=("k", counts, {"long_name": "heads knocked out"}),
        listed=("place", [head_name(*head) for head in listed]),
    )
    if not random:
        return scores
    meaning = {"long_name": f"{what}, without K random heads of the same layers", **about}
    scores[f"random_{name}"] = (("batch", "k", "draw"), values[..., 1:], meaning)
    drawn = [[head_name(*head) for head in one] for one in random]
    scores = scores.assign_coords(draw=range(len(random)), drawn=(("draw", "place"), drawn))
    return scores.assign_attrs(random_lent=lent(listed, random))


def chosen_lists(
    model, heads: Sequence[Head], ks: Iterable[int] | None, draws: int, seed: int
) -> tuple[list[int], list[Head], list[list[Head]]]:
    """Return the numbers of heads, the list cut to the largest of them, and the random lists.

    Raises:
        BadInput: as `knockout`.
    """
    listed = checked_heads(model, heads)
    counts = counts_of(ks, len(listed))
    listed = listed[: counts[-1]]
    sizes = geometry(model)
    return counts, listed, random_lists(listed, (sizes.layers, sizes.heads), draws, seed)


def counts_of(ks: Iterable[int] | None, length: int) -> list[int]:
    """Return how many heads of a list of this length are knocked out at once, in rising order.

    Raises:
        BadInput: numbers below 0 or above the length, or none above 0.
    """
    if ks is None:
        return sorted({k for k in KS if k < length} | {length})
    counts = sorted({int(k) for k in ks})
    _check_counts(counts, length)
    return counts


def _check_counts(counts: list[int], length: int) -> None:
    """Refuse numbers of heads that a list of this length does not have."""
    if not counts or counts[0] < 0 or counts[-1] < 1:
        raise BadInput(
            f"Not numbers of heads to knock out: {counts}. Give numbers of at least 0, and one"
            " above 0."
        )
    if counts[-1] > length:
        raise BadInput(
            f"Too many heads to knock out: {counts[-1]}, and the list has {length}. Ask for at"
            f" most {length}."
        )


def curve(scores: xr.Dataset, *, seed: int = 0) -> xr.Dataset:
    """Return the scores of `knockout` reduced over cases.

    Args:
        scores: `<metric>` (batch, k), `random_<metric>` (batch, k, draw), `base_<metric>` (batch).

    Returns:
        `<metric>` (k) and `random_<metric>` (k, draw) with their bootstrap intervals over cases;
        `random_median`, `random_lowest`, `random_highest` (k) over the random lists; `p_value` (k),
        the share of lists, the real one among them, that change the metric by at least as much as
        the real one; `base_<metric>` with its interval; `listed` and `drawn` as they are.
    """
    name = scores.attrs["metric"]
    reduced = _means(scores, (name, f"random_{name}", f"base_{name}"), seed)
    kept = [one for one in ("listed", "drawn") if one in scores.coords]
    reduced = reduced.assign_coords({one: scores[one] for one in kept})
    if f"random_{name}" in scores:
        reduced = reduced.assign(_over_lists(reduced[f"random_{name}"]))
        reduced["p_value"] = _share_of_lists(reduced, name)
    return reduced


def _means(scores: xr.Dataset, names: tuple[str, ...], seed: int) -> xr.Dataset:
    """Return the means over cases of those variables that there are, with intervals."""
    parts = [stats.mean(scores[name], seed=seed) for name in names if name in scores]
    return xr.merge(parts, combine_attrs="drop_conflicts").assign_attrs(scores.attrs)


def _over_lists(means: xr.DataArray) -> dict[str, xr.DataArray]:
    """Return the median, the lowest and the highest of the random lists' means (k, draw)."""
    reductions = {
        "median": means.median("draw"),
        "lowest": means.min("draw"),
        "highest": means.max("draw"),
    }
    return {
        f"random_{name}": values.astype("float32").assign_attrs(
            long_name=f"{name} over random lists",
            cell_methods=f"batch: mean draw: {name}",
            units=means.attrs["units"],
        )
        for name, values in reductions.items()
    }


def _share_of_lists(reduced: xr.Dataset, name: str) -> xr.DataArray:
    """Return the share of lists that change the metric by as much as the real one (k)."""
    base, means = reduced[f"base_{name}"], reduced[f"random_{name}"]
    as_large = abs(means - base) >= abs(reduced[name] - base) - ROUNDING
    share = (1 + as_large.sum("draw")) / (1 + means.sizes["draw"])
    text = "share of lists that change the metric by as much"
    return share.astype("float32").assign_attrs(
        long_name=text, units="1", valid_min=0.0, valid_max=1.0
    )


def ranked_heads(heads: xr.Dataset, statistic: str | None = None) -> tuple[list[Head], str]:
    """Return the heads of a reduced dataset, strongest first, and the statistic that ranks them.

    Args:
        heads: variables (layer, head).
        statistic: which variable ranks; default: the `headline` of its attrs (as `detect` writes
            it), or `effect`.

    Raises:
        BadInput: a dataset that ranks no heads.
    """
    by_head = {"layer", "head"}
    usable = [str(one) for one, values in heads.data_vars.items() if set(values.dims) == by_head]
    name = statistic or str(heads.attrs.get("headline", "effect"))
    if name not in usable:
        shown = ", ".join(one for one in usable if not one.endswith(("_low", "_high")))
        raise BadInput(
            f"Nothing called {name!r} by layer and head ranks these heads. Use --statistic with one"
            f" of: {shown or 'nothing by layer and head'}."
        )
    order = stats.ranked_heads(heads[name])
    if not order:
        raise BadInput(f"Not a number for any head: {name!r}. Rank by another with --statistic.")
    return order, name

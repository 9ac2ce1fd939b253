"""Do the effects of heads add up? Effects of a list alone, together, and after each other.

    scores = interactions(model, prompts, [(1, 0), (1, 1)], backup=True)
    summary(scores)  # means over cases, whether the parts add up, and who steps in

The effect of a set of heads is the metric without them minus the metric with all: a head that helps
has a negative one (for `kl` and `rank`, where more is worse, a positive one). Where heads stand in
for each other, each one's own effect says too little: the joint effect is larger than the sum of
its parts. Where they are links of one chain it is smaller.
After: comp_u(S) of CoAx, arXiv 2607.01940, here in the plain metric; Wang et al. 2022, arXiv
2211.00593 (backups).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Unpack

import numpy as np
import xarray as xr
from jaxtyping import Float

from nnheads import stats
from nnheads.models.geometry import geometry
from nnheads.models.names import head_name
from nnheads.patching.adding_up import verdict
from nnheads.patching.head_sets import Ablating, Head, by_head, checked_heads, without

SOURCE = "after arXiv 2607.01940"
LESS_IS_BETTER = ("kl", "rank")
NAMED = 0.01  # of the intact metric or joint effect: a head that grows by less does not step in

Effects = dict[str, Float[np.ndarray, "case set"]]  # by what the sets are for


def interactions(
    model,
    prompts: xr.Dataset,
    heads: Sequence[Head],
    *,
    pairs: bool = False,
    backup: bool = False,
    seed: int = 0,
    **ablating: Unpack[Ablating],
) -> xr.Dataset:
    """Return the effects of the heads of a list alone, together and after each other.

    Args:
        prompts: pairs, or prompts with `ask` and `target` (batch, step).
        heads: (layer, head).
        pairs: also the effect of each pair.
        backup: also the effect of every other head, before and after the whole list is ablated.
        seed: of the prompts that "resample" draws.
        ablating: `ablation` ("mean", "zero", "uniform" or "resample"), `reference`, `metric`, `at`
            and `tokens`, see `nnheads.patching.head_sets.Ablating`.

    Returns:
        float32, in the unit of the metric. `alone` and `last` (batch, member): the effect of a head
        when nothing, and when all the others of the list are ablated; `shift`, last minus alone.
        `joint`, `sum_of_parts` and `surplus`, joint minus sum (batch). With pairs, `pair` and
        `pair_surplus` (batch, member, other), NaN for a head with itself. With backup, `before`,
        `after` and `growth` (batch, layer, head), NaN for heads of the list: the effect of each
        other head alone, after the whole list, and after minus before. `base_<metric>` (batch).

    Raises:
        BadInput: as `ablate`; no heads, or one twice. RunError: logits that are not finite.

    Source: after arXiv 2607.01940.

    Example:
        >>> model = nnheads.load()
        >>> prompts = nnheads.ioi(model.tokenizer, 4)
        >>> scores = nnheads.interactions(model, prompts, [(1, 0), (2, 2)], ablation="zero")
        >>> scores["member"].values.tolist()
        ['L1H0', 'L2H2']
        >>> scores["surplus"].dims
        ('batch',)
    """
    sets = chosen_sets(model, heads, pairs, backup)
    every = [one for group in sets.values() for one in group]
    ablated = without(model, prompts, every, seed=seed, **ablating)
    effects, sizes = _by_purpose(ablated["change"].values, sets), geometry(model)
    values = {
        **_of_list(effects),
        **(_of_pairs(effects) if effects["pair"].size else {}),
        **_of_rest(effects, [head for (head,) in sets["before"]], (sizes.layers, sizes.heads)),
    }
    names = [head_name(*head) for (head,) in sets["alone"]]
    index = {"layer": list(range(sizes.layers)), "head": list(range(sizes.heads))}
    return _labelled(ablated, values, {"member": names, "other": names, **index})


def _by_purpose(
    changes: Float[np.ndarray, "case set"], sets: dict[str, list[list[Head]]]
) -> Effects:
    """Return the changes by what their sets are for."""
    ends = np.cumsum([len(group) for group in sets.values()])[:-1]
    return dict(zip(sets, np.split(changes, ends, axis=1)))


def chosen_sets(
    model, heads: Sequence[Head], pairs: bool, backup: bool
) -> dict[str, list[list[Head]]]:
    """Return every set of heads that `interactions` ablates, by what it is for.

    Raises:
        BadInput: as `interactions`.
    """
    listed, sizes = checked_heads(model, heads), geometry(model)
    every = itertools.product(range(sizes.layers), range(sizes.heads))
    rest = [head for head in every if head not in listed] if backup else []
    return {
        "joint": [listed],
        "alone": [[head] for head in listed],
        "others": [[other for other in listed if other != head] for head in listed],
        "pair": [list(pair) for pair in itertools.combinations(listed, 2)] if pairs else [],
        "before": [[head] for head in rest],
        "after": [[*listed, head] for head in rest],
    }


def _of_list(effects: Effects) -> dict[str, np.ndarray]:
    """Return the effects of the list's heads [case, member], and of the list [case]."""
    joint, alone = effects["joint"][:, 0], effects["alone"]
    last, total = joint[:, None] - effects["others"], alone.sum(1)
    return {
        "alone": alone,
        "last": last,
        "shift": last - alone,
        "joint": joint,
        "sum_of_parts": total,
        "surplus": joint - total,
    }


def _of_pairs(effects: Effects) -> dict[str, Float[np.ndarray, "case member other"]]:
    """Return the effect of each pair, and by how much it differs from the sum of its parts."""
    alone = effects["alone"]
    cases, count = alone.shape
    pair = np.full((cases, count, count), np.nan, np.float32)
    first, second = np.array(list(itertools.combinations(range(count), 2))).T
    pair[:, first, second] = pair[:, second, first] = effects["pair"]
    return {"pair": pair, "pair_surplus": pair - alone[:, :, None] - alone[:, None]}


def _of_rest(
    effects: Effects, rest: list[Head], shape: tuple[int, int]
) -> dict[str, Float[np.ndarray, "case layer head"]]:
    """Return the effects of all other heads, before and after the list; nothing without them."""
    if not rest:
        return {}
    before = by_head(effects["before"], rest, shape)
    after = by_head(effects["after"] - effects["joint"], rest, shape)
    return {"before": before, "after": after, "growth": after - before}


# what is drawn by head has a colour bar's room for its name
MEANING = {
    "alone": (("batch", "member"), "effect of the head alone on {}"),
    "last": (("batch", "member"), "effect of the head after the others of the list on {}"),
    "shift": (("batch", "member"), "effect after the others minus effect alone on {}"),
    "joint": (("batch",), "effect of the list together on {}"),
    "sum_of_parts": (("batch",), "sum of the effects alone on {}"),
    "surplus": (("batch",), "joint effect minus sum of parts on {}"),
    "pair": (("batch", "member", "other"), "effect of two heads together on {}"),
    "pair_surplus": (
        ("batch", "member", "other"),
        "effect of two heads minus the sum of their effects alone on {}",
    ),
    "before": (("batch", "layer", "head"), "effect alone"),
    "after": (("batch", "layer", "head"), "effect after the list"),
    "growth": (("batch", "layer", "head"), "growth of effect"),
}


def _labelled(
    ablated: xr.Dataset, values: dict[str, np.ndarray], coordinates: dict[str, list]
) -> xr.Dataset:
    """Label the effects, beside the metric of the intact model."""
    metric = ablated.attrs["metric"]
    units = ablated[metric].attrs["units"]
    scores = ablated[[f"base_{metric}"]].drop_vars("group", errors="ignore")
    for name, value in values.items():
        dims, meaning = MEANING[name]
        about = {"long_name": meaning.format(metric), "units": units, "source": SOURCE}
        scores[name] = (dims, np.asarray(value, np.float32), about)
    known = {name: index for name, index in coordinates.items() if name in scores.dims}
    return scores.assign_coords(known)


def summary(scores: xr.Dataset, *, seed: int = 0) -> xr.Dataset:
    """Return the scores of `interactions` reduced over cases: means with bootstrap intervals.

    Returns:
        every variable without `batch`, and its `_low` and `_high`. With `growth` also `p_value`
        (layer, head), the larger of two (the effect does not grow, and the head does not help after
        the list), `q_value` over all heads and `flag`, 1 for heads that step in: q below
        `stats.RATE`, and both growth and effect after the list at least NAMED of the intact metric
        or, if that is more, of the joint effect. A head that worked against the answer and ceases
        to is none. attrs: `adds_up`, 0 where the interval of the surplus leaves zero out and it is
        more than `adding_up.MARGIN` of the joint effect or of the sum of parts; then `warning` says
        which way. Fewer than `adding_up.FEWEST` cases have no `adds_up`, nor has a list without
        which the metric is at the end of its range, unless its heads stand in for each other;
        `warning` says so.
    """
    means = [stats.mean(scores[name], seed=seed) for name in scores.data_vars]
    reduced = xr.merge(means, combine_attrs="override").assign_attrs(scores.attrs)
    sign = 1 if scores.attrs["metric"] in LESS_IS_BETTER else -1
    reduced.attrs["first"] = "highest" if sign == 1 else "lowest"  # where heads step in
    reduced.attrs |= verdict(reduced, sign, scores.sizes["batch"])
    return reduced.assign(_steps_in(scores, reduced, sign)) if "growth" in scores else reduced


def _steps_in(scores: xr.Dataset, reduced: xr.Dataset, sign: int) -> dict:
    """Test of every other head whether it steps in for the list: p, q and flag (layer, head)."""
    named, margin = ("growth", "after"), _margin(reduced)
    cases = [scores[one].transpose("batch", "layer", "head").values.astype(float) for one in named]
    p_value = np.maximum(*(stats.greater_than(sign * values) for values in cases))
    least = np.minimum(*(sign * reduced[one].values for one in named))
    meaning = "p of no growth, or of no help"
    return stats.discoveries(p_value, meaning, "steps in", also=least >= margin, margin=margin)


def _margin(reduced: xr.Dataset) -> float:
    """Return by how much the effect of a head must grow to be named."""
    intact = f"base_{reduced.attrs['metric']}"
    return NAMED * max(abs(float(reduced[one])) for one in (intact, "joint"))


def stepping_in(reduced: xr.Dataset, k: int) -> list[stats.RankedHead]:
    """Return the k heads, of those that step in, whose effect grows most, as `stats.top_heads`."""
    return _growing(reduced.assign(growth=reduced["growth"].where(reduced["flag"] == 1)), k)


def candidates(reduced: xr.Dataset, k: int) -> list[stats.RankedHead]:
    """Return the k heads that step in most and the k that grow most, with `flag`: it steps in.

    None that grows by less than NAMED.
    """
    sure = [{**head, "flag": True} for head in stepping_in(reduced, k)]
    sign = 1 if reduced.attrs["metric"] in LESS_IS_BETTER else -1
    grown = [one for one in _growing(reduced, k) if sign * one["value"] >= _margin(reduced)]
    return sure + [{**one, "flag": False} for one in grown if {**one, "flag": True} not in sure]


def _growing(reduced: xr.Dataset, k: int) -> list[stats.RankedHead]:
    """Return the k heads whose effect grows most."""
    less = reduced.attrs["metric"] in LESS_IS_BETTER
    return stats.top_heads(reduced, "growth", k, lowest=not less)

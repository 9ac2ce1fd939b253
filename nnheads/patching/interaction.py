"""Do the effects of heads add up? Single, conditional and joint effects of a list, and the heads
that step in for it.

The effect of a set of heads is the metric without them minus the metric with all: a head that helps
has a negative one (for `kl` and `rank`, where more is worse, a positive one). Where heads stand in
for each other, each one's own effect
says too little: the joint effect is larger than the sum of its parts. Where they are links of one
    chain it is smaller.
After: comp_u(S) of CoAx, arXiv 2607.01940, here in the plain metric; Wang et al. 2022, arXiv
    2211.00593 (backups).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from nnheads import stats
from nnheads.errors import BadInput
from nnheads.models.geometry import geometry
from nnheads.models.names import head_name
from nnheads.patching.cells import check_members
from nnheads.patching.knockout import Head, without

SOURCE = "after arXiv 2607.01940"
LESS_IS_BETTER = ("kl", "rank")
MARGIN = 0.1  # of the larger of joint effect and sum of parts: below it they count as equal
# of the intact metric, or of the joint effect: a head whose effect grows by less does not step in
NAMED = 0.01
RATE = 0.05  # false discoveries among the heads that are said to step in


def interactions(
    model,
    prompts: xr.Dataset,
    heads: Sequence[Head],
    *,
    pairs: bool = False,
    backup: bool = False,
    how: str = "mean",
    reference: xr.Dataset | None = None,
    metric: str | Callable = "logit_difference",
    at: str | None = None,
    seed: int = 0,
    tokens: int | None = None,
) -> xr.Dataset:
    """Effects of the heads of a list alone, together and after each other, as one job.

    Args:
        heads: (layer, head). pairs: also each pair. backup: also every other head, before and after
            the whole list is ablated. how, reference, metric, at, seed, tokens, remote: as for
            `patching.patch.ablate`.

    Returns:
        float32: `alone` (batch, member) and `last` (batch, member), the effect of a head when
            nothing and when all the
        others of the list are ablated, and their difference `shift`; `joint`, `sum_of_parts` and
        `surplus` (joint minus sum), (batch); with pairs `pair` and `pair_surplus` (batch, member,
        other), NaN for a head with itself; with backup `before`, `after` and `growth`, (batch,
        layer, head), NaN for heads of the list: the effect of each other head alone, after the
            whole list is ablated, and by how much it grows (after minus before); `base_<metric>`
        (batch).

    Raises:
        BadInput: as `ablate`; no heads, or one twice. RunError: logits that are not finite.
    """
    sizes = geometry(model)
    lists = chosen_lists(model, heads, pairs, backup)
    found = without(
        model,
        prompts,
        [one for group in lists.values() for one in group],
        how=how,
        reference=reference,
        metric=metric,
        at=at,
        seed=seed,
        tokens=tokens,
    )
    ends = np.cumsum([len(group) for group in lists.values()])[:-1]
    parts = dict(zip(lists, np.split(found["change"].values, ends, axis=1)))
    couples = list(itertools.combinations(range(len(lists["alone"])), 2)) if pairs else []
    rest = [head for (head,) in lists["before"]]
    values = {
        **_of_list(parts),
        **_of_pairs(parts, couples),
        **_of_rest(parts, rest, (sizes.layers, sizes.heads)),
    }
    names = [head_name(*head) for (head,) in lists["alone"]]
    return _labelled(found, values, names, list(range(sizes.layers)), list(range(sizes.heads)))


def chosen_lists(
    model, heads: Sequence[Head], pairs: bool, backup: bool
) -> dict[str, list[list[Head]]]:
    """Every set of heads that `interactions` ablates, by what it is for.

    Raises BadInput as `interactions`.
    """
    sizes = geometry(model)
    listed = [(int(layer), int(head)) for layer, head in heads]
    if not listed:
        raise BadInput("there are no heads to ablate; the list is empty")
    check_members([listed], sizes.layers, sizes.heads)
    every = [(layer, head) for layer in range(sizes.layers) for head in range(sizes.heads)]
    rest = [head for head in every if head not in listed] if backup else []
    return {
        "joint": [listed],
        "alone": [[head] for head in listed],
        "others": [[other for other in listed if other != head] for head in listed],
        "pair": [list(pair) for pair in itertools.combinations(listed, 2)] if pairs else [],
        "before": [[head] for head in rest],
        "after": [[*listed, head] for head in rest],
    }


def _of_list(parts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    joint, alone = parts["joint"][:, 0], parts["alone"]
    last, total = joint[:, None] - parts["others"], alone.sum(1)
    return {
        "alone": alone,
        "last": last,
        "shift": last - alone,
        "joint": joint,
        "sum_of_parts": total,
        "surplus": joint - total,
    }


def _of_pairs(
    parts: dict[str, np.ndarray], couples: list[tuple[int, int]]
) -> dict[str, np.ndarray]:
    if not couples:
        return {}
    cases, count = parts["alone"].shape
    pair = np.full((cases, count, count), np.nan, np.float32)
    first, second = np.array(couples).T
    pair[:, first, second] = pair[:, second, first] = parts["pair"]
    return {
        "pair": pair,
        "pair_surplus": pair - parts["alone"][:, :, None] - parts["alone"][:, None],
    }


def _of_rest(
    parts: dict[str, np.ndarray], rest: list[Head], shape: tuple[int, int]
) -> dict[str, np.ndarray]:
    if not rest:
        return {}
    layer, head = np.array(rest).T
    before, after = (np.full((len(parts["joint"]), *shape), np.nan, np.float32) for _ in range(2))
    before[:, layer, head] = parts["before"]
    after[:, layer, head] = parts["after"] - parts["joint"]
    return {"before": before, "after": after, "growth": after - before}


MEANING = {
    "alone": (("batch", "member"), "effect of the head alone"),
    "last": (("batch", "member"), "effect of the head after the others of the list"),
    "shift": (("batch", "member"), "effect after the others minus effect alone"),
    "joint": (("batch",), "effect of the list together"),
    "sum_of_parts": (("batch",), "sum of the effects alone"),
    "surplus": (("batch",), "joint effect minus sum of parts"),
    "pair": (("batch", "member", "other"), "effect of two heads together"),
    "pair_surplus": (
        ("batch", "member", "other"),
        "effect of two heads minus the sum of their effects alone",
    ),
    "before": (("batch", "layer", "head"), "effect alone"),
    "after": (("batch", "layer", "head"), "effect after the list"),
    "growth": (("batch", "layer", "head"), "growth of effect"),
}


def _labelled(
    found: xr.Dataset, values: dict, names: list[str], layers: list[int], heads: list[int]
) -> xr.Dataset:
    metric = found.attrs["metric"]
    units = found[metric].attrs["units"]
    scores = found[[f"base_{metric}"]].drop_vars("group", errors="ignore")
    for name, value in values.items():
        dims, text = MEANING[name]
        named = (
            text if "layer" in dims else f"{text} on {metric}"
        )  # what is drawn by head has a colour bar's room
        about = {"long_name": named, "units": units, "source": SOURCE}
        scores[name] = (dims, np.asarray(value, np.float32), about)
    coordinates = {"member": names, "other": names, "layer": layers, "head": heads}
    return scores.assign_coords(
        {name: index for name, index in coordinates.items() if name in scores.dims}
    )


def summary(scores: xr.Dataset, *, seed: int = 0) -> xr.Dataset:
    """`interactions` reduced over cases: means with bootstrap intervals.

    With `growth` also `p_value` (the larger of two one-sided t tests: the effect does not grow, and
    the head does not help after the list), `q_value` over all heads and `flag`, 1 for heads that
    step in: q below RATE, and both growth and effect after the list at least NAMED of the intact
        metric or, if that is more, of the joint effect. A head that
    worked against the answer and ceases to is none. attrs: `adds_up`, 0 where the interval of the
        surplus leaves zero
    out and it is more than MARGIN of the joint effect or of the sum of parts; then `warning` says
    which way. One case alone has no `adds_up`.
    """
    reduced = xr.merge(
        [stats.mean(scores[name], seed=seed) for name in scores.data_vars], combine_attrs="override"
    )
    reduced = reduced.assign_attrs(scores.attrs)
    sign = 1 if scores.attrs["metric"] in LESS_IS_BETTER else -1
    reduced.attrs.update(_verdict(reduced, sign))
    if "growth" in scores:
        base = max(abs(float(reduced[one])) for one in (f"base_{scores.attrs['metric']}", "joint"))
        each = [
            scores[name].transpose("batch", "layer", "head").values for name in ("growth", "after")
        ]
        p_value = np.maximum(*(stats.greater_than(sign * values.astype(float)) for values in each))
        least = np.minimum(*(sign * reduced[name].values for name in ("growth", "after")))
        named = NAMED * base
        tested = stats.discoveries(
            p_value,
            "p of no growth, or of no help",
            "steps in",
            rate=RATE,
            also=least >= named,
            margin=named,
        )
        reduced = reduced.assign(tested)
    return reduced


def _verdict(reduced: xr.Dataset, sign: int) -> dict:
    low, high = float(reduced["surplus_low"]), float(reduced["surplus_high"])
    if np.isnan(low):
        return {}  # one case
    surplus, joint, total = (float(reduced[name]) for name in ("surplus", "joint", "sum_of_parts"))
    beyond_chance = low > 0 or high < 0
    if not beyond_chance or abs(surplus) <= MARGIN * max(abs(joint), abs(total)):
        return {"adds_up": 1}
    if sign * surplus > 0:
        why = (
            "these heads stand in for each other (self-repair), and each one's own effect says too"
            " little"
        )
    else:
        why = (
            "these heads work through one another, and their own effects count the same thing more"
            " than once"
        )
    return {"adds_up": 0, "warning": f"the parts do not add up: {why}"}


def stepping_in(reduced: xr.Dataset, k: int) -> list[dict]:
    """The k heads, of those that step in, whose effect grows most: as `stats.top_heads`."""
    down = reduced.attrs["metric"] not in LESS_IS_BETTER
    flagged = reduced.assign(growth=reduced["growth"].where(reduced["flag"] == 1))
    return stats.top_heads(flagged, "growth", k, lowest=down)

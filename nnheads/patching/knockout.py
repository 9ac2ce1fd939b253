"""Is a list of heads what a behaviour needs? Knock out its first K heads, and as many random ones
of the same layers.

A ranked list is a claim. It holds as far as the behaviour goes when the first K heads go, and stays
when K others of
the same layers go: layer by layer as many, never one of the list. Each random list grows as the
    real one does, so a
draw is a curve of its own. All of it is one job of the engine; lists that are drawn twice run once.
Source of the experiment: Wu et al. 2024, arXiv 2404.15574 (there with uniform attention that sees
    the future).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import xarray as xr

from nnheads import stats
from nnheads.errors import BadInput
from nnheads.models.geometry import geometry
from nnheads.models.names import head_name
from nnheads.patching.cells import check_members
from nnheads.patching.metrics import metric_of
from nnheads.patching.patch import ablate, chosen_cells, filling
from nnheads.patching.readings import Job, prepare

SOURCE = "Wu et al. 2024, arXiv 2404.15574"
KS = (0, 1, 2, 3, 5, 8, 10, 15, 20, 30, 50, 100)
DRAWS = 20
Head = tuple[int, int]


def knockout(
    model,
    prompts: xr.Dataset,
    heads: Sequence[Head],
    *,
    ks: Iterable[int] | None = None,
    draws: int = DRAWS,
    how: str = "mean",
    reference: xr.Dataset | None = None,
    metric: str | Callable = "logit_difference",
    at: str | None = None,
    seed: int = 0,
    tokens: int | None = None,
) -> xr.Dataset:
    """The metric without the first K heads of a list, and without random heads of the same layers.

    Args:
        prompts: pairs, or prompts with `ask` and `target` (batch, step), e.g. of
            `patching.behaviours.ask_for`.
        heads: (layer, head), the strongest first.
        ks: how many heads are knocked out at once; default: KS up to the length of the list, and
            that. What is listed behind the largest of them does not count as listed.
        draws: how many random lists; 0 for none.
        how, reference, metric, at, seed, tokens, remote: as for `patching.patch.ablate`. `seed`
            also draws the lists.

    Returns:
        `<metric>` (batch, k), `random_<metric>` (batch, k, draw) and `base_<metric>` (batch),
        float32; coordinates `listed` (place), the names of the heads, and `drawn` (draw, place),
        those of the random ones.

    Raises:
        BadInput: as `ablate`; no heads, one twice, more heads asked for than listed, or a layer
            that has fewer other heads than listed ones. RunError: logits that are not finite.
    """
    counts, listed, random = chosen_lists(model, heads, ks, draws, seed)
    lists = [one[:k] for one in (listed, *random) for k in counts]
    found = without(
        model,
        prompts,
        lists,
        how=how,
        reference=reference,
        metric=metric,
        at=at,
        seed=seed,
        tokens=tokens,
    )
    name = found.attrs["metric"]
    each = found[name].values.reshape(-1, 1 + len(random), len(counts)).swapaxes(1, 2)
    about = {
        key: found[name].attrs[key]
        for key in ("units", "valid_min", "valid_max")
        if key in found[name].attrs
    }
    what = str(found[name].attrs["long_name"]).removesuffix(", after the swap")
    scores = found.drop_dims("group").drop_vars("group", errors="ignore")
    scores[name] = (
        ("batch", "k"),
        each[..., 0],
        {"long_name": f"{what}, without K heads", **about, "source": SOURCE},
    )
    names = [head_name(*head) for head in listed]
    scores = scores.assign_coords(
        k=("k", counts, {"long_name": "heads knocked out"}), listed=("place", names)
    )
    if random:
        text = f"{what}, without K random heads of the same layers"
        scores[f"random_{name}"] = (
            ("batch", "k", "draw"),
            each[..., 1:],
            {"long_name": text, **about, "source": SOURCE},
        )
        drawn = [[head_name(*head) for head in one] for one in random]
        scores = scores.assign_coords(draw=range(len(random)), drawn=(("draw", "place"), drawn))
    return scores


def chosen_lists(
    model, heads: Sequence[Head], ks: Iterable[int] | None, draws: int, seed: int
) -> tuple[list[int], list[Head], list[list[Head]]]:
    """The numbers of heads, the list cut to the largest of them, and the random lists; BadInput as
    for `knockout`.
    """
    sizes = geometry(model)
    listed = [(int(layer), int(head)) for layer, head in heads]
    if not listed:
        raise BadInput("there are no heads to knock out; the list is empty")
    check_members([listed], sizes.layers, sizes.heads)
    counts = counts_of(ks, len(listed))
    listed = listed[: counts[-1]]
    return counts, listed, random_lists(listed, sizes.heads, draws, seed)


def without(
    model, prompts: xr.Dataset, lists: Sequence[Sequence[Head]], *, how: str, **options
) -> xr.Dataset:
    """`ablate` of each list of heads, (batch, group) in the order of the lists; equal ones run
    once.
    """
    different, place = distinct(lists)
    return ablate(model, prompts, how, groups=different, **options).isel(group=place)


def distinct(lists: Sequence[Sequence[Head]]) -> tuple[list[list[Head]], list[int]]:
    """The different sets of heads, and which of them each list is."""
    number: dict[frozenset, int] = {}
    place = [number.setdefault(frozenset(one), len(number)) for one in lists]
    return [sorted(one) for one in number], place


def plan_without(
    model,
    prompts: xr.Dataset,
    lists: Sequence[Sequence[Head]],
    *,
    how: str,
    reference: xr.Dataset | None,
    metric: str,
    at: str | None,
    seed: int,
) -> Job:
    """The job that `without` runs, for `patching.plan.cost`."""
    site = "pattern" if how == "uniform" else "z"
    cells, _ = chosen_cells(model, prompts, site, None, distinct(lists)[0], False, at)
    put_in = filling(prompts, how, reference, seed)
    return prepare(model, prompts, cells, site=site, full=metric_of(metric).full, **put_in)


def counts_of(ks: Iterable[int] | None, length: int) -> list[int]:
    """How many heads of a list of this length are knocked out at once, in rising order."""
    if ks is None:
        return sorted({k for k in KS if k < length} | {length})
    counts = sorted({int(k) for k in ks})
    if not counts or counts[0] < 0 or counts[-1] < 1:
        raise BadInput(
            f"{counts} are no numbers of heads to knock out; they are at least 0, and one of them"
            " is more"
        )
    if counts[-1] > length:
        raise BadInput(
            f"{counts[-1]} heads are to be knocked out, and the list has {length}; ask for at most"
            f" {length}"
        )
    return counts


def random_lists(heads: Sequence[Head], per_layer: int, draws: int, seed: int) -> list[list[Head]]:
    """Lists that have a head of the same layer at each place, none of `heads` and none twice.

    Raises BadInput for fewer than no draws, or where a layer has fewer other heads than listed
    ones.
    """
    if draws < 0:
        raise BadInput(f"{draws} random lists are not possible; ask for at least 0")
    if draws == 0:
        return []
    listed = Counter(layer for layer, _ in heads)
    for layer, count in listed.items():
        if per_layer - count < count:
            raise BadInput(
                f"layer {layer} has {count} of the listed heads and {per_layer - count} others, so"
                f" no random list can match it; use the first {_longest_matched(heads, per_layer)}"
                " heads, or no random lists (--draws 0)"
            )
    others = {
        layer: [h for h in range(per_layer) if (layer, h) not in set(heads)] for layer in listed
    }
    generator, lists = np.random.default_rng(seed), []
    for _ in range(draws):
        order = {
            layer: iter(generator.permutation(others[layer]).tolist()) for layer in sorted(others)
        }
        lists.append([(layer, next(order[layer])) for layer, _ in heads])
    return lists


def _longest_matched(heads: Sequence[Head], per_layer: int) -> int:
    seen: Counter[int] = Counter()
    for place, (layer, _) in enumerate(heads):
        seen[layer] += 1
        if 2 * seen[layer] > per_layer:
            return place
    return len(heads)


def curve(scores: xr.Dataset, *, seed: int = 0) -> xr.Dataset:
    """`knockout`'s scores reduced over cases.

    Returns:
        `<metric>` (k) and `random_<metric>` (k, draw) with their bootstrap intervals over cases;
        `random_median`, `random_lowest`, `random_highest` (k) over the random lists; `p_value` (k),
        the share of lists, the real one among them, that change the metric by at least as much as
        the real one; `base_<metric>` with its interval; `listed` and `drawn` as they are.
    """
    name = scores.attrs["metric"]
    wanted = [
        variable for variable in (name, f"random_{name}", f"base_{name}") if variable in scores
    ]
    parts = [stats.mean(scores[variable], seed=seed) for variable in wanted]
    reduced = xr.merge(parts, combine_attrs="drop_conflicts").assign_attrs(scores.attrs)
    reduced = reduced.assign_coords(
        {one: scores[one] for one in ("listed", "drawn") if one in scores.coords}
    )
    if f"random_{name}" in scores:
        means = reduced[f"random_{name}"]
        units = {"units": means.attrs["units"]}
        for text, values in (
            ("median", means.median("draw")),
            ("lowest", means.min("draw")),
            ("highest", means.max("draw")),
        ):
            what = {
                "long_name": f"{text} over random lists",
                "cell_methods": f"batch: mean draw: {text}",
                **units,
            }
            reduced[f"random_{text}"] = values.astype("float32").assign_attrs(what)
        base = reduced[f"base_{name}"]
        # lists that differ by rounding alone count as equal
        as_large = abs(means - base) >= abs(reduced[name] - base) - 1e-6
        p_value = ((1 + as_large.sum("draw")) / (1 + means.sizes["draw"])).astype("float32")
        text = "share of lists that change the metric by as much"
        reduced["p_value"] = p_value.assign_attrs(
            long_name=text, units="1", valid_min=0.0, valid_max=1.0
        )
    return reduced


def ranked_heads(heads: xr.Dataset, statistic: str | None = None) -> tuple[list[Head], str]:
    """The heads (layer, head) of a reduced dataset, strongest first, and the statistic that ranks
    them.

    Args:
        statistic: which variable ranks; default: the `headline` of its attrs (as `detect` writes
            it), or `effect`.

    Raises BadInput for a dataset that ranks no heads.
    """
    usable = [
        str(name)
        for name, values in heads.data_vars.items()
        if set(values.dims) == {"layer", "head"}
    ]
    name = statistic or str(heads.attrs.get("headline", "effect"))
    if name not in usable:
        shown = (
            ", ".join(one for one in usable if not one.endswith(("_low", "_high")))
            or "nothing by layer and head"
        )
        raise BadInput(
            f"no {name!r} by layer and head ranks these heads; they have {shown} (see --statistic)"
        )
    order = stats.ranked_heads(heads[name])
    if not order:
        raise BadInput(f"{name!r} is not a number for any head, so it ranks none")
    return order, name

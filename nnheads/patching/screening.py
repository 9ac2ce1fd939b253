"""Screen, then verify: rank all heads by an estimate, patch the best exactly, and bound what the
screen missed.

An estimate from gradients costs a few forwards whatever the number of heads, but it can be wrong in
both directions. False alarms are found by patching the heads at the top. Misses are found by
patching a random sample of the others: from the share of the sample that is strong follows, with a
    stated confidence, how many of all the others can be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr
from scipy import stats as scipy_stats

from nnheads.errors import BadInput
from nnheads.patching import attribution as gradients
from nnheads.patching.direction import TOKENS, direction_of
from nnheads.patching.patch import patch
from nnheads.stats import CONFIDENCE, ranked, spearman
from nnheads.trace.sites import SITES
from nnheads.writing.logit_attribution import direct_logit_attribution

METHODS = (*gradients.METHODS, "direct")
FOUND, AUDITED = 1, 2


def estimate(
    model,
    prompts: xr.Dataset,
    *,
    method: str = "atp*",
    site: str = "z",
    noising: bool = False,
    metric: str | Callable = "logit_difference",
    trusted: bool = False,
) -> xr.Dataset:
    """`estimate` and `size` (batch, layer, unit) of every unit of a site: `gradients.attribute`, or
    with "direct" what a head's output adds straight to the logit difference, on the text that
    gives values minus on the text that is run, which leaves out whatever later layers make of it.

    Raises:
        BadInput: unknown method, or "direct" with another site than z or another metric than the
            logit difference.
    """
    if method not in METHODS:
        raise BadInput(f"method {method!r} is not known; use one of {', '.join(METHODS)}")
    if method != "direct":
        return gradients.attribute(
            model,
            prompts,
            method=method,
            site=site,
            noising=noising,
            metric=metric,
            trusted=trusted,
        )
    if site != "z" or metric != "logit_difference":
        raise BadInput(
            "direct attribution is of head outputs to the logit difference; use site z, or method"
            " atp or atp*"
        )
    direction = direction_of(noising)
    texts = {
        name: direct_logit_attribution(model, prompts, token=token)
        for name, token in TOKENS.items()
    }
    clean, corrupted = texts["clean"], texts["corrupted"]
    change = texts[direction.source]["attribution"] - texts[direction.changed]["attribution"]
    about = {"units": "logit", "source": clean["attribution"].attrs["source"]}
    scores = xr.Dataset(
        {
            "estimate": change.assign_attrs(long_name="change of the direct contribution", **about),
            "size": (
                abs(change).assign_attrs(
                    long_name="size of the change of the direct contribution", **about
                )
            ),
            "clean_logit_difference": clean["logit_difference"],
            "corrupted_logit_difference": corrupted["logit_difference"],
        }
    )
    return scores.assign_attrs(
        method=method,
        method_meaning="direct logit attribution",
        site=site,
        site_meaning=SITES[site],
        metric="logit_difference",
        direction=direction.name,
    )


def screen(
    model,
    prompts: xr.Dataset,
    *,
    method: str = "atp*",
    top: int = 10,
    sample: int = 20,
    threshold: float | None = None,
    site: str = "z",
    noising: bool = False,
    metric: str | Callable = "logit_difference",
    seed: int = 0,
    tokens: int | None = None,
    trusted: bool = False,
) -> xr.Dataset:
    """Rank every head by its estimate, patch the `top` exactly, and `sample` of the others to see
    what was missed.

    Args:
        method: "atp*", "atp" or "direct". threshold: mean size of an exact change above which a
            head counts as missed; default: the smallest among the heads found. seed: of the sample.
        prompts, site, noising, metric, tokens, remote: as for `patch`. trusted: as for
            `gradients.attribute`.

    Returns:
        what `estimate` returns, with `change` (batch, layer, unit), the exact change of the metric,
        NaN where nothing was patched, and what `audit` returns.

    Raises:
        BadInput: as `patch` and `estimate`; top or sample that is not possible. RunError: as
            `gradients.attribute`.
    """
    scores = estimate(
        model, prompts, method=method, site=site, noising=noising, metric=metric, trusted=trusted
    )
    chosen = choose(scores, top, sample, seed)
    exact = verify(model, prompts, chosen, site=site, noising=noising, metric=metric, tokens=tokens)
    scores["change"] = exact
    return xr.merge(
        [scores, audit(scores, chosen, threshold)], combine_attrs="drop_conflicts"
    ).assign_attrs({**scores.attrs, "seed": seed})


def choose(scores: xr.Dataset, top: int, sample: int, seed: int = 0) -> xr.DataArray:
    """Which units are patched, (layer[, unit]): FOUND for the `top` of largest mean size, AUDITED
    for a random sample of the others (all of them, if there are no more), 0 for the rest."""
    if top < 1 or sample < 0:
        raise BadInput(
            f"top {top} and sample {sample} are not possible; patch at least 1 head, and sample 0"
            " or more"
        )
    size = scores["size"].mean("batch")
    order = ranked(size.values, unknown=True)
    chosen = np.zeros(size.size, np.int8)
    chosen[order[:top]] = FOUND
    drawn = np.random.default_rng(seed).permutation(order[top:])[:sample]
    chosen[drawn] = AUDITED
    meaning = (
        f"{FOUND}: among the top of the estimate, {AUDITED}: sampled from the others, 0: not"
        " patched"
    )
    return (
        size.copy(data=chosen.reshape(size.shape))
        .rename("chosen")
        .assign_attrs(long_name=meaning, units="1")
    )


def members(chosen: xr.DataArray) -> list[tuple[int, int]]:
    """(layer, unit) of every unit that is patched; sites without units have unit 0."""
    places = np.argwhere(chosen.values > 0)
    layers = chosen["layer"].values
    return [(int(layers[place[0]]), int(place[1]) if len(place) > 1 else 0) for place in places]


def verify(
    model, prompts: xr.Dataset, chosen: xr.DataArray, *, noising: bool = False, **options
) -> xr.DataArray:
    """The exact `change` of the metric by each chosen unit, (batch, layer[, unit]); NaN for the
    others. Further options are those of `patch`."""
    groups: Sequence = [[one] for one in members(chosen)]
    exact = patch(model, prompts, groups=groups, noising=noising, gap=0.0, **options)
    name = exact.attrs["metric"]
    change = exact[name] - exact[direction_of(noising).before(name)]
    values = np.full((exact.sizes["batch"], *chosen.shape), np.nan, np.float32)
    values[:, chosen.values > 0] = change.values
    about = {**exact[name].attrs, "long_name": f"change of {name} by the swap"}
    return xr.DataArray(values, dims=("batch", *chosen.dims), attrs=about).assign_coords(
        {"batch": prompts["batch"], **chosen.coords}
    )


def audit(scores: xr.Dataset, chosen: xr.DataArray, threshold: float | None = None) -> xr.Dataset:
    """What the screen missed, judged by the sample.

    The sample is drawn without replacement, so the bound is exact for the number of units that
    there are: the largest number of strong units among all others that would still leave so few in
        the sample with a chance of 5 %.

    Returns:
        `chosen` and `exact_size` (mean size of the exact change, NaN where nothing was patched)
        (layer[, unit]), and
        scalars: `threshold`, `others` (units outside the top), `audited`, `missed` (of the sample,
            above the
        threshold), `missed_most` (bound on their number among the others) and `missed_share` (the
        same as a share; NaN without a sample or others); `rank_correlation` of estimated and exact
        sizes over all units that were patched, NaN with fewer than three.
    """
    exact_size = abs(scores["change"]).mean("batch").astype("float32").rename("exact_size")
    size, exact = scores["size"].mean("batch").values, exact_size.values
    found, audited = chosen.values == FOUND, chosen.values == AUDITED
    limit = float(exact[found].min()) if threshold is None else float(threshold)
    others, sample = int((~found).sum()), int(audited.sum())
    missed = int((exact[audited] > limit).sum())
    most = most_missed(others, sample, missed) if sample else others
    patched = found | audited
    units = scores["change"].attrs["units"]
    data = {
        "threshold": (
            limit,
            "mean size of an exact change above which a unit counts as missed",
            units,
        ),
        "others": (others, "units outside the top", "1"),
        "audited": (sample, "units patched outside the top, drawn at random", "1"),
        "missed": (missed, "of the sample, units above the threshold", "1"),
        "missed_most": (
            most,
            f"most units outside the top that can be above it, {CONFIDENCE:.0%} bound",
            "1",
        ),
        "missed_share": (
            most / others if others and sample else np.nan,
            "the same as a share",
            "1",
        ),
        "rank_correlation": (
            float(spearman(size[patched], exact[patched])),
            "Spearman, estimated and exact size",
            "1",
        ),
    }
    about = {
        **scores["change"].attrs,
        "long_name": "mean size of the exact change",
        "cell_methods": "batch: mean",
    }
    result = xr.Dataset({"chosen": chosen, "exact_size": exact_size.assign_attrs(about)})
    for name, (value, meaning, unit) in data.items():
        result[name] = ((), np.float32(value), {"long_name": meaning, "units": unit})
    return result


def most_missed(others: int, sample: int, missed: int) -> int:
    """Upper bound on how many of `others` are strong, given that `missed` of a `sample` of them,
    drawn without
    replacement, are: the finite-population form of Clopper and Pearson's one-sided bound."""
    strong = np.arange(missed, others - (sample - missed) + 1)
    possible = scipy_stats.hypergeom.cdf(missed, others, strong, sample) > 1 - CONFIDENCE
    return int(strong[possible].max())

"""Screen, then verify: rank heads by an estimate, patch the best, and bound what the screen missed.

    scores = screen(model, prompts, method="atp*", top=10, sample=20)
    scores["missed_most"]  # at most so many of the others are as strong, with 95% confidence

An estimate from gradients costs a few forwards whatever the number of heads, but it can be wrong in
both directions. False alarms are found by patching the heads at the top. Misses are found by
patching a random sample of the others: from the share of the sample that is strong follows, with a
stated confidence, how many of all the others can be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from nnheads.errors import BadInput
from nnheads.patching import attribution as gradients
from nnheads.patching.audit import DRAWN, FOUND, NEXT, audit
from nnheads.patching.direction import TOKENS, direction_of
from nnheads.patching.patch import patch
from nnheads.stats import ranked
from nnheads.trace.sites import SITES
from nnheads.writing.logit_attribution import direct_logit_attribution

METHODS = (*gradients.METHODS, "direct")
LEAST, SHARE = 10, 15  # units that are patched: at least so many, and one of so many


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
    """Return an estimate of what each unit of a site changes, without patching it.

    Args:
        method: "atp*" or "atp" (see `attribution.attribute`), or "direct": what a head's output
            adds straight to the logit difference, in the text that gives values minus in the text
            that is run. That leaves out whatever later layers make of it.
        prompts, site, noising, metric, trusted: as for `attribution.attribute`.

    Returns:
        `estimate` and `size` (batch, layer, unit), and the metric of both texts (batch).

    Raises:
        BadInput: unknown method, or "direct" with another site than z or another metric than the
            logit difference.
    """
    if method not in METHODS:
        raise BadInput(f"Not a method: {method!r}. Use one of {', '.join(METHODS)}.")
    if method == "direct":
        _check_direct(site, metric)
        return _direct_estimate(model, prompts, noising)
    return gradients.attribute(
        model,
        prompts,
        method=method,
        site=site,
        noising=noising,
        metric=metric,
        trusted=trusted,
    )


def _check_direct(site: str, metric: str | Callable) -> None:
    """Refuse what direct logit attribution says nothing about."""
    if site != "z" or metric != "logit_difference":
        raise BadInput(
            f"Method direct is of head outputs and the logit difference, not of site {site} and"
            f" {metric}. Use site z and metric logit_difference, or method atp or atp*."
        )


def _direct_estimate(model, prompts: xr.Dataset, noising: bool) -> xr.Dataset:
    """Return how each head's direct logit attribution differs between the two texts."""
    direction = direction_of(noising)
    texts = {
        name: direct_logit_attribution(model, prompts, token=token)
        for name, token in TOKENS.items()
    }
    clean, corrupted = texts["clean"], texts["corrupted"]
    change = texts[direction.source]["attribution"] - texts[direction.changed]["attribution"]
    about = {"units": "logit", "source": clean["attribution"].attrs["source"]}
    meaning = "change of the direct contribution"
    data = {
        "estimate": change.assign_attrs(long_name=meaning, **about),
        "size": abs(change).assign_attrs(long_name=f"size of the {meaning}", **about),
        "clean_logit_difference": clean["logit_difference"],
        "corrupted_logit_difference": corrupted["logit_difference"],
    }
    return xr.Dataset(data).assign_attrs(
        method="direct",
        method_meaning="direct logit attribution",
        site="z",
        site_meaning=SITES["z"]["meaning"],
        metric="logit_difference",
        direction=direction.name,
    )


def screen(
    model,
    prompts: xr.Dataset,
    *,
    method: str = "atp*",
    top: int | None = None,
    sample: int = 30,
    threshold: float | None = None,
    site: str = "z",
    noising: bool = False,
    metric: str | Callable = "logit_difference",
    seed: int = 0,
    tokens: int | None = None,
    trusted: bool = False,
) -> xr.Dataset:
    """Return an estimate of every head's effect, exact effects of some, and what was missed.

    The `top` heads of the estimate are patched exactly (a fifteenth of all, at least 10, unless it
    is said), and `sample` of the others: half of them next to the top, half drawn at random.

    Args:
        prompts: pairs as `prompts.pairs.tokenize` lays them out.
        method: "atp*", "atp" or "direct", see `estimate`.
        threshold: mean size of an exact change above which a head counts as missed; default: the
            smallest among the heads found.
        seed: of the sample.
        site, noising, metric, tokens: as for `patch`. trusted: as for `attribution.attribute`.

    Returns:
        float32, in the unit of the metric: what `estimate` returns, `change` (batch, layer, unit),
        the exact change of the metric, NaN where nothing was patched, and what `audit` returns.

    Raises:
        BadInput: as `patch` and `estimate`; top or sample that is not possible. RunError: as
            `attribution.attribute`.

    Source: Kramar et al. 2024, arXiv 2403.00745 (AtP*).

    Example:
        >>> model = nnheads.load()
        >>> prompts = nnheads.ioi(model.tokenizer, 4)
        >>> scores = nnheads.screen(model, prompts, top=2, sample=3)
        >>> scores["estimate"].dims
        ('batch', 'layer', 'head')
        >>> int(scores["audited"])
        3
    """
    options: dict[str, Any] = {"site": site, "noising": noising, "metric": metric}
    scores = estimate(model, prompts, method=method, trusted=trusted, **options)
    chosen = choose(scores, top, sample, seed)
    scores["change"] = verify(model, prompts, chosen, tokens=tokens, **options)
    judged = audit(scores, chosen, threshold)
    merged = xr.merge([scores, judged], combine_attrs="drop_conflicts")
    return merged.assign_attrs({**scores.attrs, "seed": seed})


def usual_top(units: int) -> int:
    """Return how many units are patched unless it is said: more in larger models."""
    return max(LEAST, -(-units // SHARE))


def choose(scores: xr.Dataset, top: int | None, sample: int, seed: int = 0) -> xr.DataArray:
    """Return which units are patched (layer[, unit]).

    FOUND for the `top` of largest mean size; half of the sample are the NEXT ones, the other half
    is DRAWN from the rest at random; 0 for what is left.

    Args:
        top: None for `usual_top`.

    Raises:
        BadInput: a top below 1 or a sample below 0.
    """
    top = usual_top(scores["size"].isel(batch=0).size) if top is None else top
    if top < 1 or sample < 0:
        raise BadInput(
            f"Not numbers of heads to patch: top {top}, sample {sample}. Patch at least 1 head, and"
            " sample 0 or more."
        )
    size = scores["size"].mean("batch")
    order = ranked(size.values, unknown=True)
    chosen = np.zeros(size.size, np.int8)
    chosen[order[:top]] = FOUND
    below = top + sample // 2
    chosen[order[top:below]] = NEXT
    drawn = np.random.default_rng(seed).permutation(order[below:])[: sample - sample // 2]
    chosen[drawn] = DRAWN
    meaning = (
        f"{FOUND}: among the top of the estimate, {NEXT}: next to it, {DRAWN}: drawn from the"
        " others, 0: not patched"
    )
    labelled = size.copy(data=chosen.reshape(size.shape)).rename("chosen")
    return labelled.assign_attrs(long_name=meaning, units="1")


def members(chosen: xr.DataArray) -> list[tuple[int, int]]:
    """Return (layer, unit) of every unit that is patched; sites without units have unit 0."""
    layers = chosen["layer"].values
    return [
        (int(layers[index[0]]), int(index[1]) if len(index) > 1 else 0)
        for index in np.argwhere(chosen.values > 0)
    ]


def verify(
    model, prompts: xr.Dataset, chosen: xr.DataArray, *, noising: bool = False, **options
) -> xr.DataArray:
    """Return the exact `change` of the metric by each chosen unit; NaN for the others.

    Args:
        chosen: (layer[, unit]), as `choose` returns it.
        options: those of `patch`.

    Returns:
        (batch, layer[, unit]), in the unit of the metric.
    """
    groups = [[one] for one in members(chosen)]
    exact = patch(model, prompts, groups=groups, noising=noising, gap=0.0, **options)
    name = exact.attrs["metric"]
    change = exact[name] - exact[direction_of(noising).before(name)]
    values = np.full((exact.sizes["batch"], *chosen.shape), np.nan, np.float32)
    values[:, chosen.values > 0] = change.values
    about = {**exact[name].attrs, "long_name": f"change of {name} by the swap"}
    labelled = xr.DataArray(values, dims=("batch", *chosen.dims), attrs=about)
    return labelled.assign_coords({"batch": prompts["batch"], **chosen.coords})

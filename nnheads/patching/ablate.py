"""Ablation: take a head's own information away, and see what the answer loses.

    scores = ablate(model, prompts, "mean")
    scores.change.mean("batch")                                 # (layer, head)

Source: Wang et al. 2022, arXiv 2211.00593.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import xarray as xr

from nnheads.errors import BadInput
from nnheads.models.geometry import geometry
from nnheads.patching.ablation_values import ABLATIONS, aligned, means, own_values, resampled
from nnheads.patching.metrics import Metric, metric_of
from nnheads.patching.prepared import prepare, units
from nnheads.patching.readings import measure
from nnheads.patching.scores import SOURCE, labelled, of_case
from nnheads.patching.targets import Group, chosen_cells
from nnheads.trace.sites import SITES, UNITS


def ablate(
    model,
    prompts: xr.Dataset,
    how: str | xr.DataArray = "mean",
    *,
    reference: xr.Dataset | None = None,
    site: str = "z",
    layers: Sequence[int] | None = None,
    groups: Sequence[Group] | None = None,
    by_position: bool = False,
    at: str | None = None,
    metric: str | Callable = "logit_difference",
    seed: int = 0,
    tokens: int | None = None,
) -> xr.Dataset:
    """Measure what is lost if one part at a time says nothing about the prompt at hand.

    Args:
        prompts: (batch, position): pairs, or prompts with `ask` and `target` (batch, step).
        how: "mean" over the reference prompts of the same template and length, "zero", "uniform"
            attention, "resample" (one such prompt), or values of your own: (layer, head or kv_head,
            width), and (batch) or (position) if they differ there. A prompt's own text is no source
            of its values, wherever it stands. A mean over few prompts is noise: it harms by itself.
        reference: prompts that means or other values come from, e.g. the "abc" sentences of the
            indirect-object task; default: the prompts themselves, for each of them the others.
        site, layers, groups, by_position, at, metric, tokens: as for `patch`.
        seed: of the prompts drawn by "resample".

    Returns:
        `<metric>`, `change` (after minus before, in the metric's units) and `relative` (change over
        before; negative: the part helped), float32, with the dimensions of `patch`, and
        `base_<metric>` (batch).

    Raises:
        BadInput: as `patch`; a reference without another prompt of a case's template and length.
        RunError: logits that are not finite.

    Source: Wang et al. 2022, arXiv 2211.00593.

    Example:
        >>> model = nnheads.load()
        >>> prompts = nnheads.ioi(model.tokenizer, n=2, seed=0)
        >>> scores = nnheads.ablate(model, prompts, "zero", layers=[3])
        >>> scores.change.dims
        ('batch', 'layer', 'head')
    """
    chosen, site = metric_of(metric), ablated_site(how, site)
    cells, axes = chosen_cells(model, prompts, site, layers, groups, by_position, at)
    if isinstance(how, str):
        put_in, name = filling(prompts, how, reference, seed), how
    else:
        put_in, name = given_values(model, prompts, how, site), "given"
    plan = prepare(model, prompts, cells, site=site, full=chosen.full, tokens=tokens, **put_in)
    readings = measure(model, plan)
    unchanged = of_case(chosen, readings, readings.unchanged, "unchanged")
    scores = with_changes(labelled(prompts, readings, chosen, axes), unchanged, chosen)
    scores.attrs.update(site=site, site_meaning=SITES[site]["meaning"])
    scores.attrs.update(metric=chosen.name, ablation=name)
    meaning = ABLATIONS.get(name, "values of one's own")
    if reference is not None and not reference["token"].equals(prompts["token"]):
        meaning = meaning.replace("the other prompts of the set", "a set of other prompts")
    return scores.assign_attrs(meaning=meaning)


def ablated_site(how: str | xr.DataArray, site: str) -> str:
    """Return the site that an ablation writes: uniform attention is a pattern.

    Raises BadInput for an ablation that is not known.
    """
    if not isinstance(how, str):
        return site
    if how not in ABLATIONS:
        raise BadInput(
            f"ablation {how!r} is not known; use one of {', '.join(ABLATIONS)}, or give values"
        )
    if how != "uniform":
        return site
    if site not in ("z", "pattern"):
        raise BadInput(
            f"uniform attention is a pattern, not a value of {site}; use site z or pattern"
        )
    return "pattern"


def filling(prompts: xr.Dataset, how: str, reference: xr.Dataset | None, seed: int) -> dict:
    """Return what `prepare` is told to put in for a named ablation."""
    if how in ("zero", "uniform"):
        return {"fill": how}
    others = aligned(prompts if reference is None else reference, prompts)
    mix = means(prompts, others) if how == "mean" else resampled(prompts, others, seed)
    return {"source": others, "mix": mix}


def given_values(model, prompts: xr.Dataset, values: xr.DataArray, site: str) -> dict:
    """Return what `prepare` is told to put in for values of one's own."""
    sizes = geometry(model)
    width = sizes.head_dim if site in UNITS else sizes.d_model
    return {"values": own_values(prompts, values, site, units(model, site), width)}


def with_changes(scores: xr.Dataset, before: xr.DataArray, metric: Metric) -> xr.Dataset:
    """Add the metric of the unchanged run, and what each ablation changes."""
    change = scores[metric.name] - before
    scores[f"base_{metric.name}"] = before
    scores["change"] = change.astype("float32").assign_attrs(
        source=SOURCE, long_name=f"change of {metric.long_name}", units=metric.units
    )
    relative = (change / before.where(before != 0)).astype("float32")
    scores["relative"] = relative.assign_attrs(
        source=SOURCE, long_name="change over the unchanged value", units="1"
    )
    return scores

"""Patching and ablation as datasets: prompts in, effects per case, layer and head or position out.

Denoising (default) puts the clean run's value into the corrupted run and asks what is *sufficient*
to bring the answer back. Noising puts the corrupted value into the clean run and asks what is
*necessary*. They are different questions and their numbers need not agree. Ablation takes a head's
own information away.
Sources: Wang et al. 2022, arXiv 2211.00593; Heimersheim & Nanda 2024, arXiv 2404.15255.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import xarray as xr

from nnheads.errors import BadInput
from nnheads.models.geometry import geometry
from nnheads.models.labels import label
from nnheads.models.names import head_name
from nnheads.patching import cells as which
from nnheads.patching.ablation_values import ABLATIONS, aligned, means, own_values, resampled
from nnheads.patching.direction import direction_of
from nnheads.patching.metrics import Metric, evaluate, metric_of, normalised_effect
from nnheads.patching.readings import Readings, measure, prepare, units
from nnheads.trace.sites import SITES, UNITS

SOURCE = "Wang et al. 2022, arXiv 2211.00593"
Group = Sequence[tuple[int, int]]


def patch(
    model,
    prompts: xr.Dataset,
    *,
    site: str = "z",
    layers: Sequence[int] | None = None,
    groups: Sequence[Group] | None = None,
    by_position: bool = False,
    at: str | None = None,
    noising: bool = False,
    metric: str | Callable = "logit_difference",
    gap: float = 0.1,
    tokens: int | None = None,
) -> xr.Dataset:
    """Swap one part at a time, or groups of parts, between the clean and the corrupted run of every
    pair.

    Args:
        prompts: pairs as `prompts.pairs.tokenize` lays them out.
        site: a key of `patching.sites.SITES`: "z" (head outputs), "q", "k", "v", "pattern",
            "attn_out", "mlp_out", "resid_pre".
        layers: which layers; default all. groups: sets of (layer, head) that are swapped together,
            instead.
        by_position: swap at one position at a time instead of all at once. at: a role such as
            "END": swap only there.
        noising: corrupted into clean, instead of clean into corrupted.
        metric: a key of `patching.metrics.METRICS`, or a function from the answers' logits [...,
            answer] to [...].
        gap: pairs whose metric differs by less between the runs are left out of `effect` (NaN).
        tokens: most rows x positions in one forward; default: what suits the device.

    Returns:
        `<metric>` and `effect`, float32, (batch, layer[, head or kv_head][, position]), or (batch,
        group[, position]), and `clean_<metric>`, `corrupted_<metric>` (batch). `effect` is 0 where
        the swap changed nothing and 1 where it carried the whole difference over; it is not
        bounded.

    Raises:
        BadInput: unknown site, layer, head, role or metric, or no prompts. RunError: logits that
            are not finite.
    """
    chosen = metric_of(metric)
    job, axes = plan_patch(
        model,
        prompts,
        site=site,
        layers=layers,
        groups=groups,
        by_position=by_position,
        at=at,
        noising=noising,
        full=chosen.full,
        tokens=tokens,
    )
    readings = measure(model, job)
    scores = labelled(prompts, readings, chosen, axes)
    direction = direction_of(noising)
    before, after = direction.before(chosen.name), direction.after(chosen.name)
    scores[before] = _of_case(chosen, readings, readings.base, direction.changed)
    scores[after] = _of_case(chosen, readings, readings.source, direction.source)
    scores["effect"] = normalised_effect(
        scores[chosen.name], scores[before], scores[after], gap
    ).assign_attrs(source=SOURCE)
    scores.attrs.update(
        site=site,
        site_meaning=SITES[site],
        metric=chosen.name,
        direction=direction.name,
    )
    return scores


def plan_patch(
    model, prompts: xr.Dataset, *, site, layers, groups, by_position, at, noising, full, tokens
):
    """The job that `patch` runs, and the names of its axes."""
    cells, axes = chosen_cells(model, prompts, site, layers, groups, by_position, at)
    direction = direction_of(noising)
    job = prepare(
        model,
        prompts,
        cells,
        site=site,
        base=direction.changed_token,
        source=direction.source_token,
        full=full,
        tokens=tokens,
    )
    return job, axes


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
    """Take away what one part at a time, or groups of parts, say about the prompt at hand.

    Args:
        prompts: pairs, or prompts with `ask` and `target` (batch, step).
        how: "mean" over the reference prompts of the same template and length, "zero", "uniform"
            attention, "resample" (one such prompt), or values of your own: (layer, head or kv_head,
            width), and (batch) or (position) if they differ there. A prompt's own text is no source
            of its values, wherever it stands.
        reference: prompts that means or other values come from, e.g. the "abc" sentences of the
            indirect-object task; default: the prompts themselves, for each of them the others.
        site, layers, groups, by_position, at, metric, tokens: as for `patch`.
        seed: of the prompts drawn by "resample".

    Returns:
        `<metric>`, `change` (after minus before) and `relative` (change over before; negative: the
        part helped), float32, with the dimensions of `patch`, and `base_<metric>` (batch).

    Raises:
        BadInput: as `patch`; a reference without another prompt of a case's template and length.
        RunError: logits that are not finite.
    """
    if isinstance(how, str) and how not in ABLATIONS:
        raise BadInput(
            f"ablation {how!r} is not known; use one of {', '.join(ABLATIONS)}, or give values"
        )
    if isinstance(how, str) and how == "uniform":
        if site not in ("z", "pattern"):
            raise BadInput(
                f"uniform attention is a pattern, not a value of {site}; use site z or pattern"
            )
        site = "pattern"
    chosen = metric_of(metric)
    cells, axes = chosen_cells(model, prompts, site, layers, groups, by_position, at)
    if isinstance(how, xr.DataArray):
        sizes, count = geometry(model), units(model, site)
        width = sizes.head_dim if site in UNITS else sizes.d_model
        put_in: dict = {"given": own_values(prompts, how, site, count, width)}
        how = "given"
    else:
        put_in = filling(prompts, how, reference, seed)
    job = prepare(model, prompts, cells, site=site, full=chosen.full, tokens=tokens, **put_in)
    readings = measure(model, job)
    scores = labelled(prompts, readings, chosen, axes)
    before = _of_case(chosen, readings, readings.base, "unchanged")
    change = scores[chosen.name] - before
    scores[f"base_{chosen.name}"] = before
    about = {"source": SOURCE, "long_name": f"change of {chosen.long_name}", "units": chosen.units}
    scores["change"] = change.astype("float32").assign_attrs(about)
    relative = (change / before.where(before != 0)).astype("float32")
    scores["relative"] = relative.assign_attrs(
        source=SOURCE, long_name="change over the unchanged value", units="1"
    )
    scores.attrs.update(site=site, site_meaning=SITES[site], metric=chosen.name, ablation=how)
    scores.attrs["meaning"] = ABLATIONS.get(how, "values of one's own")
    return scores


def filling(prompts: xr.Dataset, how: str, reference: xr.Dataset | None, seed: int) -> dict:
    """What `prepare` is told to put in."""
    if how in ("zero", "uniform"):
        return {"fill": how}
    others = prompts if reference is None else reference
    lined_up = aligned(others, prompts)
    mix = means(prompts, lined_up) if how == "mean" else resampled(prompts, lined_up, seed)
    return {"source": lined_up, "mix": mix}


def chosen_cells(
    model, prompts: xr.Dataset, site: str, layers, groups, by_position: bool, at: str | None
):
    """The cells of a question, and the dimensions and coordinates of its answer."""
    count, sizes, mask = units(model, site), geometry(model), prompts["mask"].values
    if at is not None and by_position:
        raise BadInput("swap at each position or at one role, not both")
    if at is not None:
        places = which.at(role(prompts, at), mask)
    else:
        places = which.each_position(mask) if by_position else which.everywhere(mask)
    axes: dict[str, list] = {}
    if groups is None:
        rows = list(range(sizes.layers)) if layers is None else list(layers)
        for layer in rows:
            if not 0 <= layer < sizes.layers:
                raise BadInput(
                    f"layer {layer} does not exist; this model has layers 0 to {sizes.layers - 1}"
                )
        cells = which.grid(rows, count, places)
        axes["layer"] = rows
        if site in UNITS:
            axes[UNITS[site]] = list(range(count))
    else:
        members = [[(int(layer), int(unit)) for layer, unit in group] for group in groups]
        which.check_members(members, sizes.layers, count, UNITS.get(site, "unit"))
        cells = which.groups(members, places)
        axes["group"] = [
            "+".join(head_name(*head) for head in group) or "none" for group in members
        ]
    if by_position:
        axes["position"] = list(range(mask.shape[1]))
    return cells, axes


def role(prompts: xr.Dataset, name: str) -> np.ndarray:
    """The position of a role in each prompt."""
    known = [
        str(key).removeprefix("role_") for key in prompts.coords if str(key).startswith("role_")
    ]
    if name == "END" and name not in known:
        return np.full(prompts.sizes["batch"], prompts.sizes["position"] - 1)
    if name not in known:
        raise BadInput(
            f"role {name!r} is not known in these prompts; use one of {', '.join(known) or 'END'}"
        )
    return prompts[f"role_{name}"].values


def labelled(
    prompts: xr.Dataset, readings: Readings, metric: Metric, axes: dict[str, list]
) -> xr.Dataset:
    """The metric after each swap, (batch, *axes)."""
    values = evaluate(metric, readings, readings.swapped).T
    values = values.reshape(-1, *(len(index) for index in axes.values()))
    dims = ("batch", *axes)
    scores = label(
        values,
        dims,
        long_name=f"{metric.long_name}, after the swap",
        units=metric.units,
        source=SOURCE,
    )
    if "position" in axes:
        scores = scores.where(prompts["mask"].astype(bool))  # padding is no position of the prompt
    batch = {name: prompts[name] for name in prompts.coords if prompts[name].dims == ("batch",)}
    return scores.astype("float32").to_dataset(name=metric.name).assign_coords({**batch, **axes})


def _of_case(
    metric: Metric, readings: Readings, values: torch.Tensor | None, which_run: str
) -> xr.DataArray:
    assert values is not None, "only mixed sources are not read"
    found = evaluate(metric, readings, values)
    return label(
        found, ("batch",), long_name=f"{metric.long_name}, {which_run}", units=metric.units
    )

"""Activation patching: prompts in, effects per case, layer and head or position out.

    scores = patch(model, nnheads.ioi(model.tokenizer, n=32))
    scores.effect.mean("batch")                                 # (layer, head)

Denoising (default) puts the clean run's value into the corrupted run and asks what is *sufficient*
to bring the answer back. Noising puts the corrupted value into the clean run and asks what is
*necessary*. They are different questions and their numbers need not agree.
Sources: Wang et al. 2022, arXiv 2211.00593; Heimersheim & Nanda 2024, arXiv 2404.15255.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import xarray as xr

from nnheads.patching.direction import DENOISING, Direction, direction_of
from nnheads.patching.metrics import Metric, metric_of, normalised_effect
from nnheads.patching.prepared import PreparedSweep, prepare
from nnheads.patching.readings import Readings, measure
from nnheads.patching.scores import SOURCE, labelled, of_case
from nnheads.patching.targets import Axes, Group, chosen_cells
from nnheads.trace.sites import SITES


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
    """Measure the exact effect of swapping one part at a time between two texts of every pair.

    Args:
        prompts: pairs as `prompts.pairs.tokenize` lays them out: token, corrupted, mask
            (batch, position), answer, wrong (batch).
        site: what is swapped, one of `trace.sites.SWEPT`: "z" (head outputs), "q", "k", "v",
            "pattern", "attn_out", "mlp_out", "resid_pre".
        layers: which layers; default all. groups: sets of (layer, head) that are swapped together,
            instead.
        by_position: swap at one position at a time instead of all at once. at: a role such as
            "END": swap only there.
        noising: corrupted into clean, instead of clean into corrupted.
        metric: a key of `patching.metrics.METRICS`, or a function from the answers' logits [...,
            answer] to [...].
        gap: pairs whose metric differs by less between the texts are left out of `effect` (NaN).
        tokens: most rows x positions in one forward; default: what suits the device.

    Returns:
        `<metric>` (in its own units) and `effect` (no unit), float32, (batch, layer[, head or
        kv_head][, position]), or (batch, group[, position]), and `clean_<metric>`,
        `corrupted_<metric>` (batch). `effect` is 0 where the swap changed nothing and 1 where it
        carried the whole difference over; it is not bounded.

    Raises:
        BadInput: unknown site, layer, head, role or metric, or no prompts.
        RunError: logits that are not finite.

    Source: Wang et al. 2022, arXiv 2211.00593.

    Example:
        >>> model = nnheads.load()
        >>> prompts = nnheads.ioi(model.tokenizer, n=2, seed=0)
        >>> scores = nnheads.patch(model, prompts, layers=[3])
        >>> scores.effect.dims
        ('batch', 'layer', 'head')
    """
    chosen, direction = metric_of(metric), direction_of(noising)
    plan, axes = plan_patch(
        model,
        prompts,
        site=site,
        layers=layers,
        by_position=by_position,
        at=at,
        direction=direction,
        full=chosen.full,
        groups=groups,
        tokens=tokens,
    )
    readings = measure(model, plan)
    scores = effects(labelled(prompts, readings, chosen, axes), readings, chosen, direction, gap)
    meaning = SITES[site]["meaning"]
    scores.attrs.update(
        site=site, site_meaning=meaning, metric=chosen.name, direction=direction.name
    )
    return scores


def effects(
    scores: xr.Dataset, readings: Readings, metric: Metric, direction: Direction, gap: float
) -> xr.Dataset:
    """Add the metric of both texts, and the share of their difference that each swap carries."""
    before, after = direction.before(metric.name), direction.after(metric.name)
    scores[before] = of_case(metric, readings, readings.unchanged, direction.changed)
    scores[after] = of_case(metric, readings, readings.source, direction.source)
    effect = normalised_effect(scores[metric.name], scores[before], scores[after], gap)
    scores["effect"] = effect.assign_attrs(source=SOURCE)
    return scores


def plan_patch(
    model,
    prompts: xr.Dataset,
    *,
    site: str = "z",
    layers: Sequence[int] | None = None,
    groups: Sequence[Group] | None = None,
    by_position: bool = False,
    at: str | None = None,
    direction: Direction = DENOISING,
    full: int = 0,
    tokens: int | None = None,
) -> tuple[PreparedSweep, Axes]:
    """Return the sweep that `patch` runs, and the names of its axes.

    Args:
        full: how much of the vocabulary the metric reads, see `trace.plain.Request`. The others
            are those of `patch`, with the direction for `noising`.
    """
    cells, axes = chosen_cells(model, prompts, site, layers, groups, by_position, at)
    plan = prepare(
        model,
        prompts,
        cells,
        site=site,
        text=direction.changed_token,
        source=direction.source_token,
        full=full,
        tokens=tokens,
    )
    return plan, axes

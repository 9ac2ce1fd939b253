"""Which heads name the indirect object? Patch every head between clean and corrupted sentences."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer
from nnheads.recipes import _pairs
from nnheads.recipes._checks import check_size
from nnheads.recipes._ioi_report import draw, heads_named, report
from nnheads.recipes._roles import report_roles
from nnheads.recipes._study import Study, study
from nnheads.recipes._terminal import first_batch, say, say_plan

from nnheads.errors import BadInput

TITLE = "indirect object: effect of every head"

Spread = Annotated[
    int,
    typer.Option(
        help="Up to so many adjectives before the object, or END is always as far from S2."
    ),
]
Writer = Annotated[
    str | None, typer.Option(help="Let a model write: Hub id, folder, or openai:NAME.")
]
Site = Annotated[
    str, typer.Option(help="What is swapped: z, q, k, v or pattern; several as z,v,pattern.")
]
Roles = Annotated[
    bool, typer.Option("--roles", help="Also say which role each head has, and on what evidence.")
]
Layers = Annotated[str | None, typer.Option(help="Only these layers, e.g. 0,2,5-8.")]
Gap = Annotated[
    float, typer.Option(help="Smallest gap in logit difference that an effect is computed for.")
]


@study(limit=100, batch_size=20, top=8, plan=False, incidental=("top", "roles"), quick={"limit": 8})
def main(
    study: Study,
    corruption: _pairs.Corruption = "other",
    prompts: _pairs.PairsFile = None,
    spread: Spread = 0,
    writer: Writer = None,
    noising: _pairs.Noising = False,
    site: Site = "z",
    roles: Roles = False,
    layers: Layers = None,
    strict: _pairs.Strict = False,
    gap: Gap = 0.1,
) -> None:
    """Which heads name the indirect object?

    Draws sentences such as "When Mary and John went to the market, John gave the book to", corrupts
    them, keeps those that the model gets right, and swaps every head's output (or its queries,
    keys, values or pattern) between the two runs. Writes scores.nc (batch, layer, head), heads.nc
    (layer, head) and heads.png; other sites than the output have a folder of their own.
    """
    check(study)
    sites = sites_in(site)
    chosen = layers_in(study)
    if study.plan:
        report_plan(study, sites, chosen)
        return
    listed: list[tuple[int, int]] = []
    for one in sites:
        run, pairs = open_site(study, one)
        if not run.complete:
            compute(study, run, pairs, one, chosen)
        report(run, study.top)
        listed = heads_named(run, study.top) if one == "z" else listed
    if roles:
        report_roles(study, listed)


def check(study: Study) -> None:
    """Refuse options that do not go together, before anything is loaded."""
    from nnheads.prompts.ioi import check_corruption, check_spread

    check_corruption(study.corruption)
    check_spread(study.spread)
    check_size(gap=study.gap)
    if study.prompts is not None and study.writer is not None:
        raise BadInput(
            "--prompts and --writer exclude each other; the sentences come from one of them"
        )
    if study.plan and study.writer is not None:
        raise BadInput("--plan asks no --writer for sentences; leave one of them out")
    if study.prompts is not None or study.writer is not None:
        check_foreign(study)


def check_foreign(study: Study) -> None:
    """Refuse options that are for sentences of our own."""
    if study.spread:
        raise BadInput("--spread is for sentences of our own; leave --prompts and --writer out")
    if study.roles:
        raise BadInput(
            "--roles draws sentences of its own, whose names it knows; leave --prompts and"
            " --writer out"
        )


def sites_in(text: str) -> list[str]:
    """Return the sites of `z,v`; only those that have heads."""
    from nnheads.models.names import check_site
    from nnheads.trace.sites import UNITS

    sites = list(dict.fromkeys(piece.strip() for piece in text.split(",")))
    for one in sites:
        check_site(one, UNITS, "has no heads")
    return sites


def layers_in(study: Study) -> list[int] | None:
    """Return the layers of `--layers`, of those that the model has."""
    from nnheads.models.geometry import geometry
    from nnheads.models.names import parse_numbers

    sizes = geometry(study.model)
    return None if study.layers is None else parse_numbers(study.layers, "layer", sizes.layers)


def report_plan(study: Study, sites: list[str], layers: list[int] | None) -> None:
    """Print what each site would cost, batch by batch."""
    from nnheads.patching.patch import plan_patch

    pairs = _pairs.pairs_of(study, study.spread)
    if study.roles:
        say("--roles is not planned; on SmolLM2 it made the whole command four times as long")
    say("before prompts that the model gets wrong are left out:")
    part = first_batch(pairs, study.batch_size)
    for one in sites:
        job, _ = plan_patch(study.model, part, site=one, layers=layers)
        say(f"{one}:")
        say_plan(study.model, job, pairs.sizes["batch"] / part.sizes["batch"])


def open_site(study: Study, site: str) -> tuple:
    """Return the run of one site and its pairs: drawn, read, or written for this run."""
    from nnheads.runs.provenance import prompts_hash

    item = "" if site == "z" else site
    as_published = () if study.spread else ("spread",)
    if study.writer is not None:
        run = study.open(item=item, without=as_published, site=site)
        return run, _pairs.written_pairs(study, run)
    pairs = _pairs.pairs_of(study, study.spread)
    run = study.open(item=item, without=as_published, site=site, prompts_sha256=prompts_hash(pairs))
    return run, pairs


def compute(study: Study, run, pairs, site: str, layers: list[int] | None) -> None:
    """Filter, sweep, reduce, save; every finished batch is kept in the run's folder."""
    from nnheads.patching.patch import patch

    kept, dropped = _pairs.answered(study, run, pairs, strict=study.strict)
    options = {"site": site, "layers": layers, "noising": study.noising, "gap": study.gap}
    swap = partial(patch, run.model, **options)
    scores = study.in_batches(run, swap, kept, name="patch", title="heads")
    effect = scores["effect"]
    masked = effect.attrs["cases_masked"] = int(effect.isnull().all(effect.dims[1:]).sum())
    if masked == effect.sizes["batch"]:
        raise BadInput(
            f"--gap {study.gap:g} leaves no prompt: clean and corrupted logit differences are"
            " nowhere as far apart; use a smaller gap"
        )
    scores.attrs.update(_pairs.about_pairs(run, TITLE, pairs, kept, dropped, _pairs.REFERENCES))
    heads = reduce(scores, study.seed)
    heads.attrs.update(scores.attrs)
    run.save(scores=scores, heads=heads)
    draw(run, heads)
    _pairs.finish(run, scores)


def reduce(scores, seed: int):
    """Return the effect of each head (layer, head): as a ratio of means and as a mean of ratios.

    The logit difference stands beside them, with the head swapped, and for either text.
    """
    import xarray as xr

    from nnheads import stats
    from nnheads.patching.direction import direction_in

    direction = direction_in(scores)
    ratios = scores["effect"].rename("effect_mean_of_ratios")
    ratios = ratios.assign_attrs(long_name="normalised effect, mean of ratios")
    means = [stats.mean(one, seed=seed) for one in (ratios, scores["logit_difference"])]
    reduced = [*ratios_of_means(scores, direction, seed), *means]
    heads = xr.merge(reduced, combine_attrs="drop_conflicts")
    _pairs.add_means(heads, scores, direction.before(), direction.after())
    return heads


def ratios_of_means(scores, direction, seed: int) -> list:
    """Return the mean change over the mean gap (layer, head), of prompts that have an effect.

    `size` beside it is the mean of |change| over the mean gap: what a head does in single prompts,
    where it helps in some and hurts in others.
    """
    from nnheads import stats

    effect = scores["effect"]
    usable = effect.notnull().any(effect.dims[1:])
    change = scores["logit_difference"] - scores[direction.before()]
    change = change.where(usable).rename("effect")
    change.attrs = {**effect.attrs, "long_name": "normalised effect, ratio of means"}
    size = abs(change).rename("size")
    size.attrs = {**change.attrs, "long_name": "size of the normalised effect, whatever its sign"}
    gap = direction.gap(scores).where(usable)
    return [
        stats.ratio_of_means(change, gap, seed=seed),
        stats.ratio_of_means(size, abs(gap), seed=seed),
    ]

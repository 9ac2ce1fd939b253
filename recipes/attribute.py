"""Which heads would matter if swapped? Estimate all from one gradient, and patch the top."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from nnheads.recipes import _pairs
from nnheads.recipes._attribute_report import far_off, heads_of_kind, report
from nnheads.recipes._checks import check_at_least, check_choice, check_size
from nnheads.recipes._study import Study, study

from nnheads.errors import BadInput

TITLES = {
    "atp": "Attribution patching",
    "atp*": "AtP*",
    "direct": "Direct logit attribution",
}
REFERENCES = "Kramar et al. 2024, arXiv 2403.00745; Wang et al. 2022, arXiv 2211.00593"

Method = Annotated[str, typer.Option(help="atp*, atp or direct (direct logit attribution).")]
Site = Annotated[str, typer.Option(help="What is swapped: z, q, k or v.")]
Top = Annotated[
    int | None,
    typer.Option(help="How many heads of the estimate to patch; a fifteenth, at least 10."),
]
Audit = Annotated[
    int, typer.Option(help="How many others to patch: half are the next ones, half are drawn.")
]
Threshold = Annotated[
    float | None,
    typer.Option(
        help="Size in logits above which a head counts as missed; default: the smallest of the top."
    ),
]
Trusted = Annotated[bool, typer.Option("--trusted", help="The server of --remote runs gradients.")]


@study(limit=100, batch_size=20, quick={"limit": 12})
def main(
    study: Study,
    method: Method = "atp*",
    site: Site = "z",
    corruption: _pairs.Corruption = "other",
    prompts: _pairs.PairsFile = None,
    noising: _pairs.Noising = False,
    top: Top = None,
    audit: Audit = 30,
    threshold: Threshold = None,
    trusted: Trusted = False,
) -> None:
    """Which heads would matter if swapped?

    Estimates the effect of every head on indirect-object pairs from one gradient (atp: attribution
    patching, atp*: with attention computed anew and layers cut off in turn) or from what it adds to
    the logits (direct: direct logit attribution). Patches the --top heads exactly, and --audit of
    the others, the next ones and some at random, to say how many that matter were missed at most.
    Writes scores.nc (batch, layer, head), heads.nc (layer, head), heads.png and exact.png.
    """
    from nnheads.runs.provenance import prompts_hash

    check(study)
    if study.quantization is not None and study.model.device.type == "cpu":
        raise BadInput(
            "bitsandbytes has no gradients on a CPU; use a GPU (--device-map), or drop"
            " --quantization"
        )
    pairs = _pairs.pairs_of(study)
    usual = (method, site) == ("atp*", "z")
    item = "" if usual else f"{method.replace('*', '-star')}-{site}"
    run = study.open(item=item, prompts_sha256=prompts_hash(pairs))
    if not run.complete:
        compute(study, run, pairs)
    report(run)


def check(study: Study) -> None:
    """Refuse what cannot be before a model is loaded."""
    from nnheads.models.names import check_site
    from nnheads.patching.attribution import check_estimable, check_trust
    from nnheads.patching.screening import METHODS
    from nnheads.prompts.ioi import check_corruption
    from nnheads.trace.sites import UNITS

    check_corruption(study.corruption)
    check_choice("--method", study.method, METHODS)
    direct = study.method == "direct"
    check_site(study.site, ("z",) if direct else UNITS, f"has no estimate by {study.method}")
    check_estimable(study.site)
    check_at_least(0, audit=study.audit)
    check_size(threshold=study.threshold)
    if not direct:
        check_trust(study.remote, study.trusted)


def compute(study: Study, run, pairs) -> None:
    """Filter, estimate, patch, audit, save; every finished batch is kept in the run's folder."""
    import xarray as xr

    from nnheads.patching.audit import audit

    kept, dropped = _pairs.answered(study, run, pairs)
    scores, chosen = measured(study, run, kept)
    title = "indirect object: estimated effect of every head"
    scores.attrs.update(_pairs.about_pairs(run, title, pairs, kept, dropped, REFERENCES))
    checked = audit(scores, chosen, study.threshold)
    heads = xr.merge([reduce(scores, study.seed), checked], join="outer")
    heads.attrs = scores.attrs
    run.save(scores=scores, heads=heads)
    draw(run, heads)
    _pairs.finish(run, scores)


def measured(study: Study, run, kept) -> tuple:
    """Return estimates of all heads with exact changes of the chosen ones, and which these are."""
    from nnheads.patching.screening import choose, estimate, verify

    swap = {"site": study.site, "noising": study.noising}
    method = {"method": study.method, "trusted": study.trusted}
    scores = study.in_batches(
        run,
        lambda part: estimate(run.model, part, **method, **swap),
        kept,
        name="estimate",
        title="estimates",
    )
    chosen = choose(scores, study.top, study.audit, study.seed)
    exact = study.in_batches(
        run,
        lambda part: verify(run.model, part, chosen, **swap).to_dataset(name="change"),
        kept,
        name="exact",
        title="heads",
    )
    scores["change"] = exact["change"]
    return scores, chosen


def reduce(scores, seed: int):
    """Return estimated and exact effect (layer, head) as ratios of means, and the size."""
    import xarray as xr

    from nnheads import stats
    from nnheads.patching.direction import direction_in

    direction = direction_in(scores)
    gap = direction.gap(scores)
    estimated = scores["estimate"].assign_attrs(long_name="estimated effect, ratio of means")
    exact = scores["change"].rename("effect").assign_attrs(long_name="exact effect, ratio of means")
    reduced = [stats.ratio_of_means(one, gap, seed=seed) for one in (estimated, exact)]
    reduced.append(stats.mean(scores["size"], seed=seed))
    heads = xr.merge(reduced, combine_attrs="drop_conflicts")
    _pairs.add_means(heads, scores, direction.before(), direction.after())
    return heads


def draw(run, heads) -> None:
    """Draw the estimates of all heads, and exact effects against them."""
    from nnheads import plot

    options: dict[str, Any] = {
        "title": f"{TITLES[heads.attrs['method']]}: {heads.attrs['site_meaning']}",
        "note": plot.note(heads, heads.attrs["kept"]),
    }
    estimates, marked = heads["estimate"], patched_heads(heads)
    framed = "the top of the estimate, which was patched exactly, too"
    figure = plot.heatmap(estimates, marked=marked, framed=framed, **options)
    run.picture("heads", figure)
    figure = plot.against(estimates, heads["effect"], *kinds_of(heads), **options)
    run.picture("exact", figure)


def patched_heads(heads) -> list[dict]:
    """Return the heads of the top with their estimates."""
    from nnheads.patching.audit import FOUND

    estimates, marked = heads["estimate"], []
    for head in heads_of_kind(heads, FOUND):
        own = {"layer": head["layer"], estimates.dims[1]: head["head"]}
        marked.append({**head, "value": float(estimates.sel(own))})
    return marked


def kinds_of(heads) -> tuple:
    """Return which heads are drawn as what (layer, head), and the rest that was patched."""
    from nnheads.patching.audit import DRAWN, FOUND, NEXT

    audited, beyond = heads["chosen"].isin((DRAWN, NEXT)), heads["exact_size"] > heads["threshold"]
    top, off = heads["chosen"] == FOUND, far_off(heads)
    kinds = {
        "top of the estimate": top & ~off,
        "of these, estimated at under half": top & off,
        "below the cut, yet as large": audited & beyond,
    }
    return kinds, audited & ~beyond

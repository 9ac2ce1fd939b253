"""Which heads would matter if swapped?

Estimate all from one gradient, patch the top, bound what was missed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from nnheads.recipes import _options as options
from nnheads.recipes._answered import answered
from nnheads.recipes.ioi import make_prompts

from nnheads.errors import BadInput

TITLES = {"atp": "Attribution patching", "atp*": "AtP*", "direct": "Direct attribution"}
REFERENCES = "Kramar et al. 2024, arXiv 2403.00745; Wang et al. 2022, arXiv 2211.00593"


def main(
    model: options.Model = "reference",
    method: Annotated[str, typer.Option(help="atp*, atp or direct.")] = "atp*",
    site: Annotated[str, typer.Option(help="What is swapped: z, q, k or v.")] = "z",
    corruption: Annotated[str, typer.Option(help="other, random, abc or swapped.")] = "other",
    prompts: Annotated[
        Path | None, typer.Option(help="Pairs made elsewhere: .jsonl or .csv.")
    ] = None,
    noising: Annotated[
        bool,
        typer.Option("--noising", help="Corrupted into clean instead of clean into corrupted."),
    ] = False,
    top: Annotated[int, typer.Option(help="How many heads of the estimate to patch.")] = 10,
    audit: Annotated[
        int, typer.Option(help="How many of the others to patch, drawn at random.")
    ] = 20,
    threshold: Annotated[
        float | None,
        typer.Option(
            help=(
                "Size in logits above which a head counts as missed; default: the smallest of the"
                " top."
            )
        ),
    ] = None,
    trusted: Annotated[
        bool, typer.Option("--trusted", help="The server of --remote runs gradients.")
    ] = False,
    limit: options.Limit = 100,
    batch_size: options.BatchSize = 20,
    seed: options.Seed = 0,
    revision: options.Revision = None,
    dtype: options.Dtype = "auto",
    quantization: options.Quantization = None,
    device_map: options.DeviceMap = None,
    remote: options.Remote = None,
    submit: options.Submit = False,
    output: options.Output = options.RESULTS,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    traceback: options.Traceback = False,
) -> None:
    """Which heads would matter if swapped?

    Estimates the effect of every head on indirect-object pairs from one gradient (atp: attribution
    patching, atp*: with attention computed anew and layers cut off in turn) or from what it adds to
        the logits (direct). Patches the --top
    heads exactly, and --audit of the others, drawn at random, to say how many that matter were
    missed at most. Writes scores.nc (batch, layer, head), heads.nc (layer, head), heads.png and
    exact.png.
    """
    arguments = dict(locals())
    from nnheads.runs.folder import Run
    from nnheads.runs.provenance import model_identity, prompts_hash

    options.positive(limit=limit, batch_size=batch_size, top=top)
    where = check(arguments)
    loaded = options.load(model, revision, dtype, device_map, where, quantization)
    if quantization is not None and loaded.device.type == "cpu":
        raise BadInput(
            "bitsandbytes has no gradients on a CPU; use a GPU (--device-map), or drop"
            " --quantization"
        )
    identity = model_identity(loaded, model)
    pairs = make_prompts(loaded.tokenizer, prompts, None, corruption, limit, seed)
    facts = {**arguments, "model": identity["model"], "weights": identity["commit"]}
    facts["prompts_sha256"] = prompts_hash(pairs)
    item = "" if (method, site) == ("atp*", "z") else f"{method.replace('*', '-star')}-{site}"
    run = Run(
        output, "attribute", model, identity["revision"], facts, item=item, overwrite=overwrite
    )
    run.jobs_of(loaded)
    if not run.complete:
        compute(run, loaded, pairs, facts, model, batch_size, quiet)
    report(run)


def check(arguments: dict) -> bool | str:
    """Refuse what cannot be before a model is loaded; where to run."""
    from nnheads.patching.attribution import check_remote
    from nnheads.patching.screening import METHODS
    from nnheads.prompts.ioi import check_corruption

    check_corruption(arguments["corruption"])
    method, site, threshold = (arguments[name] for name in ("method", "site", "threshold"))
    if method not in METHODS:
        raise BadInput(f"--method {method!r} is not known; use one of {', '.join(METHODS)}")
    if site not in ("z", "q", "k", "v") or (method == "direct" and site != "z"):
        raise BadInput(
            f"--site {site!r} is not possible; use z{'' if method == 'direct' else ', q, k or v'}"
        )
    if arguments["audit"] < 0:
        raise BadInput(f"--audit {arguments['audit']} is not possible; it must be at least 0")
    if threshold is not None and not 0 <= threshold < float("inf"):
        raise BadInput(
            f"--threshold {threshold} is not possible; it must be a number that is at least 0"
        )
    where = options.remote_of(arguments["remote"])
    if method != "direct":
        check_remote(where, arguments["trusted"])
    return where


def compute(run, model, pairs, facts: dict, name: str, batch_size: int, quiet: bool) -> None:
    """Filter, estimate, patch, audit, save; every finished batch is kept in the run's folder."""
    import xarray as xr

    from nnheads.patching.screening import audit, choose, estimate, verify
    from nnheads.runs import batches
    from nnheads.runs.provenance import provenance

    keep = {"parts": run.parts, "size": batch_size, "quiet": quiet, "model": model}
    kept, dropped = answered(model, pairs, name, keep)
    swap = {"site": facts["site"], "noising": facts["noising"]}
    scores = batches.run(
        lambda part: estimate(
            model, part, method=facts["method"], trusted=facts["trusted"], **swap
        ),
        kept,
        name="estimate",
        title="estimates",
        **keep,
    )
    chosen = choose(scores, facts["top"], facts["audit"], facts["seed"])
    exact = batches.run(
        lambda part: verify(model, part, chosen, **swap).to_dataset(name="change"),
        kept,
        name="exact",
        title="heads",
        **keep,
    )
    scores["change"] = exact["change"]
    scores.attrs.update(
        provenance(
            title="indirect object: estimated effect of every head",
            model=model,
            name=name,
            prompts=pairs,
            arguments=facts,
            references=REFERENCES,
        ),
        asked=pairs.attrs["asked"],
        dropped=dropped,
        kept=kept.sizes["batch"],
    )
    heads = xr.merge(
        [reduce(scores, facts["seed"]), audit(scores, chosen, facts["threshold"])], join="outer"
    )
    heads.attrs = scores.attrs
    run.save(scores=scores, heads=heads)
    draw(run, heads)
    run.finish(kept=kept.sizes["batch"], asked=int(pairs.attrs["asked"]))


def reduce(scores, seed: int):
    """Per head: estimated and exact effect as ratios of means, and the size that heads are ranked
    by.
    """
    import xarray as xr

    from nnheads import stats
    from nnheads.patching.direction import direction_in

    direction = direction_in(scores)
    gap = direction.gap(scores)
    estimated = scores["estimate"].assign_attrs(long_name="estimated effect, ratio of means")
    exact = scores["change"].rename("effect").assign_attrs(long_name="exact effect, ratio of means")
    reduced = [stats.ratio_of_means(one, gap, seed=seed) for one in (estimated, exact)]
    heads = xr.merge(
        [*reduced, stats.mean(scores["size"], seed=seed)], combine_attrs="drop_conflicts"
    )
    for name in (direction.before(), direction.after()):
        heads[name] = (
            scores[name]
            .mean("batch")
            .assign_attrs({**scores[name].attrs, "cell_methods": "batch: mean"})
        )
    return heads


def named(heads, kind: int) -> list[dict]:
    """The heads of one kind by their exact effect, strongest first in either direction."""
    from nnheads import stats

    heads = heads.rename(kv_head="head") if "kv_head" in heads.dims else heads
    own = heads.where(heads["chosen"] == kind)
    every = stats.top_heads(own, "effect", own["effect"].size)
    return sorted(every, key=lambda head: -abs(head["value"]))


def draw(run, heads) -> None:
    from nnheads import plot
    from nnheads.patching.screening import AUDITED, FOUND

    note = plot.note(heads, heads.attrs["kept"])
    title = f"{TITLES[heads.attrs['method']]}: {heads.attrs['site_meaning']}"
    found = [
        {**head, "value": float(heads["estimate"].sel(place(heads, head)))}
        for head in named(heads, FOUND)
    ]
    run.picture("heads", plot.heatmap(heads["estimate"], title=title, marked=found, note=note))
    sampled, beyond = heads["chosen"] == AUDITED, heads["exact_size"] > heads["threshold"]
    kinds = {
        "top of the estimate": heads["chosen"] == FOUND,
        "missed, in the sample of the others": sampled & beyond,
    }
    figure = plot.against(
        heads["estimate"], heads["effect"], kinds, sampled & ~beyond, title=title, note=note
    )
    run.picture("exact", figure)


def place(heads, head: dict) -> dict:
    """A named head's coordinates."""
    return {"layer": head["layer"], heads["estimate"].dims[1]: head["head"]}


def report(run) -> None:
    """The heads that were patched, what the estimate said of them, what it missed, and where the
    files are.
    """
    from nnheads.patching.screening import AUDITED, FOUND

    heads = run.load("heads")
    why = "; ".join(
        f"{count} {reason}" for reason, count in json.loads(heads.attrs["dropped"]).items()
    )
    options.say(
        f"kept {heads.attrs['kept']} of {heads.attrs['asked']} prompts"
        + (f" (dropped: {why})" if why else "")
    )
    clean, corrupted = (
        float(heads["clean_logit_difference"]),
        float(heads["corrupted_logit_difference"]),
    )
    options.say(f"logit difference: clean {clean:+.2f}, corrupted {corrupted:+.2f}")
    letters = "KV" if "kv_head" in heads.dims else "H"
    found = named(heads, FOUND)
    title = (
        f"exact effect of the top {len(found)} by {heads.attrs['method']},"
        f" {heads.attrs['direction']}, ratio of means"
    )
    options.say_heads(f"{title} [95% interval]:", found, letters)
    others, audited, missed, most = (
        int(heads[name]) for name in ("others", "audited", "missed", "missed_most")
    )
    limit = f"{float(heads['threshold']):.3g} logit"
    if audited:
        drawn = (
            f"{audited} of the {others} other heads, drawn at random"
            if audited < others
            else f"all {others} others"
        )
        options.say(f"{drawn}: {missed} with a change beyond {limit}")
        if audited < others:
            options.say(
                f"with 95% confidence at most {most} of the {others} go beyond it"
                f" ({most / others:.0%})"
            )
        if missed:
            beyond = heads.where(heads["exact_size"] > heads["threshold"])
            options.say_heads("missed by the estimate:", named(beyond, AUDITED), letters)
    elif others:
        options.say(
            f"none of the {others} other heads was patched: what the estimate missed is not known"
        )
    options.say(
        f"rank correlation of estimated and exact size: {float(heads['rank_correlation']):+.2f}"
    )
    for name in ("scores.nc", "heads.nc", "heads.png", "exact.png"):
        options.say(options.shown(run.folder / name))

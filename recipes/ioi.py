"""Which heads name the indirect object? Patch every head between clean and corrupted sentences."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from nnheads.recipes import _options as options
from nnheads.recipes._answered import answered
from nnheads.recipes._roles import report_roles

REFERENCES = "Wang et al. 2022, arXiv 2211.00593"


def main(
    model: options.Model = "reference",
    corruption: Annotated[str, typer.Option(help="other, random, abc or swapped.")] = "other",
    prompts: Annotated[
        Path | None, typer.Option(help="Pairs made elsewhere: .jsonl or .csv.")
    ] = None,
    spread: Annotated[
        int,
        typer.Option(
            help="Up to so many adjectives before the object, or END is always as far from S2."
        ),
    ] = 0,
    writer: Annotated[
        str | None, typer.Option(help="Let a model write: Hub id, folder, or openai:NAME.")
    ] = None,
    noising: Annotated[
        bool,
        typer.Option("--noising", help="Corrupted into clean instead of clean into corrupted."),
    ] = False,
    site: Annotated[
        str, typer.Option(help="What is swapped: z, q, k, v or pattern; several as z,v,pattern.")
    ] = "z",
    roles: Annotated[
        bool,
        typer.Option("--roles", help="Also say which role each head has, and on what evidence."),
    ] = False,
    layers: Annotated[str | None, typer.Option(help="Only these layers, e.g. 0,2,5-8.")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Answers must be best of the whole vocabulary.")
    ] = False,
    gap: Annotated[
        float, typer.Option(help="Smallest gap in logit difference that an effect is computed for.")
    ] = 0.1,
    top: Annotated[int, typer.Option(help="How many heads to name.")] = 8,
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
    plan: options.Plan = False,
    quiet: options.Quiet = False,
    traceback: options.Traceback = False,
) -> None:
    """Which heads name the indirect object?

    Draws sentences such as "When Mary and John went to the market, John gave the book to", corrupts
    them, keeps those that the model gets right, and swaps every head's output (or its queries,
    keys, values or pattern) between the two runs. Writes scores.nc (batch, layer, head), heads.nc
    (layer, head) and heads.png; other sites than the output have a folder of their own.
    """
    arguments = dict(locals())
    for name in (
        "top",
        "plan",
        "roles",
    ):  # what is said of the numbers, or asked besides, changes none of them
        arguments.pop(name)
    if spread == 0:  # as published
        arguments.pop("spread")
    from nnheads.errors import BadInput
    from nnheads.models.geometry import geometry
    from nnheads.models.names import parse_numbers
    from nnheads.prompts.ioi import check_corruption, check_spread
    from nnheads.runs.folder import Run
    from nnheads.runs.provenance import model_identity, prompts_hash

    options.positive(limit=limit, batch_size=batch_size, top=top)
    check_corruption(corruption)
    check_spread(spread)
    if spread and (prompts is not None or writer is not None):
        raise BadInput("--spread is for sentences of our own; leave --prompts and --writer out")
    if not 0 <= gap < float("inf"):
        raise BadInput(f"--gap {gap} is not possible; it must be a number that is at least 0")
    sites = sites_of(site)
    if roles and (prompts is not None or writer is not None):
        raise BadInput(
            "--roles draws sentences of its own, whose names it knows; leave --prompts and"
            " --writer out"
        )
    where = options.remote_of(remote)
    loaded = options.load(model, revision, dtype, device_map, where, quantization)
    chosen = None if layers is None else parse_numbers(layers, "layer", geometry(loaded).layers)
    if plan:
        if writer is not None:
            raise BadInput("--plan asks no --writer for sentences; leave one of them out")
        pairs = make_prompts(loaded.tokenizer, prompts, None, corruption, limit, seed, spread)
        report_plan(loaded, pairs, sites, chosen)
        return
    identity = model_identity(loaded, model)
    for one in sites:
        facts = {
            **arguments,
            "site": one,
            "model": identity["model"],
            "weights": identity["commit"],
        }
        place = {"item": "" if one == "z" else one, "overwrite": overwrite}
        if writer is None:
            pairs = make_prompts(loaded.tokenizer, prompts, None, corruption, limit, seed, spread)
            facts["prompts_sha256"] = prompts_hash(pairs)
            run = Run(output, "ioi", model, identity["revision"], facts, **place)
            run.jobs_of(loaded)
        else:
            run = Run(output, "ioi", model, identity["revision"], facts, **place)
            run.jobs_of(loaded)
            pairs = written_prompts(run, loaded.tokenizer, prompts, writer, corruption, limit, seed)
        if not run.complete:
            compute(run, loaded, pairs, facts, model, chosen, batch_size, quiet)
        report(run, top)
    if roles:
        beside = (output, "ioi", model, identity["revision"])
        about = {**arguments, "model": identity["model"], "weights": identity["commit"]}
        report_roles(beside, loaded, model, about, overwrite=overwrite, quiet=quiet)


def sites_of(text: str) -> list[str]:
    """`z,v` -> ["z", "v"]; only sites that have heads."""
    from nnheads.errors import BadInput
    from nnheads.trace.sites import UNITS

    sites = list(dict.fromkeys(piece.strip() for piece in text.split(",")))
    for one in sites:
        if one not in UNITS:
            raise BadInput(
                f"--site {one!r} is not possible; use {', '.join(UNITS)}, or several of them with"
                " commas"
            )
    return sites


def report_plan(model, pairs, sites: list[str], layers) -> None:
    from nnheads.patching.patch import plan_patch

    options.say(
        f"{pairs.sizes['batch']} prompts, before those that the model gets wrong are left out"
    )
    for one in sites:
        job, _ = plan_patch(
            model,
            pairs,
            site=one,
            layers=layers,
            groups=None,
            by_position=False,
            at=None,
            noising=False,
            full=False,
            tokens=None,
        )
        options.say(f"{one}:")
        options.say_plan(model, job)


def written_prompts(
    run, tokenizer, path: Path | None, writer: str, corruption: str, limit: int, seed: int
):
    """What a model wrote for this run; asked for once, because an endpoint need not repeat itself."""
    from nnheads.errors import BadInput
    from nnheads.prompts.writer import open_writer
    from nnheads.runs import store

    if path is not None:
        raise BadInput(
            "--prompts and --writer exclude each other; the sentences come from one of them"
        )
    keep = run.folder / "sentences.json"
    sentences = json.loads(keep.read_text()) if keep.exists() else open_writer(writer)(limit, seed)
    pairs = make_prompts(tokenizer, None, sentences, corruption, limit, seed)
    store.write(keep, lambda target: target.write_text(json.dumps(sentences, indent=1)))
    return pairs


def make_prompts(
    tokenizer,
    path: Path | None,
    sentences: list[str] | None,
    corruption: str,
    limit: int,
    seed: int,
    spread: int = 0,
):
    """Sentences of our own, from a file, or from a language model; all pass the same filters."""
    from nnheads.errors import BadInput
    from nnheads.prompts.format import from_sentences, keep_well_formed
    from nnheads.prompts.ioi import ioi
    from nnheads.prompts.pairs import read_pairs, tokenize

    dropped: Counter = Counter()
    if path is not None:
        pairs = read_pairs(path)
        asked = len(pairs)
        dropped["beyond --limit"] = max(0, asked - limit)
        pairs = pairs[:limit]
    elif sentences is None:
        return ioi(tokenizer, limit, seed=seed, corruption=corruption, spread=spread)
    else:
        pairs, dropped = from_sentences(sentences, corruption)
        asked = len(sentences)
    pairs, malformed = keep_well_formed(pairs)
    dropped += malformed
    if not pairs:
        reason = dropped.most_common(1)[0][0] if dropped else "nothing was written"
        raise BadInput(f"none of {asked} sentences can be used: {reason}")
    dataset = tokenize(tokenizer, pairs)
    dataset.attrs["asked"] = asked
    dataset.attrs["dropped"] = json.dumps(
        dict(Counter(json.loads(dataset.attrs["dropped"])) + dropped)
    )
    return dataset


def compute(
    run, model, pairs, facts: dict, name: str, layers, batch_size: int, quiet: bool
) -> None:
    """Filter, sweep, reduce, save; every finished batch is kept in the run's folder."""
    from nnheads import plot
    from nnheads.patching.direction import direction_of
    from nnheads.patching.patch import patch
    from nnheads.runs import batches
    from nnheads.runs.provenance import provenance

    keep = {"parts": run.parts, "size": batch_size, "quiet": quiet, "model": model}
    kept, dropped = answered(model, pairs, name, keep, strict=facts["strict"])
    scores = batches.run(
        lambda part: patch(
            model,
            part,
            site=facts["site"],
            layers=layers,
            noising=facts["noising"],
            gap=facts["gap"],
        ),
        kept,
        name="patch",
        title="heads",
        **keep,
    )
    about = provenance(
        title="indirect object: effect of every head",
        model=model,
        name=name,
        prompts=pairs,
        arguments=facts,
        references=REFERENCES,
    )
    about.update(asked=pairs.attrs["asked"], dropped=dropped, kept=kept.sizes["batch"])
    scores.attrs.update(about)
    scores["effect"].attrs["cases_masked"] = int(
        scores["effect"].isnull().all(scores["effect"].dims[1:]).sum()
    )
    heads = reduce(scores, facts["seed"])
    heads.attrs.update(scores.attrs)
    run.save(scores=scores, heads=heads)
    positive, negative = for_and_against(heads, 5)
    direction = direction_of(facts["noising"]).words
    figure = plot.heatmap(
        heads["effect"],
        title=f"Indirect object: {heads.attrs['site_meaning']}, {direction}",
        marked=positive + negative[:3],
        note=plot.note(heads, kept.sizes["batch"]),
    )
    run.picture("heads", figure)
    run.finish(kept=kept.sizes["batch"], asked=int(pairs.attrs["asked"]))


def reduce(scores, seed: int):
    """Per head: the effect as a ratio of means, the same as a mean of ratios, and the logit
    difference.
    """
    import xarray as xr

    from nnheads import stats
    from nnheads.patching.direction import direction_in

    direction = direction_in(scores)
    usable = scores["effect"].notnull().any(scores["effect"].dims[1:])
    change = (
        (scores["logit_difference"] - scores[direction.before()]).where(usable).rename("effect")
    )
    change.attrs = {**scores["effect"].attrs, "long_name": "normalised effect, ratio of means"}
    each = (
        scores["effect"]
        .rename("effect_mean_of_ratios")
        .assign_attrs(long_name="normalised effect, mean of ratios")
    )
    reduced = xr.merge(
        [
            stats.ratio_of_means(change, direction.gap(scores).where(usable), seed=seed),
            stats.mean(each, seed=seed),
            stats.mean(scores["logit_difference"], seed=seed),
        ],
        combine_attrs="drop_conflicts",
    )
    for name in (direction.before(), direction.after()):
        reduced[name] = (
            scores[name]
            .mean("batch")
            .assign_attrs({**scores[name].attrs, "cell_methods": "batch: mean"})
        )
    return reduced


def for_and_against(heads, top: int) -> tuple[list[dict], list[dict]]:
    """The strongest heads in both directions, of those whose interval leaves zero out."""
    from nnheads import stats

    heads = heads.rename(kv_head="head") if "kv_head" in heads.dims else heads
    positive = [head for head in stats.top_heads(heads, "effect", top) if not head["low"] <= 0]
    negative = [
        head for head in stats.top_heads(heads, "effect", top, lowest=True) if not head["high"] >= 0
    ]
    return [h for h in positive if h["value"] > 0], [h for h in negative if h["value"] < 0]


def report(run, top: int) -> None:
    """What was kept, the strongest heads in both directions, and where the files are."""
    heads = run.load("heads")
    dropped = json.loads(heads.attrs["dropped"])
    why = "; ".join(f"{count} {reason}" for reason, count in dropped.items())
    options.say(
        f"kept {heads.attrs['kept']} of {heads.attrs['asked']} prompts"
        + (f" (dropped: {why})" if why else "")
    )
    clean, corrupted = (
        float(heads["clean_logit_difference"]),
        float(heads["corrupted_logit_difference"]),
    )
    options.say(f"logit difference: clean {clean:+.2f}, corrupted {corrupted:+.2f}")
    masked = int(heads["effect"].attrs["cases_masked"])
    if masked:
        options.say(
            f"{masked} cases have a gap below {heads['effect'].attrs['gap_threshold']} logit: left"
            " out of effects"
        )
    positive, negative = for_and_against(heads, top)
    what, letters = (
        f"{heads.attrs['site_meaning']}, {heads.attrs['direction']}",
        "KV" if "kv_head" in heads.dims else "H",
    )
    options.say_heads(
        f"effect of each head, {what}, ratio of means [95% interval]; highest:", positive, letters
    )
    if negative:
        options.say_heads("lowest:", negative, letters)
    else:
        options.say("no head works against the answer beyond its interval")
    for name in ("scores.nc", "heads.nc", "heads.png"):
        options.say(options.shown(run.folder / name))

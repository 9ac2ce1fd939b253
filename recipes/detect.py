"""Find heads by type: induction, previous token, duplicate token, attention sink, ... or all at once."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from recipes import _options as options


def main(
    head_type: Annotated[str, typer.Argument(help="A head type (see `nnheads heads`), or all.")] = "all",
    model: options.Model = "reference",
    length: Annotated[int, typer.Option(help="Repeated tokens: how many before they are repeated.")] = 50,
    task: Annotated[str, typer.Option(help="Iteration: copy, parity, polynomial or maximum.")] = "parity",
    steps: Annotated[int, typer.Option(help="Iteration: steps of the computation.")] = 8,
    lengths: Annotated[str, typer.Option(help="Retrieval: tokens of a prompt, e.g. 128,256.")] = "128,256",
    haystack: Annotated[Path | None, typer.Option(help="Retrieval: folder of .txt files to hide needles in.")] = None,
    top: Annotated[int, typer.Option(help="How many heads to name.")] = 8,
    limit: options.Limit = 32,
    batch_size: options.BatchSize = 8,
    seed: options.Seed = 0,
    revision: Annotated[str | None, typer.Option(help="Revision, or several (a,b,c) to see heads emerge.")] = None,
    dtype: options.Dtype = "auto",
    device_map: options.DeviceMap = None,
    remote: options.Remote = None,
    output: options.Output = options.RESULTS,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    traceback: options.Traceback = False,
) -> None:
    """Find heads by type.

    Every score comes with a null (the same queries, random targets), an interval over prompts, and a flag at a
    false discovery rate of 5% over all heads. Writes one folder a type with scores.nc, heads.nc and heads.png.
    """
    arguments = dict(locals())
    from nnheads.detection import canonical, types
    from nnheads.model import checkpoint
    from nnheads.stats import parse_numbers

    names = list(types()) if head_type == "all" else [canonical(head_type)]
    options.positive(limit=limit, batch_size=batch_size, top=top, length=length)
    sizes = parse_numbers(lengths, "length", 10**7)
    where = options.remote_of(remote)
    revisions = [None] if revision is None else [one.strip() for one in revision.split(",") if one.strip()]
    stimulus = {"length": length, "task": task, "steps": steps, "lengths": sizes, "haystack": haystack}
    arguments["stimulus"] = stimulus_for(names, stimulus)
    places = {one: checkpoint(model, one) for one in revisions}  # a missing one is refused before anything runs
    runs = {one: at_revision(names, model, one, places[one], arguments, where) for one in revisions}
    if len(revisions) > 1:
        emergence(runs, names, model, arguments)
    else:
        report(next(iter(runs.values())), top)
        if len(names) > 1:
            overview(next(iter(runs.values())))


def stimulus_for(names: list[str], stimulus: dict) -> dict:
    """The options that the stimuli of these types know."""
    from nnheads.detection import detector, options_of

    known = set().union(*(options_of(detector(name).STIMULUS) for name in names))
    return {option: value for option, value in stimulus.items() if option in known}


def at_revision(names: list[str], model: str, revision: str | None, place: tuple, arguments: dict, remote):
    """The finished runs of each type at one revision: type -> Run."""
    from nnheads import results
    from nnheads.detection import detector, options_of
    from nnheads.provenance import model_folder, model_identity

    name, asked = place
    loaded = None
    runs, missing = {}, []
    for kind in names:
        facts = {key: value for key, value in arguments.items() if key in ("limit", "seed", "dtype", "remote")}
        own = {key: value for key, value in arguments["stimulus"].items() if key in options_of(detector(kind).STIMULUS)}
        facts = {**facts, **own, "revision": revision, "type": kind}
        loaded = loaded or options.load(name, asked, arguments["dtype"], arguments["device_map"], remote)
        identity = model_identity(loaded, name)
        facts.update(model=model_folder(model), weights=identity["commit"])
        run = results.Run(
            arguments["output"],
            "detect",
            model,
            revision or identity["revision"],
            facts,
            item=kind,
            overwrite=arguments["overwrite"],
        )
        runs[kind] = run
        if not run.complete:
            missing.append(kind)
    if missing:
        compute({kind: runs[kind] for kind in missing}, loaded, name, arguments, remote)
    return runs


def compute(runs: dict, model, name: str, arguments: dict, remote) -> None:
    """Types that share prompts share forwards; each type is saved in a folder of its own."""
    from nnheads import plot, stats
    from nnheads.detection import calibrated, raw_scores
    from nnheads.provenance import provenance

    folder = next(iter(runs.values())).folder.parent
    raw = raw_scores(
        model, list(runs), n=arguments["limit"], seed=arguments["seed"], batch_size=arguments["batch_size"],
        remote=remote, quiet=arguments["quiet"], parts=folder / "parts", **arguments["stimulus"],
    )  # fmt: skip
    for kind, scores in raw.items():
        run = runs[kind]
        scores.attrs.update(
            provenance(
                title=f"{kind} heads", model=model, name=name, prompts=scores.attrs["prompts_sha256"],
                arguments=run.arguments, references=scores.attrs["references"],
            )
        )  # fmt: skip
        heads = calibrated(kind, scores, seed=arguments["seed"])
        run.save(scores=scores, heads=heads)
        headline = heads[heads.attrs["headline"]]
        marked = stats.top_heads(heads, str(headline.name), 5)
        note = plot.note(heads, scores.sizes["batch"])
        run.picture(
            "heads",
            plot.heatmap(headline, title=f"{kind} heads", signed=bool(headline.min() < 0), marked=marked, note=note),
        )
        run.finish()
    shutil.rmtree(folder / "parts", ignore_errors=True)


def report(runs: dict, top: int) -> None:
    """The strongest heads of each type; a star marks those beyond chance."""
    from nnheads import stats

    for kind, run in runs.items():
        heads = run.load("heads")
        headline = heads.attrs["headline"]
        best = stats.top_heads(heads, headline, top)
        for head in best:
            head["flag"] = bool(heads["flag"].sel(layer=head["layer"], head=head["head"]))
        count = int(heads["flag"].sum())
        if not best:
            options.say(f"{kind}: nothing to compare; all prompts, or none, were answered (try other --lengths)")
            continue
        options.say_heads(
            f"{kind}: {count} of {heads['flag'].size} heads beyond chance (*); {headline} [95% interval]", best
        )
        options.say(f"  {options.shown(run.folder)}")


def overview(runs: dict) -> None:
    """One map of all types: a cell is split when a head has several."""
    from nnheads import plot, results

    heads = {kind: run.load("heads") for kind, run in runs.items()}
    one = next(iter(heads.values()))
    note = plot.note(one, int(json.loads(one.attrs["arguments"])["limit"]))
    figure = plot.types_map({kind: each["mass"].where(each["flag"] == 1) for kind, each in heads.items()}, note=note)
    path = next(iter(runs.values())).folder.parent / "all.png"
    results.write(path, lambda target: figure.savefig(target, dpi=144))
    options.say(options.shown(path))


def emergence(revisions: dict, names: list[str], model: str, arguments: dict) -> None:
    """Join the revisions along a dimension of their own and draw how the strongest heads come about."""
    import xarray as xr

    from nnheads import plot, results

    for kind in names:
        each = [runs[kind].load("heads") for runs in revisions.values()]
        joined = xr.concat(each, xr.Variable("revision", list(revisions)), combine_attrs="drop_conflicts")
        joined.attrs.update({key: each[-1].attrs[key] for key in ("source", "history", "headline")})
        folder = next(iter(revisions.values()))[kind].folder.parent.parent / "revisions" / kind
        results.save(folder / "heads.nc", joined)
        figure = plot.emergence(
            joined[joined.attrs["headline"]],
            title=f"{kind} heads over revisions",
            note=plot.note(joined, arguments["limit"]),
        )
        results.write(folder / "emergence.png", partial(figure.savefig, dpi=144))
        best = joined[joined.attrs["headline"]].max(["layer", "head"])
        options.say(f"{kind}: strongest head by revision")
        for revision, value in zip(revisions, best.values):
            options.say(f"  {revision:<16} {float(value):.3f}")
        options.say(f"  {options.shown(folder)}")

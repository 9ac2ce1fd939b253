"""Find heads by type: induction, previous token, duplicate token, attention sink, ...

or all at once.
"""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from nnheads.recipes import _grid, _truth
from nnheads.recipes import _options as options

from nnheads.errors import BadInput

OWN = "spans"  # the head type that a file of spans defines


def main(
    head_type: Annotated[
        str,
        typer.Argument(
            help="A head type (see `nnheads heads`), all, or spans (your own, see --spans)."
        ),
    ] = "all",
    model: options.Model = "reference",
    spans: Annotated[
        Path | None, typer.Option(help="Type spans: JSON lines with texts and spans.")
    ] = None,
    length: Annotated[
        int, typer.Option(help="Repeated tokens: how many before they are repeated.")
    ] = 50,
    task: Annotated[
        str, typer.Option(help="Iteration: copy, parity, polynomial or maximum.")
    ] = "parity",
    steps: Annotated[int, typer.Option(help="Iteration: steps of the longest prompt.")] = 16,
    spread: Annotated[
        int,
        typer.Option(
            help="Indirect object: up to so many adjectives before the object, to vary distances."
        ),
    ] = 0,
    lengths: _grid.Lengths = None,
    s_len: _grid.Shortest = None,
    e_len: _grid.Longest = None,
    context_lengths_num_intervals: _grid.LengthCount = None,
    document_depth_percent_intervals: _grid.DepthCount = None,
    haystack: Annotated[
        Path | None, typer.Option(help="Retrieval: folder of .txt files to hide needles in.")
    ] = None,
    needles: Annotated[
        Path | None, typer.Option(help="Retrieval: JSON lines with needle, question, answer.")
    ] = None,
    data: _truth.Data = None,
    template: _truth.Template = None,
    num_fold: _truth.NumFold = None,
    num_heads: _truth.NumHeads = None,
    val_ratio: _truth.ValRatio = None,
    top: Annotated[int, typer.Option(help="How many heads to name.")] = 8,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", "-n", help="How many prompts, or questions; 32, of spans and questions all."
        ),
    ] = None,
    batch_size: options.BatchSize = 8,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, help="Seed of everything that is drawn; 0, and 42 for folds, unless given."
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Revision, or several (a,b,c) to see heads emerge.")
    ] = None,
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
    """Find heads by type.

    Every score comes with a null (the same queries, random targets; for truthfulness, shuffled
    labels), an interval over prompts or questions, and a flag at a false discovery rate of 5% over
    all heads. Writes one folder a type with scores.nc, heads.nc and heads.png.
    """
    arguments = dict(locals())
    from nnheads.models.load import checkpoint

    names = names_of(head_type, spans)
    counts = {"limit": limit, "batch_size": batch_size, "top": top, "length": length}
    options.positive(**{name: count for name, count in counts.items() if count is not None})
    grid = _grid.options_of(arguments, asked_on("needle", head_type, names))
    grid |= _truth.options_of(arguments, asked_on("truth", head_type, names))
    arguments["seed"] = seed or 0
    where = options.remote_of(remote)
    revisions = (
        [None] if revision is None else [one.strip() for one in revision.split(",") if one.strip()]
    )
    stimulus = {"length": length, "task": task, "steps": steps, "spread": spread, **grid}
    arguments["stimulus"] = {} if spans else stimulus_for(names, stimulus)
    places = {
        one: checkpoint(model, one) for one in revisions
    }  # a missing one is refused before anything runs
    runs = {one: at_revision(names, model, one, places[one], arguments, where) for one in revisions}
    if len(revisions) > 1:
        emergence(runs)
    else:
        report(next(iter(runs.values())), top)
        for kind in names:
            if kind not in next(iter(runs.values())):
                options.say(f"{kind}: left out; it needs --data for a model other than reference")
        if len(names) > 1:
            overview(next(iter(runs.values())))


def names_of(head_type: str, spans: Path | None) -> list[str]:
    """The head types to find: known ones, or the kinds in a file of spans."""
    from nnheads.detectors._catalog import canonical, types
    from nnheads.spans.layout import kinds_in, read_span_records

    own = head_type.strip().lower() == OWN
    if own != (spans is not None):
        wrong = (
            "needs --spans FILE" if own else f"does not go with --spans, which needs the type {OWN}"
        )
        raise BadInput(f"head type {head_type!r} {wrong}")
    if spans is not None:
        return kinds_in(read_span_records(spans))
    return list(types()) if head_type == "all" else [canonical(head_type)]


def asked_on(stimulus: str, head_type: str, names: list[str]) -> bool:
    """Whether any of the types is measured on such prompts."""
    from nnheads.detectors._catalog import head_types

    return head_type.strip().lower() != OWN and any(
        one.stimulus == stimulus for one in head_types(names)
    )


def stimulus_for(names: list[str], stimulus: dict) -> dict:
    """The options that the stimuli of these types know."""
    from nnheads.detectors._catalog import head_types
    from nnheads.detectors._stimulus import known_options

    known = known_options(head_types(names))
    return {option: value for option, value in stimulus.items() if option in known}


def at_revision(
    names: list[str], model: str, revision: str | None, place: tuple, arguments: dict, remote
):
    """The finished runs of each type at one revision: type -> Run."""
    from nnheads.detectors._stimulus import prepare, prepare_spans
    from nnheads.runs.folder import Run
    from nnheads.runs.provenance import model_folder, model_identity, prompts_hash

    name, asked = place
    loaded = options.load(
        name, asked, arguments["dtype"], arguments["device_map"], remote, arguments["quantization"]
    )
    spans, limit, seed = arguments["spans"], arguments["limit"], arguments["seed"]
    if spans:
        stimuli = prepare_spans(loaded, spans, n=limit, seed=seed)
    else:
        stimuli = prepare(loaded, names, n=limit, seed=seed, **arguments["stimulus"])
    identity = model_identity(loaded, name)
    same = {key: arguments[key] for key in ("seed", "dtype", "quantization", "remote")}
    same |= {"spans": spans} if spans else {}
    same |= {"revision": revision, "model": model_folder(model), "weights": identity["commit"]}
    runs = {}
    for stimulus in stimuli:
        prompts = stimulus.prompts
        drawn = {
            **stimulus.options,
            "limit": prompts.sizes["batch"],
            "prompts_sha256": prompts_hash(prompts),
        }
        for kind in stimulus.head_types:
            runs[kind.name] = Run(
                arguments["output"],
                "detect",
                model,
                revision or identity["revision"],
                {**same, **drawn, "type": kind.name},
                item=f"{OWN}/{kind.name}" if spans else kind.name,
                overwrite=arguments["overwrite"],
            )
    missing = [kind for kind, run in runs.items() if not run.complete]
    compute(runs, [stimulus.only(missing) for stimulus in stimuli], loaded, name, arguments)
    return {kind: runs[kind] for kind in names if kind in runs}


def compute(runs: dict, stimuli: list, model, name: str, arguments: dict) -> None:
    """Types that share prompts share forwards; each type is saved in a folder of its own."""
    from nnheads.detectors._detect import calibrated
    from nnheads.detectors._scores import measure_all
    from nnheads.runs.folder import share_jobs
    from nnheads.runs.provenance import provenance

    parts = beside(next(iter(runs.values())), "parts")
    share_jobs(runs.values(), model, parts)
    raw = measure_all(
        model, stimuli, batch_size=arguments["batch_size"], quiet=arguments["quiet"], parts=parts
    )
    for kind, scores in raw.items():
        run = runs[kind]
        scores.attrs.update(
            provenance(
                title=f"{kind} heads",
                model=model,
                name=name,
                prompts=scores.attrs["prompts_sha256"],
                arguments=run.arguments,
                references=scores.attrs["references"],
            )
        )
        heads = calibrated(scores, seed=arguments["seed"])
        run.save(scores=scores, heads=heads)
        pictures(run, kind, scores, heads)
        run.finish()
    shutil.rmtree(parts, ignore_errors=True)


def pictures(run, kind: str, scores, heads) -> None:
    """The heads of a type and, for needles, how often the model was right at which length and
    depth.
    """
    from nnheads import plot, stats
    from nnheads.models.answers import accuracy_map

    headline = heads[heads.attrs["headline"]]
    marked = stats.top_heads(heads, str(headline.name), 5)
    cases, signed = scores.sizes["batch"], bool(headline.min() < 0)
    note = plot.note(heads, heads.attrs.get("cases_counted", cases))
    run.picture(
        "heads",
        plot.heatmap(headline, title=f"{kind} heads", signed=signed, marked=marked, note=note),
    )
    accuracy = accuracy_map(scores)
    if accuracy is not None:
        run.picture(
            "accuracy",
            plot.accuracy(accuracy, title=f"Answers: {kind}", note=plot.note(heads, cases)),
        )


def beside(run, *names: str) -> Path:
    """A place in the folder of the revision, of which each type has a folder."""
    folder = run.folder.parent.parent if run.arguments.get("spans") else run.folder.parent
    return folder.joinpath(*names)


def report(runs: dict, top: int) -> None:
    """The strongest heads of each type; a star marks those beyond chance."""
    from nnheads import stats
    from nnheads.models.names import head_name

    for kind, run in runs.items():
        heads = run.load("heads")
        headline = heads.attrs["headline"]
        best = stats.top_heads(heads, headline, top)
        if not best:
            options.say(f"{kind}: {why_empty(heads)} (try other --lengths)")
            continue
        for head in best:
            head["flag"] = bool(heads["flag"].sel(layer=head["layer"], head=head["head"]))
        title = (
            f"{kind}: {int(heads['flag'].sum())} of {heads['flag'].size} heads beyond chance (*);"
            f" {headline}"
        )
        counted = heads.attrs.get("cases_counted")
        among = (
            ""
            if counted is None
            else f"; {counted} of {heads.attrs['cases']} prompts {heads.attrs['counts']}"
        )
        if best[0]["low"] == best[0]["low"]:
            options.say_heads(f"{title} [95% interval]{among}", best)
        else:
            options.say(f"{title} [no interval: one prompt]{among}")
            for head in best:
                options.say(f"  {head_name(head['layer'], head['head']):<7} {head['value']:+.3f}")
        changed = json.loads(heads.attrs.get("dropped", "{}"))
        if changed:
            options.say("  " + "; ".join(f"{reason}: {count}" for reason, count in changed.items()))
        options.say(f"  {options.shown(run.folder)}")


def why_empty(heads) -> str:
    """Why no head of a type has a value."""
    if heads.attrs.get("cases_counted") == 0:
        return (
            f"none of {heads.attrs['cases']} prompts was {heads.attrs['counts']}, so no head has a"
            " score"
        )
    return "nothing to compare; all prompts, or none, were answered"


def overview(runs: dict) -> None:
    """One map of all types: a cell is split when a head has several."""
    from nnheads import plot
    from nnheads.runs import store

    heads = {kind: run.load("heads") for kind, run in runs.items()}
    one = next(iter(heads.values()))
    note = plot.note(one, int(json.loads(one.attrs["arguments"])["limit"]))
    figure = plot.types_map(
        {kind: map_of(each).where(each["flag"] == 1) for kind, each in heads.items()}, note=note
    )
    path = next(iter(runs.values())).folder.parent / "all.png"
    store.write(path, lambda target: figure.savefig(target, dpi=144))
    options.say(options.shown(path))


def map_of(heads):
    """What a type is drawn by beside others: attention mass, or what it is ranked by where it is
    about none.
    """
    return heads["mass"] if "mass" in heads else heads[heads.attrs["headline"]]


def emergence(revisions: dict) -> None:
    """Join the revisions along a dimension of their own and draw how the strongest heads come
    about.
    """
    import xarray as xr

    from nnheads import plot
    from nnheads.runs import store

    runs = next(iter(revisions.values()))
    for kind in runs:
        each = [of[kind].load("heads") for of in revisions.values()]
        joined = xr.concat(
            each, xr.Variable("revision", list(revisions)), combine_attrs="drop_conflicts"
        )
        joined.attrs.update({key: each[-1].attrs[key] for key in ("source", "history", "headline")})
        folder = (
            beside(runs[kind]).parent
            / "revisions"
            / runs[kind].folder.relative_to(beside(runs[kind]))
        )
        store.save(folder / "heads.nc", joined)
        figure = plot.emergence(
            joined[joined.attrs["headline"]],
            title=f"{kind} heads over revisions",
            note=plot.note(joined, int(json.loads(each[-1].attrs["arguments"])["limit"])),
        )
        store.write(folder / "emergence.png", partial(figure.savefig, dpi=144))
        best = joined[joined.attrs["headline"]].max(["layer", "head"])
        options.say(f"{kind}: strongest head by revision")
        for revision, value in zip(revisions, best.values):
            options.say(
                f"  {revision:<16} {f'{float(value):.3f}' if value == value else 'no value'}"
            )
        options.say(f"  {options.shown(folder)}")

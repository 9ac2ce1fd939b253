"""Along which paths do heads act?

Path patching of indirect-object sentences: to the logits, or to later heads.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from nnheads.recipes import _options as options
from nnheads.recipes._answered import answered

REFERENCES = "Wang et al. 2022, arXiv 2211.00593"
LOGITS = "logits"
LONGEST_ITEM = 60  # of a folder's name


def main(
    model: options.Model = "reference",
    receivers: Annotated[
        str, typer.Option(help="logits, or later heads that listen: 9.9,9.6.")
    ] = LOGITS,
    via: Annotated[str, typer.Option(help="By what they listen: q, k or v.")] = "q",
    senders: Annotated[
        str | None, typer.Option(help="Only these heads speak, one at a time; default all.")
    ] = None,
    at: Annotated[
        str | None, typer.Option(help="Only at a role: IO, S1, S2 or END; default everywhere.")
    ] = None,
    mlps: Annotated[
        str, typer.Option(help="Feed-forward parts on the way: recompute or freeze.")
    ] = "recompute",
    corruption: Annotated[str, typer.Option(help="other, random, abc or swapped.")] = "abc",
    prompts: Annotated[
        Path | None, typer.Option(help="Pairs made elsewhere: .jsonl or .csv.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Answers must be best of the whole vocabulary.")
    ] = False,
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
    quiet: options.Quiet = False,
    traceback: options.Traceback = False,
) -> None:
    """Along which paths do heads act?

    Gives one head at a time the output that it has on a corrupted sentence, freezes all other
    heads, and lets only the logits, or the queries, keys or values of chosen later heads, notice.
    The effect is the change of the logit
    difference over its clean value: negative where the path helps the answer. Writes scores.nc
        (batch, layer, head),
    heads.nc (layer, head) and heads.png; receivers other than the logits have a folder of their
    own.
    """
    arguments = dict(locals())
    arguments.pop("top")  # names more or fewer of the heads that were measured
    from nnheads.recipes.ioi import make_prompts

    from nnheads.models.geometry import geometry
    from nnheads.patching.patch import role
    from nnheads.patching.path_patching import check_mlps, listeners, speakers
    from nnheads.prompts.ioi import check_corruption
    from nnheads.runs.folder import Run
    from nnheads.runs.provenance import model_identity, prompts_hash

    options.positive(limit=limit, batch_size=batch_size, top=top)
    check_corruption(corruption)
    check_mlps(mlps)
    heard = None if receivers.strip().lower() == LOGITS else heads_of(receivers)
    spoken = None if senders is None else heads_of(senders)
    where = options.remote_of(remote)
    loaded = options.load(model, revision, dtype, device_map, where, quantization)
    sizes = geometry(loaded)
    speakers(spoken, listeners(heard, via, sizes), sizes)
    pairs = make_prompts(loaded.tokenizer, prompts, None, corruption, limit, seed)
    if at is not None:
        role(pairs, at)
    identity = model_identity(loaded, model)
    facts = {**arguments, "model": identity["model"], "weights": identity["commit"]}
    facts |= {
        "receivers": named(heard),
        "senders": named(spoken),
        "prompts_sha256": prompts_hash(pairs),
    }
    run = Run(
        output,
        "path",
        model,
        identity["revision"],
        facts,
        item=item_of(heard, via),
        overwrite=overwrite,
    )
    run.jobs_of(loaded)
    if not run.complete:
        compute(run, loaded, pairs, facts, model, (heard, spoken), batch_size, quiet)
    report(run, top)


def heads_of(text: str) -> list[tuple[int, int]]:
    """`9.9,L9H6` -> [(9, 9), (9, 6)]."""
    from nnheads.models.names import parse_head

    return list(dict.fromkeys(parse_head(piece) for piece in text.split(",")))


def named(heads: list[tuple[int, int]] | None) -> list[str] | None:
    """However they were written and ordered, the same heads are the same question."""
    from nnheads.models.names import head_name

    return None if heads is None else [head_name(*head) for head in sorted(heads)]


def item_of(receivers: list[tuple[int, int]] | None, via: str) -> str:
    """The folder of one question: nothing for the logits."""
    return "" if receivers is None else "-".join([via, *(named(receivers) or [])])[:LONGEST_ITEM]


def compute(
    run, model, pairs, facts: dict, name: str, heads: tuple, batch_size: int, quiet: bool
) -> None:
    """Filter, follow the paths, reduce, save; every finished batch is kept in the run's folder."""
    from nnheads.recipes.ioi import for_and_against

    from nnheads import plot
    from nnheads.patching.path_patching import path_patch
    from nnheads.patching.roles import EFFECT
    from nnheads.runs import batches
    from nnheads.runs.provenance import provenance

    receivers, senders = heads
    keep = {"parts": run.parts, "size": batch_size, "quiet": quiet, "model": model}
    kept, dropped = answered(model, pairs, name, keep, strict=facts["strict"], both=False)
    scores = batches.run(
        lambda part: path_patch(
            model,
            part,
            receivers=receivers,
            via=facts["via"],
            senders=senders,
            at=facts["at"],
            mlps=facts["mlps"],
        ),
        kept,
        name="paths",
        title="paths",
        **keep,
    )
    about = provenance(
        title="indirect object: paths",
        model=model,
        name=name,
        prompts=pairs,
        arguments=facts,
        references=REFERENCES,
    )
    scores.attrs.update(
        about, asked=pairs.attrs["asked"], dropped=dropped, kept=kept.sizes["batch"]
    )
    reduced = reduce(scores, facts["seed"])
    run.save(scores=scores, heads=reduced)
    marked = [
        head
        for side in for_and_against(reduced, 5)
        for head in side
        if abs(head["value"]) >= EFFECT
    ]
    to, mlps = (
        listening(scores),
        "" if facts["mlps"] == "recompute" else ", feed-forward parts frozen",
    )
    figure = plot.heatmap(
        reduced["effect"],
        title=f"Indirect object: paths to {to}{mlps}",
        marked=marked,
        note=plot.note(reduced, kept.sizes["batch"]),
    )
    run.picture("heads", figure)
    run.finish(kept=kept.sizes["batch"], asked=int(pairs.attrs["asked"]))


def reduce(scores, seed: int):
    """Per head: the change over the unchanged logit difference as a ratio of means, and the logit
    difference.
    """
    import xarray as xr

    from nnheads import stats

    base = scores["base_logit_difference"]
    effect = (
        scores["change"]
        .rename("effect")
        .assign_attrs(long_name="change along the path, over the clean value")
    )
    found = [
        stats.ratio_of_means(effect, base, seed=seed),
        stats.mean(scores["logit_difference"], seed=seed),
    ]
    reduced = xr.merge(found, combine_attrs="drop_conflicts")
    for name in ("base_logit_difference", "new_logit_difference"):
        about = {**scores[name].attrs, "cell_methods": "batch: mean"}
        reduced[name] = scores[name].mean("batch").assign_attrs(about)
    return reduced.assign_attrs(scores.attrs)


def listening(scores) -> str:
    """`the logits`, or `the queries of L9H9+L9H6`, and where."""
    receivers, at = scores.attrs["receivers"], scores.attrs["at"]
    to = "the logits" if receivers == LOGITS else f"the {scores.attrs['via']} of {receivers}"
    return to if at == "all positions" else f"{to} at {at}"


def report(run, top: int) -> None:
    """What was kept, the paths that help and that work against the answer, and where the files are."""
    from nnheads.recipes.ioi import for_and_against

    heads = run.load("heads")
    why = "; ".join(
        f"{count} {reason}" for reason, count in json.loads(heads.attrs["dropped"]).items()
    )
    options.say(
        f"kept {heads.attrs['kept']} of {heads.attrs['asked']} prompts"
        + (f" (dropped: {why})" if why else "")
    )
    clean, new = (float(heads[f"{which}_logit_difference"]) for which in ("base", "new"))
    options.say(
        f"logit difference: clean {clean:+.2f}, corrupted {new:+.2f}; feed-forward parts:"
        f" {heads.attrs['mlps']}"
    )
    positive, negative = for_and_against(heads, top)
    title = (
        f"paths to {listening(heads)}, change over the clean value, ratio of means [95% interval];"
        " helping:"
    )
    if negative:
        options.say_heads(title, negative)
    else:
        options.say(f"{title} none beyond its interval")
    if positive:
        options.say_heads("working against the answer:", positive)
    for name in ("scores.nc", "heads.nc", "heads.png"):
        options.say(options.shown(run.folder / name))

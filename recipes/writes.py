"""What do heads write?

Copying, succession, suppression, coupling to attention, and who reads whom.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from nnheads.recipes import _options as options

KINDS = {
    "copy": "heads that raise the word they look at, or lower it",
    "successor": "heads that raise what comes next",
    "suppression": "heads that lower the token they look at",
    "coupling": "heads that write the answer where they attend to it",
    "composition": "pairs of heads",
}
HEADLINES = {
    "copy": ("copy", "negative"),
    "successor": ("successor",),
    "suppression": ("suppression", "lowest"),
    "coupling": ("correlation", "slope"),
    "composition": (),
}
REFERENCES = {
    "copy": "Wang et al. 2022, arXiv 2211.00593",
    "successor": "Gould et al. 2023, arXiv 2312.09230",
    "suppression": "McDougall et al. 2023, arXiv 2310.04625",
    "coupling": "Wang et al. 2022, arXiv 2211.00593",
    "composition": "Elhage et al. 2021, A mathematical framework for transformer circuits",
}


def main(
    model: options.Model = "reference",
    kind: Annotated[str, typer.Option(help=f"{', '.join(KINDS)}.")] = "copy",
    words: Annotated[
        Path | None,
        typer.Option(help="Words of your own, one a line; for successor: in their order."),
    ] = None,
    through: Annotated[str, typer.Option(help="What composition reads with: q, k or v.")] = "k",
    top: Annotated[int, typer.Option(help="How many heads to name.")] = 8,
    limit: Annotated[
        int, typer.Option("--limit", "-n", help="How many words, tokens or prompts at most.")
    ] = 300,
    batch_size: options.BatchSize = 50,
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
    """What do heads write? Copying, succession, suppression, coupling to attention, and who reads
    whom.

    Reads what each head does to the logits when it looks at a token, from runs of single tokens;
    coupling needs prompts and draws those of the indirect-object task, composition compares heads'
    weights. Writes scores.nc (each token or prompt, or each pair of heads), heads.nc (layer, head)
    and heads.png.
    """
    arguments = dict(locals())
    arguments.pop("top")  # names more or fewer of the heads that were measured
    from nnheads.errors import BadInput
    from nnheads.runs.folder import Run
    from nnheads.runs.provenance import model_identity

    options.positive(limit=limit, batch_size=batch_size, top=top)
    if kind not in KINDS:
        raise BadInput(f"--kind {kind!r} is not known; use one of {', '.join(KINDS)}")
    if words is not None and kind in ("coupling", "composition"):
        raise BadInput(f"--words is for copy, successor and suppression; {kind} looks at no words")
    where = options.remote_of(remote)
    given = None if words is None else read_words(words)
    loaded = options.load(model, revision, dtype, device_map, where, quantization)
    identity = model_identity(loaded, model)
    facts = {**arguments, "model": identity["model"], "weights": identity["commit"], "list": given}
    run = Run(
        output,
        "writes",
        model,
        identity["revision"],
        facts,
        item=f"{kind}-{through}" if kind == "composition" else kind,
        overwrite=overwrite,
    )
    run.jobs_of(loaded)
    if not run.complete:
        compute(run, loaded, facts, model, batch_size, quiet)
    report(run, kind, top)


def read_words(path: Path) -> list[str]:
    """Words of a file, in their order."""
    from nnheads.spans.lines import numbered_lines

    return list(dict.fromkeys(line.strip() for _, line in numbered_lines(path, "one word a line")))


def compute(run, model, facts: dict, name: str, batch_size: int, quiet: bool) -> None:
    """Measure, reduce, draw, save; finished batches of tokens or prompts are kept in the run's
    folder.
    """
    from nnheads import plot
    from nnheads.runs.provenance import provenance

    kind = facts["kind"]
    keep = {
        "parts": run.parts,
        "size": batch_size,
        "quiet": quiet,
        "name": kind,
        "title": kind,
        "model": model,
    }
    measured = {"composition": composed, "coupling": coupled}.get(kind, spoken)
    scores, heads, prompts = measured(model, facts, keep)
    about = provenance(
        title=KINDS[kind],
        model=model,
        name=name,
        prompts=prompts,
        arguments=facts,
        references=REFERENCES[kind],
        sample_dims="" if kind == "composition" else "batch",
    )
    scores.attrs, heads.attrs = {**scores.attrs, **about}, {**heads.attrs, **about}
    run.save(scores=scores, heads=heads)
    count = scores.sizes.get("batch", 1)
    shown = HEADLINES[kind][0] if HEADLINES[kind] else "strongest"
    figure = plot.heatmap(
        heads[shown],
        title=f"Writes: {KINDS[kind]}",
        signed=kind == "coupling",
        note=plot.note(heads, count),
        marked=[head for head in named(heads, shown, 5) if head["flag"]] if HEADLINES[kind] else [],
    )
    run.picture("heads", figure)
    run.finish(cases=int(count))


def spoken(model, facts: dict, keep: dict):
    """Copying, succession and suppression: what each head says of each token."""
    import numpy as np
    import xarray as xr

    from nnheads.runs import batches
    from nnheads.runs.provenance import prompts_hash
    from nnheads.writing.copy_score import (
        NAMES,
        drawn_tokens,
        single_tokens,
        summary,
        suppression_scores,
        word_scores,
    )
    from nnheads.writing.succession import OrderedClass, successor_scores

    kind, given, limit = facts["kind"], facts["list"], facts["limit"]
    if kind == "successor":
        classes = None if given is None else [OrderedClass("words", tuple(given))]
        scores = successor_scores(model, classes)
        ids = scores["token"].values
    else:
        drawn = kind == "suppression" and given is None
        ids = (
            drawn_tokens(model, limit, facts["seed"])
            if drawn
            else single_tokens(model.tokenizer, given or NAMES)
        )
        ids = ids[:limit]
        measure = {
            "copy": lambda part: word_scores(model, part["token"].values, pool=ids),
            "suppression": lambda part: suppression_scores(model, part["token"].values, pool=ids),
        }[kind]
        scores = batches.run(
            measure, xr.Dataset({"token": ("batch", ids)}, {"batch": range(len(ids))}), **keep
        )
        scores = scores.assign_coords(batch=np.arange(len(ids)))
    return scores, summary(scores), prompts_hash(xr.Dataset({"token": ("batch", ids)}))


def coupled(model, facts: dict, keep: dict):
    """Attention to the indirect object and what is written of it, prompt by prompt."""
    from nnheads.prompts.ioi import ioi
    from nnheads.runs import batches
    from nnheads.writing.logit_attribution import coupling, write_coupling

    prompts = ioi(model.tokenizer, facts["limit"], seed=facts["seed"])
    scores = batches.run(lambda part: write_coupling(model, part), prompts, **keep)
    return scores, coupling(scores, seed=facts["seed"]), prompts


def composed(model, facts: dict, _: dict):
    """All pairs of heads, and for each head the strongest pair that it is the first of."""
    from nnheads.writing.composition import composition_scores

    scores = composition_scores(model, facts["through"], seed=facts["seed"])
    best = scores["composition"].max(["to_layer", "to_head"])
    about = {
        "long_name": "strongest composition with a later head",
        "cell_methods": "to_layer: to_head: maximum",
    }
    heads = scores[["null", "null_high"]].assign(
        strongest=best.assign_attrs({**scores["composition"].attrs, **about})
    )
    return scores, heads, ""


def named(heads, name: str, top: int) -> list[dict]:
    """The highest heads, with a mark where chance does not explain them: by q value, or by an
    interval above 0.
    """
    from nnheads import stats

    found = stats.top_heads(heads, name, top)
    for head in found:
        own = heads.sel(layer=head["layer"], head=head["head"])
        head["flag"] = (
            float(own[f"{name}_q_value"]) < 0.05 if f"{name}_q_value" in own else head["low"] > 0
        )
    return found


def report(run, kind: str, top: int) -> None:
    """The strongest heads or pairs, and where the files are."""
    heads = run.load("heads")
    if kind == "composition":
        from nnheads.models.names import head_name
        from nnheads.writing.composition import share_above, strongest

        scores = run.load("scores")
        null, high = float(scores["null"]), float(scores["null_high"])
        options.say(
            f"composition through {scores.attrs['composition']}; random heads {null:.3f}, 95% below"
            f" {high:.3f}"
        )
        share, count = share_above(scores)
        options.say(
            f"{share:.0%} of all {count} pairs are above that, so it is no finding by itself; the"
            " strongest:"
        )
        for pair in strongest(scores, top):
            first, second = (
                head_name(pair["layer"], pair["head"]),
                head_name(pair["to_layer"], pair["to_head"]),
            )
            options.say(f"  {first:<7} -> {second:<7} {pair['value']:.3f}")
    for name in HEADLINES[kind]:
        about = heads[name].attrs["long_name"]
        options.say_heads(
            f"{name}: {about} [95% interval] (* beyond chance); highest:", named(heads, name, top)
        )
    for name in ("scores.nc", "heads.nc", "heads.png"):
        options.say(options.shown(run.folder / name))

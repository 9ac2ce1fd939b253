"""Does a behaviour need these heads? Knock them out, and random ones of the same layers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from nnheads.recipes import _knockout
from nnheads.recipes import _options as options

# added to the seed of prompts, so that no head is tested on the prompts that it was found on
APART = 1_000_000
DETECTION_PROMPTS = 32


def main(
    model: options.Model = "reference",
    heads: Annotated[
        str | None, typer.Option(help="The list, strongest first: 9.9,9.6 or L9H9,L9H6.")
    ] = None,
    from_: Annotated[
        Path | None, typer.Option("--from", help="A run, or a list of heads in any tool's format.")
    ] = None,
    top: Annotated[
        int | None, typer.Option(help="With --from: how many heads; default: those flagged.")
    ] = None,
    statistic: Annotated[
        str | None, typer.Option(help="With --from: what ranks them; default: the headline.")
    ] = None,
    behaviour: Annotated[
        str, typer.Option(help="ioi, induction, retrieval, iteration, truth or pairs.")
    ] = "induction",
    prompts: Annotated[Path | None, typer.Option(help="Pairs of your own: .jsonl or .csv.")] = None,
    length: Annotated[
        int | None,
        typer.Option(
            help="Tokens to repeat (induction), of a prompt (retrieval), steps (iteration)."
        ),
    ] = None,
    ablation: Annotated[
        str, typer.Option(help="mean, zero, uniform (attention) or resample.")
    ] = "mean",
    metric: Annotated[
        str | None,
        typer.Option(
            help="accuracy, log_probability, probability, logit, rank, kl or logit_difference."
        ),
    ] = None,
    at: Annotated[str | None, typer.Option(help="Ablate at one role alone, such as END.")] = None,
    draws: Annotated[int, typer.Option(help="How many random lists; 0 for none.")] = 20,
    ks: Annotated[
        str | None,
        typer.Option(help="How many heads at once: 0,1,2,5; default: up to the list's length."),
    ] = None,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Also the effect of each pair of heads.")
    ] = False,
    backup: Annotated[
        bool, typer.Option("--backup", help="Also which other heads step in for the list.")
    ] = False,
    limit: options.Limit = 48,
    batch_size: options.BatchSize = 24,
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
    """Does a behaviour need these heads?

    Measures the behaviour without the first K heads of a list, for rising K, and without as many
    random heads of the same layers; then the effect of each head alone, together and after the
    others. Without --heads or --from the heads are those that `nnheads detect` flags for the
    behaviour. Prompts are others than those that detect and ioi draw with the same seed, and all
    count, also those that the model gets wrong. Writes scores.nc, curve.nc (k), interactions.nc and
    curve.png, and with --backup heads.nc (layer, head) and heads.png.
    """
    arguments = dict(locals())
    arguments.pop("plan")
    from nnheads.errors import BadInput
    from nnheads.patching.knockout import chosen_lists, counts_of
    from nnheads.runs.folder import Run, item_of
    from nnheads.runs.provenance import model_identity, prompts_hash

    options.positive(limit=limit, batch_size=batch_size)
    _knockout.check(arguments)
    counts = None if ks is None else _knockout.counts_in(ks)
    where = options.remote_of(remote)
    given, origin = _knockout.listed_heads(heads, from_, top, statistic, behaviour)
    if given is not None:
        counts_of(counts, len(given))
    loaded = options.load(model, revision, dtype, device_map, where, quantization)
    if given is not None:
        chosen_lists(loaded, given, counts, draws, seed)
    asked, others = ask(loaded, arguments)
    if plan:
        if given is None:
            raise BadInput("--plan needs a list of heads; name it with --heads or --from")
        report_plan(loaded, (asked, others), given, counts, arguments)
        return
    identity = model_identity(loaded, model)
    resolved = ("heads", "from_", "top", "statistic")  # the list says it all
    facts = {key: value for key, value in arguments.items() if key not in resolved}
    facts |= {
        "ks": counts,
        "listed": None if given is None else _knockout.names(given),
        "origin": origin,
    }
    facts |= {
        "prompts_sha256": prompts_hash(asked),
        "model": identity["model"],
        "weights": identity["commit"],
    }
    words = " ".join(
        [behaviour, ablation, *(word for word in ("pairs", "backup") if arguments[word])]
    )
    item = item_of(words, str(facts["listed"]), origin, metric or "", at or "", str(prompts or ""))
    run = Run(
        output, "knockout", model, identity["revision"], facts, item=item, overwrite=overwrite
    )
    run.jobs_of(loaded)
    if not run.complete:
        compute(run, loaded, (asked, others), given, facts, model, batch_size, quiet)
    _knockout.report(run)


def report_plan(
    model, prompts: tuple, heads: list[tuple[int, int]], ks: list[int] | None, arguments: dict
):
    """What the two jobs of a batch would cost, and how many batches there are."""
    from nnheads.patching import interaction
    from nnheads.patching.behaviours import BEHAVIOURS
    from nnheads.patching.head_sets import plan_without
    from nnheads.patching.knockout import chosen_lists

    asked, others = prompts
    part = asked.isel(batch=slice(arguments["batch_size"]))
    metric = arguments["metric"] or BEHAVIOURS[arguments["behaviour"]].metric
    counts, listed, random = chosen_lists(model, heads, ks, arguments["draws"], arguments["seed"])
    sets = interaction.chosen_sets(model, heads, arguments["pairs"], arguments["backup"])
    jobs = {
        "knockout": [one[:k] for one in (listed, *random) for k in counts],
        "interactions": [one for each in sets.values() for one in each],
    }
    batches, size = -(-asked.sizes["batch"] // part.sizes["batch"]), part.sizes["batch"]
    options.say(
        f"{asked.sizes['batch']} prompts in {batches} batches of at most {size}; each batch:"
    )
    for title, lists in jobs.items():
        job = plan_without(
            model,
            part,
            lists,
            ablation=arguments["ablation"],
            reference=others,
            metric=metric,
            at=arguments["at"],
            seed=arguments["seed"],
        )
        options.say(f"{title}:")
        options.say_plan(model, job)


def ask(model, arguments: dict):
    """Prompts, and what their ablations take values from.

    Left out are prompts that no other is like.
    """
    from nnheads.errors import BadInput
    from nnheads.models.inputs import check_length
    from nnheads.patching.behaviours import BEHAVIOURS, ask_for, with_others
    from nnheads.patching.metrics import metric_of
    from nnheads.patching.patch import role

    prompts, others = ask_for(
        arguments["behaviour"],
        model.tokenizer,
        arguments["limit"],
        seed=arguments["seed"] + APART,
        length=arguments["length"],
        path=arguments["prompts"],
    )
    check_length(int(prompts["mask"].sum("position").max()), model.config)
    if arguments["at"] is not None:
        role(prompts, arguments["at"])
    metric = metric_of(arguments["metric"] or BEHAVIOURS[arguments["behaviour"]].metric)
    if metric.pair and "wrong" not in prompts:
        raise BadInput(
            f"{metric.name} compares two answers; these prompts have one: try log_probability or"
            " accuracy"
        )
    dropped = json.loads(prompts.attrs.get("dropped", "{}"))
    count = prompts.attrs.get("asked", prompts.sizes["batch"])
    if arguments["ablation"] in ("mean", "resample"):
        usable = with_others(prompts, others)
        if not usable.any():
            raise BadInput(
                f"none of {len(usable)} prompts has another of its length, so there is nothing to"
                " put in for a head; use more (--limit), or --ablation uniform or zero"
            )
        dropped["without another of their length, whose mean would be themselves"] = int(
            (~usable).sum()
        )
        prompts = prompts.isel(batch=usable)
    dropped = {reason: number for reason, number in dropped.items() if number}
    return prompts.assign_attrs(asked=count, dropped=json.dumps(dropped)), others


def found_heads(run, model, facts: dict, quiet: bool) -> list[tuple[int, int]]:
    """The heads that the behaviour's detector flags; found once for a run."""
    from nnheads.detectors._detect import detect, ranking
    from nnheads.errors import RunError
    from nnheads.patching.behaviours import BEHAVIOURS
    from nnheads.runs import store

    keep = run.folder / "found.json"
    if keep.exists():
        return [(layer, head) for layer, head in json.loads(keep.read_text())]
    kind = str(BEHAVIOURS[facts["behaviour"]].head_type)
    heads = detect(model, kind, n=DETECTION_PROMPTS, seed=facts["seed"], quiet=quiet)
    assert not isinstance(heads, dict), "one type has one dataset"
    found = ranking(heads, flagged=True)
    if not found:
        raise RunError(
            f"detect {kind} flags no head of {facts['model']}; name some with --heads or --from"
        )
    store.write(keep, lambda target: target.write_text(json.dumps(found)))
    return found


def compute(
    run, model, prompts: tuple, heads, facts: dict, name: str, batch_size: int, quiet: bool
) -> None:
    """Knock out, reduce, draw, save; every finished batch is kept in the run's folder."""
    import xarray as xr

    from nnheads.patching import interaction
    from nnheads.patching.behaviours import BEHAVIOURS
    from nnheads.patching.knockout import chosen_lists, curve, knockout
    from nnheads.runs import batches
    from nnheads.runs.provenance import provenance

    asked, others = prompts
    behaviour = BEHAVIOURS[facts["behaviour"]]
    if heads is None:
        heads = found_heads(run, model, facts, quiet)
        chosen_lists(model, heads, facts["ks"], facts["draws"], facts["seed"])
    how = {
        "ablation": facts["ablation"],
        "reference": others,
        "metric": facts["metric"] or behaviour.metric,
        "at": facts["at"],
        "seed": facts["seed"],
    }
    keep = {"parts": run.parts, "size": batch_size, "quiet": quiet, "model": model}
    scores = batches.run(
        lambda part: knockout(model, part, heads, ks=facts["ks"], draws=facts["draws"], **how),
        asked,
        name="knockout",
        title="knockout",
        **keep,
    )
    parts = batches.run(
        lambda part: interaction.interactions(
            model, part, heads, pairs=facts["pairs"], backup=facts["backup"], **how
        ),
        asked,
        name="interactions",
        title="interactions",
        **keep,
    )
    references = "; ".join(
        text for text in (behaviour.source, "Wu et al. 2024, arXiv 2404.15574") if text
    )
    about = provenance(
        title=f"knockout: {facts['behaviour']}",
        model=model,
        name=name,
        prompts=asked,
        arguments=facts,
        references=references,
    )
    about |= {
        "behaviour": behaviour.about,
        "heads": ", ".join(_knockout.names(heads)),
        "origin": facts["origin"],
    }
    about |= {name: asked.attrs[name] for name in ("asked", "dropped")} | {
        "kept": asked.sizes["batch"]
    }
    scores, parts = (one.assign_attrs(about) for one in (scores, parts))
    reduced, together = (
        curve(scores, seed=facts["seed"]),
        interaction.summary(parts, seed=facts["seed"]),
    )
    by_head = [variable for variable in together.data_vars if "layer" in together[variable].dims]
    saved = {
        "curve": reduced,
        "interactions": together.drop_vars(by_head).drop_vars(["layer", "head"], errors="ignore"),
    }
    if by_head:
        saved["heads"] = together[by_head]
    parts = parts.drop_vars(f"base_{scores.attrs['metric']}")
    run.save(scores=xr.merge([scores, parts], combine_attrs="override", compat="override"), **saved)
    pictures(run, reduced, together, _knockout.names(heads))
    run.finish(kept=int(about["kept"]), asked=int(about["asked"]))


def pictures(run, reduced, together, listed: list[str]) -> None:
    """The curve against the random lists and, with --backup, how much each other head's effect
    grows.
    """
    from nnheads import plot
    from nnheads.patching import interaction

    note, done = plot.note(reduced, int(reduced.attrs["kept"])), str(reduced.attrs["behaviour"])
    shown = ", ".join(listed if len(listed) <= 4 else [*listed[:4], f"... ({len(listed)} heads)"])
    title = f"{done[0].upper()}{done[1:]},\nwithout {shown}"
    how = f"{title}; {reduced.attrs['ablation']} ablation"
    run.picture(
        "curve", plot.against_random(reduced, reduced.attrs["metric"], title=how, note=note)
    )
    if "growth" in together:
        marked = interaction.stepping_in(together, 5)
        run.picture(
            "heads",
            plot.heatmap(
                together["growth"], title=f"{title}: who steps in", marked=marked, note=note
            ),
        )

"""Does a behaviour need these heads? Knock them out, and random ones of the same layers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from nnheads.recipes._knockout import (
    QUICK,
    HeadList,
    averaged_over,
    check,
    check_list,
    counts_in,
    detected_heads,
    head_list,
    metric_name,
    names_of,
    prompts_of,
)
from nnheads.recipes._knockout_report import report, report_plan
from nnheads.recipes._study import Study, study

from nnheads.errors import BadInput

REFERENCE = "Wu et al. 2024, arXiv 2404.15574"
MARKED = 5  # heads with a frame
RESOLVED = ("heads", "from_", "top", "statistic")  # options that the list says all of

Heads = Annotated[str | None, typer.Option(help="The list, strongest first: 9.9,9.6 or L9H9,L9H6.")]
From = Annotated[
    Path | None, typer.Option("--from", help="A run, or a list of heads in any tool's format.")
]
Top = Annotated[
    int | None, typer.Option(help="Without --heads: how many of the ranked ones; those flagged.")
]
Statistic = Annotated[
    str | None, typer.Option(help="With --from: what ranks them; default: the headline.")
]
Behaviour = Annotated[
    str, typer.Option(help="ioi, induction, retrieval, iteration, truth or pairs.")
]
PairsFile = Annotated[Path | None, typer.Option(help="Pairs of your own: .jsonl or .csv.")]
Length = Annotated[
    int | None,
    typer.Option(help="Tokens to repeat (induction), of a prompt (retrieval), steps (iteration)."),
]
Ablation = Annotated[str, typer.Option(help="mean, zero, uniform (attention) or resample.")]
Metric = Annotated[
    str | None,
    typer.Option(
        help="accuracy, log_probability, probability, logit, rank, kl or logit_difference."
    ),
]
At = Annotated[str | None, typer.Option(help="Ablate at one role alone, such as END.")]
Draws = Annotated[int, typer.Option(help="How many random lists; 0 for none.")]
Ks = Annotated[
    str | None,
    typer.Option(help="How many heads at once: 0,1,2,5; default: up to the list's length."),
]
Pairs = Annotated[bool, typer.Option("--pairs", help="Also the effect of each pair of heads.")]
Backup = Annotated[
    bool, typer.Option("--backup", help="Also which other heads step in for the list.")
]


@study(limit=24, batch_size=8, plan=False, quick=QUICK)
def main(
    study: Study,
    heads: Heads = None,
    from_: From = None,
    top: Top = None,
    statistic: Statistic = None,
    behaviour: Behaviour = "induction",
    prompts: PairsFile = None,
    length: Length = None,
    ablation: Ablation = "mean",
    metric: Metric = None,
    at: At = None,
    draws: Draws = 20,
    ks: Ks = None,
    pairs: Pairs = False,
    backup: Backup = False,
) -> None:
    """Does a behaviour need these heads?

    Measures the behaviour without the first K heads of a list, for rising K, and without as many
    random heads of the same layers; then the effect of each head alone, together and after the
    others. Without --heads or --from the heads are those that `nnheads detect` flags for the
    behaviour. Prompts are others than those that detect and ioi draw with the same seed, and all
    count, also those that the model gets wrong. Writes scores.nc, curve.nc (k), interactions.nc and
    curve.png, and with --backup heads.nc (layer, head) and heads.png.
    """
    check(study)
    counts = None if ks is None else counts_in(ks)
    listed = head_list(study)
    if listed.heads is not None:
        check_list(study, listed.heads, counts)
    chosen, reference = prompts_of(study)
    if study.plan:
        if listed.heads is None:
            raise BadInput("--plan needs a list of heads; name it with --heads or --from")
        report_plan(study, chosen, reference, listed.heads, counts)
        return
    run = open_run(study, listed, counts, chosen)
    if not run.complete:
        compute(study, run, listed, counts, chosen, reference)
    report(run)


def open_run(study: Study, listed: HeadList, counts: list[int] | None, prompts):
    """Open the run of one list, behaviour and ablation."""
    from nnheads.runs.folder import item_of
    from nnheads.runs.provenance import prompts_hash

    extras = [name for name in ("pairs", "backup") if study.arguments[name]]
    words = " ".join([study.behaviour, study.ablation, *extras])
    names = None if listed.heads is None else names_of(listed.heads)
    options = (study.metric or "", study.at or "", str(study.prompts or ""))
    return study.open(
        item=item_of(words, str(names), listed.origin, *options),
        without=RESOLVED,
        ks=counts,
        listed=names,
        origin=listed.origin,
        prompts_sha256=prompts_hash(prompts),
    )


def compute(
    study: Study, run, listed: HeadList, counts: list[int] | None, prompts, reference
) -> None:
    """Knock out, reduce, draw, save; every finished batch is kept in the run's folder."""
    import xarray as xr

    from nnheads.patching import interaction
    from nnheads.patching.knockout import curve

    heads = listed.heads or detected_heads(study, run)
    check_list(study, heads, counts)
    about = about_run(study, run, prompts, heads, listed.origin)
    about |= averaged_over(study, prompts, reference)
    scores, parts = (
        one.assign_attrs(about) for one in measured(study, run, heads, counts, prompts, reference)
    )
    reduced = curve(scores, seed=study.seed)
    together = interaction.summary(parts, seed=study.seed)
    parts = parts.drop_vars(f"base_{scores.attrs['metric']}")
    whole = xr.merge([scores, parts], combine_attrs="override", compat="override")
    run.save(scores=whole, curve=reduced, **apart(together))
    draw(run, reduced, together, names_of(heads))
    run.finish(kept=int(about["kept"]), asked=int(about["asked"]))


def measured(study: Study, run, heads: list, counts: list[int] | None, prompts, reference) -> tuple:
    """Return the behaviour without the first heads (batch, k), and the parts of the whole list."""
    from nnheads.patching.interaction import interactions
    from nnheads.patching.knockout import knockout

    options = {
        "ablation": study.ablation,
        "reference": reference,
        "metric": metric_name(study),
        "at": study.at,
        "seed": study.seed,
    }
    extras = {"pairs": study.pairs, "backup": study.backup}
    scores = study.in_batches(
        run,
        lambda part: knockout(run.model, part, heads, ks=counts, draws=study.draws, **options),
        prompts,
        name="knockout",
        title="knockout",
    )
    parts = study.in_batches(
        run,
        lambda part: interactions(run.model, part, heads, **extras, **options),
        prompts,
        name="interactions",
        title="interactions",
    )
    return scores, parts


def about_run(study: Study, run, prompts, heads: list, origin: str) -> dict:
    """Return what repeats the run, and what it is about, as attributes."""
    from nnheads.detectors._ability import guessing
    from nnheads.patching.behaviours import BEHAVIOURS

    behaviour = BEHAVIOURS[study.behaviour]
    sources = [text for text in (behaviour.source, REFERENCE) if text]
    title = f"knockout: {study.behaviour}"
    about = run.about(title=title, prompts=prompts, references="; ".join(sources))
    if "target" in prompts:
        about["accuracy_of_guessing"] = guessing(prompts)
    return about | {
        "behaviour": behaviour.about,
        "heads": ", ".join(names_of(heads)),
        "origin": origin,
        "asked": prompts.attrs["asked"],
        "dropped": prompts.attrs["dropped"],
        "word_form": prompts.attrs.get("word_form", ""),
        "kept": prompts.sizes["batch"],
    }


def apart(together) -> dict:
    """Return what is said of the list, and of every head (layer, head), as files of their own."""
    by_head = [name for name in together.data_vars if "layer" in together[name].dims]
    listed = together.drop_vars(by_head).drop_vars(["layer", "head"], errors="ignore")
    return {"interactions": listed} | ({"heads": together[by_head]} if by_head else {})


def draw(run, reduced, together, names: list[str]) -> None:
    """Draw the curve against the random lists and, with --backup, the growth of other heads."""
    from nnheads import plot
    from nnheads.patching.interaction import candidates

    note, title = plot.note(reduced, int(reduced.attrs["kept"])), title_of(reduced, names)
    with_ablation = f"{title}; {reduced.attrs['ablation']} ablation"
    metric = reduced.attrs["metric"]
    figure = plot.against_random(reduced, metric, title=with_ablation, note=note)
    run.picture("curve", figure)
    if "growth" in together:
        figure = plot.heatmap(
            together["growth"],
            title=f"{title}: who steps in",
            marked=candidates(together, MARKED),
            framed=f"the heads whose help grows most ({help_is_on(metric)} 0)",
            flagged="they step in",
            empty="the heads of the list",
            note=note,
        )
        run.picture("heads", figure)


def help_is_on(metric: str) -> str:
    """Return on which side of 0 the effect of a head lies without which the behaviour suffers."""
    from nnheads.patching.interaction import LESS_IS_BETTER

    return "above" if metric in LESS_IS_BETTER else "below"


def title_of(reduced, names: list[str]) -> str:
    """Return what is measured, and without which heads."""
    about = str(reduced.attrs["behaviour"])
    some = names if len(names) <= 4 else [*names[:4], f"... ({len(names)} heads)"]
    return f"{about[0].upper()}{about[1:]},\nwithout {', '.join(some)}"

"""Find heads by type: induction, previous token, duplicate token, attention sink, or all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from nnheads.recipes import _grid, _truth
from nnheads.recipes._detect_options import OWN, drawing, names_of, revisions_in
from nnheads.recipes._detect_report import (
    beside,
    best_heads,
    flagged,
    overview,
    report,
    say_left_out,
)
from nnheads.recipes._detect_revisions import emergence
from nnheads.recipes._study import Study, study

if TYPE_CHECKING:
    from nnheads.runs.folder import Run

MARKED = 5  # heads with a frame
IDENTIFYING = ("seed", "dtype", "quantization", "remote")  # of the shared options

HeadTypeName = Annotated[
    str,
    typer.Argument(
        help="A head type (see `nnheads heads`), all, or spans (your own, see --spans)."
    ),
]
Spans = Annotated[Path | None, typer.Option(help="Type spans: JSON lines with texts and spans.")]
Length = Annotated[int, typer.Option(help="Repeated tokens: how many before they are repeated.")]
Task = Annotated[str, typer.Option(help="Iteration: copy, parity, polynomial or maximum.")]
Steps = Annotated[int, typer.Option(help="Iteration: steps of the longest prompt.")]
Spread = Annotated[
    int,
    typer.Option(help="Indirect object: most adjectives before the object."),
]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit", "-n", help="How many prompts, or questions; 32, of spans and questions all."
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        min=0, help="Seed of everything that is drawn; 0, and 42 for folds, unless given."
    ),
]
Revision = Annotated[
    str | None, typer.Option(help="Revision, or several (a,b,c) to see heads emerge.")
]


@study(batch_size=8, top=8, quick={"limit": 8})
def main(
    study: Study,
    head_type: HeadTypeName = "all",
    spans: Spans = None,
    length: Length = 50,
    task: Task = "parity",
    steps: Steps = 16,
    spread: Spread = 0,
    lengths: _grid.Lengths = None,
    s_len: _grid.Shortest = None,
    e_len: _grid.Longest = None,
    context_lengths_num_intervals: _grid.LengthCount = None,
    document_depth_percent_intervals: _grid.DepthCount = None,
    haystack: _grid.Haystack = None,
    needles: _grid.Needles = None,
    data: _truth.Data = None,
    template: _truth.Template = None,
    num_fold: _truth.NumFold = None,
    num_heads: _truth.NumHeads = None,
    val_ratio: _truth.ValRatio = None,
    limit: Limit = None,
    seed: Seed = None,
    revision: Revision = None,
) -> None:
    """Find heads by type.

    Every score comes with a null (the same queries, random targets; for truthfulness, shuffled
    labels), an interval over prompts or questions, and a flag at a false discovery rate of 5% over
    all heads. Writes one folder a type with scores.nc, heads.nc and heads.png.
    """
    names = names_of(head_type, spans)
    stimuli_of = drawing(study, names)
    sides = {
        one: side_of(study, one) for one in revisions_in(revision)
    }  # all are there, or none runs
    runs = {one: at_revision(study, side, one, names, stimuli_of) for one, side in sides.items()}
    if len(runs) > 1:
        emergence(runs)
        return
    (by_type,) = runs.values()
    report(by_type, study.top)
    say_left_out(study.model, names, by_type)
    if len(names) > 1:
        overview(by_type)


def side_of(study: Study, revision: str | None) -> Study:
    """Return the study of one revision: on the Hub, or a folder inside a local one."""
    from nnheads.models.load import checkpoint

    name, own = checkpoint(study.name, revision)
    return study.changed(model=name, revision=own, seed=study.seed or 0)


def at_revision(
    study: Study,
    side: Study,
    revision: str | None,
    names: Sequence[str],
    stimuli_of: Callable[..., list],
) -> dict[str, Run]:
    """Return the finished run of each type at one revision.

    stimuli_of: the function (model, seed=) that draws the prompts of all types.
    """
    stimuli = stimuli_of(side.model, seed=side.seed)
    runs = {
        kind.name: open_type(study, side, revision, stimulus, kind.name)
        for stimulus in stimuli
        for kind in stimulus.head_types
    }
    missing = [kind for kind, run in runs.items() if not run.complete]
    compute(side, runs, [stimulus.only(missing) for stimulus in stimuli])
    return {kind: runs[kind] for kind in names if kind in runs}


def open_type(study: Study, side: Study, revision: str | None, stimulus, kind: str) -> Run:
    """Open the run of one head type at one revision."""
    from nnheads.runs.provenance import model_folder, prompts_hash

    facts = {name: side.arguments[name] for name in IDENTIFYING}
    if study.spans:
        facts["spans"] = study.spans
    facts |= {"revision": revision, "model": model_folder(study.name)}
    facts |= {"weights": side.identity["commit"], **stimulus.options}
    facts |= {"limit": stimulus.prompts.sizes["batch"]}
    facts |= {"prompts_sha256": prompts_hash(stimulus.prompts), "type": kind}
    item = f"{OWN}/{kind}" if study.spans else kind
    return side.open_as(facts, item, name=study.name, revision=revision)


def compute(side: Study, runs: dict[str, Run], stimuli: list) -> None:
    """Measure what is missing, and save each type as soon as it is there.

    Types that share prompts share forwards; each has its own folder.
    """
    from nnheads.detectors._scores import measure_each
    from nnheads.runs.folder import share_jobs

    parts = beside(next(iter(runs.values())), "parts")
    share_jobs(runs.values(), side.model, parts)
    options = {"batch_size": side.batch_size, "quiet": side.quiet}
    for kind, scores in measure_each(side.model, stimuli, parts=parts, **options):
        finish(runs[kind], kind, scores, side.seed)
    shutil.rmtree(parts, ignore_errors=True)


def finish(run: Run, kind: str, scores, seed: int) -> None:
    """Calibrate the scores of one type (batch, layer, head), draw and save them."""
    from nnheads.detectors._detect import calibrated

    about = run.about(
        title=f"{kind} heads",
        prompts=scores.attrs["prompts_sha256"],
        references=scores.attrs["references"],
    )
    scores.attrs.update(about)
    heads = calibrated(scores, seed=seed)
    run.save(scores=scores, heads=heads)
    draw(run, kind, scores, heads)
    run.finish()


def draw(run: Run, kind: str, scores, heads) -> None:
    """Draw the heads of a type and, for needles, how often the model was right at each length."""
    from nnheads import plot
    from nnheads.detectors._accuracy_map import accuracy_map

    cases = scores.sizes["batch"]
    run.picture("heads", map_of_heads(kind, heads, cases))
    accuracy = accuracy_map(scores)
    if accuracy is not None:
        note = plot.note(heads, cases)
        run.picture("accuracy", plot.accuracy(accuracy, title=f"Answers: {kind}", note=note))


def map_of_heads(kind: str, heads, cases: int):
    """Return a picture of the headline statistic of a type, with its strongest heads marked."""
    from nnheads import plot

    headline = heads[heads.attrs["headline"]]
    best = best_heads(heads, MARKED)
    return plot.heatmap(
        headline,
        title=f"{kind} heads",
        signed=bool(headline.min() < 0),
        marked=[flagged(heads, head) for head in best],
        framed=f"the {len(best)} highest",
        note=plot.note(heads, heads.attrs.get("cases_counted", cases)),
    )

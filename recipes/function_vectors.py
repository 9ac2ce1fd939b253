"""Which heads carry a task that examples show, and does their sum make the model do it alone?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from nnheads.recipes import _function_vectors, _function_vectors_report
from nnheads.recipes._checks import check_at_least
from nnheads.recipes._function_vectors_prompts import Trial, prompt_sets, wanted_tasks
from nnheads.recipes._study import Study, study

from nnheads.errors import BadInput

FEWEST = 2  # prompts of each task, to tell whether the model does it

Tasks = Annotated[Path | None, typer.Option(help="Your own: JSON lines with task, input, output.")]
Question = Annotated[
    str | None, typer.Option(help=r"How a question is written: 'Q: {}\nA:' unless given.")
]
Answer = Annotated[str | None, typer.Option(help="How its answer is written: ' {}' unless given.")]
Gap = Annotated[
    str | None, typer.Option(help=r"What stands between examples: '\n\n' unless given.")
]
Shots = Annotated[int, typer.Option(help="Examples in each prompt.")]
Averaged = Annotated[
    int, typer.Option(help="Prompts of each task that head outputs are averaged over.")
]
Top = Annotated[int, typer.Option(help="How many heads make up the function vector.")]
Limit = Annotated[int, typer.Option("--limit", "-n", help="Trials of each task.")]


@study(batch_size=50, quick={"limit": 3, "averaged": 5, "shots": 5})
def main(
    study: Study,
    tasks: Tasks = None,
    question: Question = None,
    answer: Answer = None,
    gap: Gap = None,
    shots: Shots = 10,
    averaged: Averaged = 50,
    top: Top = 10,
    limit: Limit = 25,
) -> None:
    """Which heads carry a task that examples show?

    Head outputs, averaged over prompts with examples, are put into prompts with shuffled examples,
    one head at a time. The best heads' sum, the function vector, is added to prompts without
    examples, of words that were never shown. Writes scores.nc (per case), heads.nc (layer, head),
    vectors.nc, zero_shot.nc, heads.png and zero_shot.png.
    """
    from nnheads.prompts.shot_tasks import audited, read_tasks
    from nnheads.runs.provenance import prompts_hash

    check_at_least(1, shots=shots, averaged=averaged)
    if averaged < FEWEST:
        raise BadInput(
            f"--averaged {averaged} is too few to tell whether the model does a task; use at"
            f" least {FEWEST}"
        )
    read = None if tasks is None else read_tasks(tasks)
    check_top(study)
    wanted, layout = wanted_tasks(study, read)
    kept, dropped = audited(study.model.tokenizer, wanted, layout, shots)
    sets = prompt_sets(study, kept, layout)
    run = study.open(**{f"{name}_sha256": prompts_hash(one) for name, one in sets.items()})
    if not run.complete:
        _function_vectors.compute(Trial(study, run, sets), dropped)
    _function_vectors_report.report(run)


def check_top(study: Study) -> None:
    """Refuse a function vector of all heads, which leaves none to compare with."""
    from nnheads.models.geometry import geometry

    sizes = geometry(study.model)
    count = sizes.layers * sizes.heads
    if study.top >= count:
        raise BadInput(f"--top {study.top} leaves no head to compare with; this model has {count}")

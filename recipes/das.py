"""Where does a model hold a variable?

Train an interchange at every layer and position, beside its controls.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from nnheads.recipes import _das, _das_report
from nnheads.recipes._study import Study, study

Task = Annotated[str, typer.Option(help="A causal model that ships: ioi or parity.")]
Variable = Annotated[str | None, typer.Option(help="Its variable, e.g. position, state or answer.")]
Pairs = Annotated[
    Path | None, typer.Option(help="Pairs of your own: .jsonl with base, source and answer.")
]
At = Annotated[
    str | None,
    typer.Option(help="Where to look: roles or positions, e.g. S2,END or -1,-2; own pairs: -1."),
]
Site = Annotated[str, typer.Option(help="resid_post, resid_pre, z, attn_out, mlp_out, ...")]
Layers = Annotated[
    str | None, typer.Option(help="Which layers, e.g. 0,2,5-8; default: at most 6, spread.")
]
Kind = Annotated[str, typer.Option(help="What is trained: das, lowrank, boundless or mask.")]
Directions = Annotated[
    int | None, typer.Option(help="How many; default 1, for boundless and mask all.")
]
Steps = Annotated[int, typer.Option(help="Steps of training at each position.")]
StepPairs = Annotated[int, typer.Option(help="Pairs in each step.")]
LearningRate = Annotated[float, typer.Option(help="Of rotations (Adam).")]
Patience = Annotated[
    int | None,
    typer.Option(help="Stop after so many measurements (one in ten steps) without improvement."),
]
Limit = Annotated[int, typer.Option("--limit", "-n", help="How many pairs to train on, at most.")]
Test = Annotated[int, typer.Option(help="How many other pairs to test on, at most.")]


@study(
    without=("remote", "submit"), quick={"limit": 32, "test": 12, "steps": 5, "step_pairs": 8}
)  # training needs gradients, which stay on this machine
def main(
    study: Study,
    task: Task = "ioi",
    variable: Variable = None,
    pairs: Pairs = None,
    at: At = None,
    site: Site = "resid_post",
    layers: Layers = None,
    kind: Kind = "das",
    directions: Directions = None,
    steps: Steps = 30,
    step_pairs: StepPairs = 16,
    learning_rate: LearningRate = 0.01,
    patience: Patience = None,
    limit: Limit = 128,
    test: Test = 64,
) -> None:
    """Where does a model hold a variable?

    A causal model says how an answer comes about, and what it would be had a variable the value
    that it has in another prompt. At layers and positions, directions are trained along which an
    interchange between the two prompts gives that answer (DAS), and tested on pairs that were never
    trained on, beside four controls: trained on shuffled answers, random directions, the whole
    site, and no intervention. Writes scores.nc (batch, layer, place), places.nc (layer, place),
    places.png, and the best place as an intervention in a folder. Training needs gradients, so it
    runs here and not on other machines.
    """
    from nnheads.runs.folder import item_of

    search = _das.search_of(study)
    where = (",".join(search.positions), str(search.layers))
    run = study.open(
        item=item_of(search.pairs.name, site, kind, *where, str(directions)),
        pairs_sha256=search.pairs.digest,
    )
    if not run.complete:
        _das.compute(run, search)
    _das_report.report(run)

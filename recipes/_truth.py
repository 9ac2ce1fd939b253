"""The options for probes on true and false statements."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from nnheads.errors import BadInput

Data = Annotated[
    str | None,
    typer.Option(
        help=(
            "Truthfulness: TruthfulQA CSV, mc_task.json, JSON lines, Hub data set, or reference"
            " (default)."
        )
    ),
]
Template = Annotated[
    str | None,
    typer.Option(help="Truthfulness: how a statement is written ('Q: {question} A: {answer}')."),
]
NumFold = Annotated[int | None, typer.Option(help="Truthfulness: folds of questions (2).")]
NumHeads = Annotated[
    int | None, typer.Option(help="Truthfulness: heads in the list, best first (100).")
]
ValRatio = Annotated[
    float | None, typer.Option(help="Truthfulness: share of a fold that heads are chosen by (0.2).")
]

SEED = 42  # of the folds, as in the published code, so that they are the same
DEFAULTS = {"num_fold": 2, "num_heads": 100, "val_ratio": 0.2}


def options_of(arguments: Mapping[str, Any], applies: bool) -> dict[str, Any]:
    """Return what truthfulness prompts are drawn with, from the command line.

    applies: whether truthfulness is among the head types; otherwise every such option is refused.
    """
    options = {name: arguments[name] for name in ("data", "template", *DEFAULTS)}
    used = [name for name, value in options.items() if value is not None]
    if used and not applies:
        raise BadInput(
            f"--{used[0].replace('_', '-')} is for truthfulness; {arguments['head_type']!r} is"
            " another type"
        )
    chosen = {
        name: DEFAULTS.get(name) if options[name] is None else options[name] for name in options
    }
    return chosen | {"fold_seed": SEED if arguments["seed"] is None else arguments["seed"]}

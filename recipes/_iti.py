"""The options that the commands of `nnheads iti` share, and what is refused of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nnheads.errors import BadInput

if TYPE_CHECKING:
    from nnheads.recipes._study import Study

REFERENCES = "Li et al. 2023, arXiv 2306.03341; Lin et al. 2022, arXiv 2109.07958"
ALPHAS, HEADS = "1,4,15", "8,48"
SEED = 42  # of the folds, as in the published code, so that they are the same
SAMPLES = 8  # questions that are answered in words
QUICK = {"limit": 8, "alpha": "8", "heads": "8"}
QUICK_EVALUATION = {**QUICK, "draws": 1, "samples": 2, "new_tokens": 8}
LARGEST = 1e6  # below which numbers of a list have to be

Data = Annotated[
    str | None,
    typer.Option(
        help="TruthfulQA CSV, mc_task.json, JSON lines, Hub data set, or reference (its default)."
    ),
]
Template = Annotated[
    str | None, typer.Option(help='Holds question and answer; default "Q: {question} A: {answer}".')
]
Kind = Annotated[
    str,
    typer.Option(
        "--direction", help="mass_mean (center of mass), probe (its weights), pca or random."
    ),
]
Scope = Annotated[
    str,
    typer.Option(
        help=(
            "Positions: all, answering (all that predict the answer), answer, decode (as it is"
            " written; of answers that are given, the same as answer), prompt, last."
        )
    ),
]
Alpha = Annotated[
    str,
    typer.Option(
        help="Strengths, in standard deviations; of several, validation questions choose one."
    ),
]
Heads = Annotated[
    str,
    typer.Option(
        help="How many heads, at most half of all; of several, validation questions choose one."
    ),
]
FoldNumber = Annotated[
    int, typer.Option(min=0, help="The fold whose test questions are left alone.")
]
Folds = Annotated[int, typer.Option(help="Parts of the questions; each is once the test part.")]
ValRatio = Annotated[
    float, typer.Option(help="Share of a fold's other questions that heads are chosen by.")
]
Draws = Annotated[
    int, typer.Option(min=0, help="Random directions, and random heads, to compare with.")
]
Limit = Annotated[
    int | None, typer.Option("--limit", "-n", help="Only the first so many questions.")
]
Neutral = Annotated[
    Path | None, typer.Option(help="Texts that the edit should not touch, one a line.")
]
Samples = Annotated[int, typer.Option(min=0, help="Test questions that are answered in words.")]
NewTokens = Annotated[int, typer.Option(help="How many tokens to write at most.")]
Judge = Annotated[
    str | None,
    typer.Option(help="Says whether answers are true: a Hub id, a folder, or openai:NAME."),
]
InfoJudge = Annotated[str | None, typer.Option(help="Says whether they are informative, likewise.")]
Tested = Annotated[
    str | None,
    typer.Option(
        "--intervention",
        help="Test this edit on all questions instead (transfer): a folder or a Hub id.",
    ),
]
Saved = Annotated[
    str | None,
    typer.Option("--intervention", help="A folder or Hub id; default: what `iti fit` saved here."),
]
Prompt = Annotated[
    str | None, typer.Option(help="What the model continues; default: test questions.")
]
Prompts = Annotated[Path | None, typer.Option(help="Prompts to continue, one a line.")]
Temperature = Annotated[float | None, typer.Option(help="Draw tokens; default: the likeliest.")]
TopP = Annotated[float | None, typer.Option(help="Draw from the likeliest tokens with this share.")]
Push = Annotated[
    str | None, typer.Option(help="Also upload it to this Hub repository, owner/name.")
]
Private = Annotated[bool, typer.Option("--private", help="Make the Hub repository private.")]
To = Annotated[
    Path | None, typer.Option("--to", help="Folder to write; default: inside the results.")
]


def check(study: Study) -> None:
    """Refuse what no model could be asked, before one is loaded."""
    from nnheads.recipes._checks import check_choice

    from nnheads.truth.directions import KINDS
    from nnheads.truth.iti import SCOPES

    for name, known in (("direction", KINDS), ("scope", SCOPES)):
        if name in study.arguments:  # not every command has both
            check_choice(f"--{name}", study.arguments[name], known)


def check_lists(study: Study) -> None:
    """Refuse strengths and numbers of heads that are none."""
    numbers_in(study.alpha, "alpha")
    numbers_in(study.heads, "heads", whole=True)


def numbers_in(text: str, name: str, whole: bool = False) -> list[Any]:
    """Return `1,2.5,4` as [1.0, 2.5, 4.0], in order, each once.

    name: of the option, for the error. whole: counts, from 1 on.
    """
    try:
        numbers = sorted({(int if whole else float)(piece) for piece in text.split(",")})
    except ValueError:
        numbers = []
    finite = all(abs(number) < LARGEST for number in numbers)
    if not numbers or not finite or (whole and min(numbers) < 1):
        example = "4,16,48 (counts begin at 1)" if whole else "5,10,15"
        what = "counts" if whole else "numbers"
        raise BadInput(f"--{name} {text!r} is no list of {what}; write {example}")
    return numbers


def counts_in(text: str, heads: int) -> list[int]:
    """Return numbers of heads, at most half of all, so that as many others remain to compare."""
    counts, most = numbers_in(text, "heads", whole=True), max(1, heads // 2)
    if text != HEADS and max(counts) > most:
        raise BadInput(
            f"--heads {max(counts)} is more than half of the {heads} heads of this model; at most"
            f" {most} leave as many others to compare with"
        )
    return sorted({min(count, most) for count in counts})

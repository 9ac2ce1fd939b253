"""What the commands of `nnheads iti` share: options, questions and texts, and the edit that they
act on.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import typer
from nnheads.recipes import _options as options
from nnheads.recipes import _steer

REFERENCES = "Li et al. 2023, arXiv 2306.03341; Lin et al. 2022, arXiv 2109.07958"
ALPHAS, HEADS = "0.5,1,2,4,8,15", "4,8,16,48"
SEED = 42  # of the folds, as in the published code, so that they are the same
ASKED = 8  # questions that are answered as samples

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
            " written), prompt, last."
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
Folds = Annotated[int, typer.Option(help="Parts of the questions; each is once the test part.")]
ValRatio = Annotated[
    float, typer.Option(help="Share of a fold's other questions that heads are chosen by.")
]
Limit = Annotated[
    int | None, typer.Option("--limit", "-n", help="Only the first so many questions.")
]
Neutral = Annotated[
    Path | None, typer.Option(help="Texts that the edit should not touch, one a line.")
]
Saved = Annotated[
    str | None,
    typer.Option("--intervention", help="A folder or Hub id; default: what `iti fit` saved here."),
]
Push = Annotated[
    str | None, typer.Option(help="Also upload it to this Hub repository, owner/name.")
]
Private = Annotated[bool, typer.Option("--private", help="Make the Hub repository private.")]
To = Annotated[
    Path | None, typer.Option("--to", help="Folder to write; default: inside the results.")
]


def weights(arguments: dict, where: bool | str) -> tuple:
    """What `options.load` is asked for; a checkpoint is only baked from whole weights."""
    names = ("model", "revision", "dtype", "device_map")
    return (*(arguments[name] for name in names), where, arguments.get("quantization"))


def check(arguments: dict) -> None:
    """Refuse what no model could be asked before one is loaded."""
    from nnheads.errors import BadInput
    from nnheads.truth.directions import KINDS
    from nnheads.truth.iti import SCOPES

    options.positive(batch_size=arguments["batch_size"])
    if arguments["limit"] is not None:
        options.positive(limit=arguments["limit"])
    for name, known in (("direction", KINDS), ("scope", SCOPES)):
        if arguments.get(name) is not None and arguments[name] not in known:
            raise BadInput(
                f"--{name} {arguments[name]!r} is not known; use one of {', '.join(known)}"
            )


def numbers_in(text: str, name: str, whole: bool = False) -> list:
    """`1,2.5,4` -> [1.0, 2.5, 4.0], in order, each once."""
    from nnheads.errors import BadInput

    try:
        found = sorted({(int if whole else float)(piece) for piece in text.split(",")})
    except ValueError:
        found = []
    if not found or not all(abs(one) < 1e6 for one in found) or (whole and min(found) < 1):
        example = "4,16,48" if whole else "5,10,15"
        raise BadInput(
            f"--{name} {text!r} is no list of {'counts' if whole else 'numbers'}; write {example}"
        )
    return found


def counts_in(text: str, heads: int) -> list[int]:
    """Numbers of heads, at most half of all, so that as many others remain to compare with."""
    return sorted(
        {min(count, max(1, heads // 2)) for count in numbers_in(text, "heads", whole=True)}
    )


def read(arguments: dict) -> tuple:
    """The questions, what was left out of them, and the name of their source."""
    from nnheads.errors import BadInput
    from nnheads.models.shipped import REFERENCE
    from nnheads.prompts.truth import read_questions

    source = arguments["data"]
    if source is None and arguments["model"] != REFERENCE:
        raise BadInput(
            "--data is needed: a TruthfulQA CSV, mc_task.json, JSON lines or a Hub data set"
            " (tqa_mc2)"
        )
    source = REFERENCE if source is None else source
    questions, dropped = read_questions(source, limit=arguments["limit"])
    return questions, dropped, str(source)


def laid_out(tokenizer, arguments: dict, questions, dropped: dict, source: str) -> tuple:
    """Questions whose words the tokenizer knows, and their statements, numbered alike."""
    from nnheads.prompts.truth import statements, template_for

    template = arguments["template"] or template_for(source)
    prompts = statements(tokenizer, questions, template=template, dropped=dropped)
    known = sorted(set(prompts["question"].values.tolist()))
    if len(known) < len(questions):
        questions = tuple(questions[number] for number in known)
        left_out = prompts.attrs["dropped"]
        prompts = statements(tokenizer, questions, template=template).assign_attrs(dropped=left_out)
    return questions, prompts


def neutral_of(arguments: dict) -> list[str]:
    """Texts that say nothing of the questions: from a file, of the reference's own world, or our
    own.
    """
    from nnheads.models.shipped import REFERENCE

    if arguments["neutral"] is not None:
        return _steer.lines_of(arguments["neutral"])
    if arguments["model"] == REFERENCE:
        return _steer.own_world(0)["neutral"]
    return list(_steer.NEUTRAL)


def digest(*parts) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

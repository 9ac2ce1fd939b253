"""Which model families are known, and how sure is that? The proof of one, line by line."""

from __future__ import annotations

from typing import Annotated

import typer
from nnheads.recipes._options import Traceback
from nnheads.recipes._terminal import say

from nnheads.errors import ModelError

Name = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL]", help="A model as for other commands, or a type that transformers knows."
    ),
]
Every = Annotated[
    bool, typer.Option("--all", help="Try every causal type that transformers has: minutes.")
]


def main(name: Name = None, every: Every = False, traceback: Traceback = False) -> None:
    """Which model families are known, and how sure is that?

    Without a model it lists the table. With one it builds a small random copy, finds where
    attention, heads, norms and the residual stream are (of families outside the table from one run
    of the copy), and holds that against plain PyTorch, line by line. Exit code 2 if a line does not
    hold. Every command takes a model of which all lines hold, and proves it when it loads it first.
    """
    from nnheads.models.families import FAMILIES
    from nnheads.models.proven import told_of

    if every:
        say_all()
        return
    if name is None:
        for kind in sorted(FAMILIES):
            say(kind)
        return
    config = config_of(name)
    told = told_of(config)
    for line in told.lines:
        say(f"{'FAILS' if line.failure else 'holds'}  {line.says}")
        if line.failure:
            say(f"       {line.failure}")
    if told.refusal:
        raise ModelError(f"model family {config.model_type!r}: {told.refusal}")
    inside = config.model_type in FAMILIES
    say(
        f"{config.model_type}: {'in the table' if inside else 'derived from the model'}, and proven"
    )


def config_of(name: str):
    """Return the configuration of a model, or the usual one of a type that transformers knows."""
    from nnheads.models.load import configuration
    from nnheads.models.proven import types, usual

    return usual(name) if name in types() else configuration(name)


def say_all() -> None:
    """Print for every causal type of transformers whether it is proven, or why not."""
    from nnheads.models.proven import told_of, types, usual

    proven = 0
    for kind in types():
        try:
            refusal = told_of(usual(kind)).refusal
        except ModelError as error:
            refusal = str(error)
        proven += not refusal
        say(f"{kind}: {refusal or 'proven'}")
    say(f"{proven} of {len(types())} types are proven")

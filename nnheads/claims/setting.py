"""What the measures of claims have in common: how they run, and the prompts that a claim names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from nnheads.errors import BadInput


class Unavailable(Exception):
    """What a claim needs is not here; it is skipped, and the text says why."""


@dataclass(frozen=True)
class Setting:
    """How all measurements are made. files: a folder of published lists."""

    batch_size: int = 8
    seed: int = 0
    quiet: bool = True
    files: Path | None = None


def pairs_of(
    model, setting: Setting, pairs: list[dict] | None = None, limit: int | None = None
) -> xr.Dataset:
    """Return pairs of clean and corrupted sentences: those that are written out, or drawn ones."""
    from nnheads.prompts.ioi import ioi
    from nnheads.prompts.pair import Pair
    from nnheads.prompts.pairs import tokenize

    if pairs is None:
        return ioi(model.tokenizer, limit or 32, seed=setting.seed)
    _check_pairs(pairs)
    return tokenize(model.tokenizer, [Pair(**one) for one in pairs])


def _check_pairs(pairs: list[dict]) -> None:
    names = ("clean", "corrupted", "answer", "wrong")
    if not all(isinstance(one, dict) and set(one) == set(names) for one in pairs):
        raise BadInput(f"pairs are objects with {', '.join(names)}")


def statements_of(model, data: str, template: str | None, limit: int | None) -> xr.Dataset:
    """Return statements made of questions with true and false answers.

    Raises:
        Unavailable: questions that cannot be read here.
    """
    from nnheads.prompts.statements import statements
    from nnheads.prompts.truth import read_questions, template_for

    try:
        questions, dropped = read_questions(data, limit=limit)
    except BadInput as error:
        raise Unavailable(str(error)) from None
    template = template or template_for(data)
    return statements(model.tokenizer, questions, template=template, dropped=dropped)


def in_batches(
    model, setting: Setting, prompts: xr.Dataset, scores: Callable[[xr.Dataset], xr.Dataset]
) -> xr.Dataset:
    """Return the scores of all prompts, of which so many run at a time."""
    from nnheads.runs import batches

    return batches.run(
        scores,
        prompts,
        size=setting.batch_size,
        parts=None,
        name="claims",
        title="claims",
        quiet=setting.quiet,
        model=model,
    )

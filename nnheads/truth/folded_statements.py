"""The statements on which truthfulness heads are looked for, with the folds of their questions."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from nnheads.errors import BadInput
from nnheads.prompts.statements import statements
from nnheads.prompts.truth import REFERENCE, knows_reference, read_questions, template_for
from nnheads.truth.folds import PARTS, TooFew, folds, parts_of

NEEDS_DATA = (
    "truthfulness needs questions with true and false answers; give --data (a TruthfulQA CSV,"
    " mc_task.json, ...)"
)


def truth(
    tokenizer,
    n: int | None = None,
    *,
    seed: int = 0,
    data: str | Path | None = None,
    template: str | None = None,
    num_fold: int = 2,
    num_heads: int = 100,
    val_ratio: float = 0.2,
    fold_seed: int = 42,
) -> xr.Dataset:
    """Return statements of the first n questions (default: all) with their folds.

    Args:
        seed: recorded; statements and folds do not depend on it.
        data: see `prompts.truth.read_questions`; default: the reference model's own questions, of
            which the true answer and the misconception are taken, where the tokenizer knows their
            words.
        template: how a statement is written, see `prompts.statements.statements`; default: as
            `data` wants it.
        num_fold, val_ratio, fold_seed: see `folds.folds`.
        num_heads: how many heads are chosen in the end.

    Returns:
        `token`, `mask` (batch, position), `label`, `question` (batch), `part` (batch, fold);
        coordinates of `prompts.statements.statements`.

    Raises:
        BadInput: no data where they are needed, or anything that `read_questions`, `statements` or
            `folds` refuse.
    """
    if num_heads < 1:
        raise BadInput(f"{num_heads} heads cannot be chosen; at least 1")
    source = _source(tokenizer, data)
    questions, dropped = read_questions(source, limit=n)
    prompts = statements(
        tokenizer,
        questions,
        template=template or template_for(source),
        seed=seed,
        most=1 if str(source) == REFERENCE else None,  # as many true as false ones
        dropped=dropped,
    )
    try:
        cut = folds(len(questions), num_fold, seed=fold_seed, val_ratio=val_ratio)
    except TooFew as error:  # among several types and options, which of them asks for more
        raise TooFew(f"truthfulness: {error}; --limit is the number of questions") from None
    part = parts_of(prompts["question"].values, cut)
    # as variables they are part of what makes two sets of prompts the same
    prompts = prompts.reset_coords(["label", "question"])
    prompts["part"] = (("batch", "fold"), part, {"long_name": PARTS})
    return prompts.assign_attrs(num_heads=num_heads, fold_seed=fold_seed, val_ratio=val_ratio)


def _source(tokenizer, data: str | Path | None) -> str | Path:
    """Return the file of questions, or the reference model's own where it knows their words."""
    if data is not None:
        return data
    if not knows_reference(tokenizer):
        raise BadInput(NEEDS_DATA)
    return REFERENCE

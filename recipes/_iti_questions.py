"""Questions, their statements and neutral texts, as `nnheads iti` reads them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nnheads.recipes import _steer

from nnheads.errors import BadInput

if TYPE_CHECKING:
    import xarray as xr
    from nnheads.recipes._study import Study

    from nnheads.prompts.truth import Question


@dataclass(frozen=True)
class Questions:
    """Questions, why others were dropped, and the name of the source that they are from."""

    questions: tuple[Question, ...]
    dropped: dict[str, int]
    source: str

    def texts(self) -> list[str]:
        """Return the questions as they are asked."""
        return [one.question for one in self.questions]


def read(study: Study) -> Questions:
    """Return the questions that `--data` names; the reference model has its own."""
    from nnheads.models.shipped import REFERENCE
    from nnheads.prompts.truth import read_questions

    source = study.data
    if source is None and study.name != REFERENCE:
        raise BadInput(
            "--data is needed: a TruthfulQA CSV, mc_task.json, JSON lines or a Hub data set"
            " (tqa_mc2)"
        )
    source = REFERENCE if source is None else source
    questions, dropped = read_questions(source, limit=study.limit)
    return Questions(questions, dropped, str(source))


def statements_of(tokenizer, study: Study, read: Questions) -> tuple[Questions, xr.Dataset]:
    """Return questions whose words the tokenizer knows, and their statements, numbered alike."""
    from nnheads.prompts.statements import statements
    from nnheads.prompts.truth import template_for

    template = study.template or template_for(read.source)
    prompts = statements(tokenizer, read.questions, template=template, dropped=read.dropped)
    known = sorted(set(prompts["question"].values.tolist()))
    if len(known) == len(read.questions):
        return read, prompts
    kept = replace(read, questions=tuple(read.questions[number] for number in known))
    renumbered = statements(tokenizer, kept.questions, template=template)
    return kept, renumbered.assign_attrs(dropped=prompts.attrs["dropped"])


def neutral_of(study: Study) -> list[str]:
    """Return texts that say nothing of the questions: of a file, of the reference's own world, or
    ours.
    """
    from nnheads.models.shipped import REFERENCE

    if study.neutral is not None:
        return _steer.lines_of(study.neutral)
    if study.name == REFERENCE:
        return _steer.own_world(0)["neutral"]
    return list(_steer.NEUTRAL)


def digest(*parts: object) -> str:
    """Return a short hash of what the parts print as."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

"""What a model answers with and without an edit, side by side, and what judges say of it.

table = answers(model, [(question, change)], template="Q: {question}\\nA: {answer}")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from nnheads.interventions.generate import generate
from nnheads.interventions.schema import Intervention
from nnheads.interventions.texts import read_texts
from nnheads.prompts.questions import Question
from nnheads.truth.contrasts import EDIT, NONE
from nnheads.truth.judges import Judge, judged

JUDGED = {
    "true": "probability that the judge calls it true",
    "informative": "probability that it calls it informative",
}
BEGINS = "1: begins with a true answer, -1: with a false one, 0: with neither"
DIMS = ("condition", "sample")
Edited = Sequence[tuple[Question, Intervention]]


def answers(
    model,
    edited: Edited,
    *,
    template: str,
    new_tokens: int = 20,
    sample: dict[str, Any] | None = None,
    judges: Mapping[str, Judge] | None = None,
    batch_size: int = 16,
) -> xr.Dataset:
    """Let the model answer each question without edits, and with the edit beside it.

    Args:
        edited: questions, each with an edit of its own: a question's edit must not have been fitted
            on it.
        template: its part before {answer} is the prompt.
        new_tokens, sample: as for `interventions.generate`.
        judges: "true" and "informative" -> judge; either may be missing.

    Returns:
        (condition, sample), conditions "none" and "edit": `written`, up to the end of its line or
        the next question; `begins`, 1 where that begins with one of the question's true answers, -1
        with a false one, 0 with neither; the judges' probabilities `true` and `informative`.
        Coordinate `question_text` (sample).
    """
    texts = _written(model, edited, template, batch_size, new_tokens=new_tokens, sample=sample)
    begins = [
        [begins_with(text, question) for text, (question, _) in zip(own, edited)]
        for own in texts.values()
    ]
    written = np.array(list(texts.values()), object)
    questions = [question.question for question, _ in edited]
    data: dict[str, Any] = {
        "written": (DIMS, written, {"long_name": "what is written"}),
        "begins": (DIMS, np.array(begins, np.int8), {"long_name": BEGINS, "units": "1"}),
    }
    for about, judge in (judges or {}).items():
        verdicts = [judged(judge, questions, own, about) for own in texts.values()]
        data[about] = (DIMS, np.stack(verdicts), {"long_name": JUDGED[about], "units": "1"})
    return xr.Dataset(data, {"condition": list(texts), "question_text": ("sample", questions)})


def _written(
    model, edited: Edited, template: str, batch_size: int, **options: Any
) -> dict[str, list[str]]:
    """Return what is written without edits and with them, one edit after another."""
    texts: dict[str, list[str]] = {NONE: [""] * len(edited), EDIT: [""] * len(edited)}
    for change in {id(change): change for _, change in edited}.values():
        own = [number for number, (_, other) in enumerate(edited) if other is change]
        for first in range(0, len(own), batch_size):
            part = own[first : first + batch_size]
            asked = [prompt_of(template, edited[number][0].question) for number in part]
            new = generate(model, change, read_texts(model.tokenizer, asked), **options)
            for number, before, after in zip(part, new.original_texts or (), new.texts):
                texts[NONE][number], texts[EDIT][number] = cut(before), cut(after)
    return texts


def prompt_of(template: str, question: str) -> str:
    """Return a question as it is asked: all that stands before the answer."""
    return template.partition("{answer}")[0].replace("{question}", question).rstrip()


def cut(text: str) -> str:
    """Return an answer up to where the next question begins, or to the end of its line."""
    return text.strip().partition("\n")[0].partition("Q:")[0].strip()


def begins_with(text: str, question: Question) -> int:
    """Return 1 if a text begins with a true answer, -1 if with a false one, 0 if with neither."""
    beginning = text.strip().casefold()
    for value, known in ((1, question.true), (-1, question.false)):
        if any(beginning.startswith(_plain(answer)) for answer in known):
            return value
    return 0


def _plain(answer: str) -> str:
    return answer.strip().rstrip(".").casefold()

"""Statements made of questions and answers: "Q: ... A: ...", true or false.

    prompts = statements(tokenizer, questions, template="Q: {question} A: {answer}")

One row for each answer, in which the answer's own tokens are known. Questions with words that the
tokenizer does not know are left out and counted; BadInput is raised if none is left.
Source: Li et al. 2023, arXiv 2306.03341 (the form of a statement).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from nnheads.errors import BadInput
from nnheads.models.texts import encode_with_offsets, prefix
from nnheads.prompts.checks import check_count
from nnheads.prompts.questions import Question
from nnheads.prompts.tokens import token_variables
from nnheads.spans.characters import covering

TEMPLATE = "Q: {question} A: {answer}"
UNKNOWN = "questions with words unknown to the tokenizer, left out"
# coordinates and what they say; each is a field of Row
NUMBERS = {
    "question": "number of the question",
    "label": "1 where the answer is true, 0 where it is false",
    "is_best": "1 at the best answer",
    "prompt_length": "tokens before the answer",
    "answer_length": "tokens that hold some of the answer",
}


@dataclass(frozen=True)
class Row:
    """One statement as tokens, before padding; the numbers are those of NUMBERS."""

    question: int
    label: int
    is_best: int
    prompt_length: int
    answer_length: int
    answer: str
    ids: list[int]


def statements(
    tokenizer,
    questions: Sequence[Question],
    *,
    template: str = TEMPLATE,
    seed: int = 0,
    most: int | None = None,
    dropped: Mapping[str, int] | None = None,
) -> xr.Dataset:
    """Lay out one row for each answer of each question, in their order: true ones, then false ones.

    Args:
        template: holds {question} and, after it, {answer}, once each.
        seed: of the answers that are drawn.
        most: at most so many true and so many false answers of a question: the best one (of the
            false ones, the first), and others drawn by `seed`. Default: all.
        dropped: what `read_questions` left out, to be kept in attrs.

    Returns:
        `token`, `mask` (batch, position), padded on the left. Coordinates (batch): `question` (its
        number), `label` (1 true, 0 false), `is_best`, `prompt_length` (tokens before the answer),
        `answer_length` (tokens that hold some of the answer), `answer_text`. attrs: `template`,
        `seed`, `dropped` (JSON), `questions`.

    Raises:
        BadInput: a template without its two places, a blank answer, or a tokenizer that knows the
            words of no question.
    """
    check_template(template)
    if most is not None:
        check_count(most, "answers of a question")
    reasons, rows = Counter(dropped or {}), []
    generator, unknown = np.random.default_rng(seed), _unknown(tokenizer)
    for number, question in enumerate(questions):
        answers = _answers(question, most, generator)
        own = [_row(tokenizer, template, number, question, *answer) for answer in answers]
        if any(unknown in row.ids for row in own):
            reasons[UNKNOWN] += 1
        else:
            rows += own
    if not rows:
        raise BadInput(
            f"This tokenizer does not know the words of any of {len(questions)} questions. Give"
            " others with --data."
        )
    return _laid_out(tokenizer, rows).assign_attrs(
        title="true and false statements",
        template=template,
        seed=seed,
        dropped=json.dumps(dict(reasons)),
        questions=len(questions),
    )


def _unknown(tokenizer) -> int | None:
    """Return the token for unknown words, unless every text has it, as some tokenizers begin so."""
    token = getattr(tokenizer, "unk_token_id", None)
    return None if token in prefix(tokenizer) else token


def check_template(template: str) -> None:
    """Refuse a template that does not hold {question} and then {answer}, once each."""
    question, answer = "{question}", "{answer}"
    bare = template.replace(question, "").replace(answer, "")
    once = template.count(question) == 1 == template.count(answer)
    braces = "{" in bare or "}" in bare
    if not once or braces or template.index(question) > template.index(answer):
        raise BadInput(
            f"Not a template: {template!r}. It must hold {{question}} and after it {{answer}}, and"
            " no other brace."
        )


def _answers(
    question: Question, most: int | None, generator: np.random.Generator
) -> list[tuple[int, str]]:
    """Return the answers that make statements, with their labels: true ones, then false ones."""
    true = _chosen(question.true, question.best, most, generator)
    false = _chosen(question.false, question.false[0], most, generator)
    return [*((1, answer) for answer in true), *((0, answer) for answer in false)]


def _chosen(
    answers: tuple[str, ...], first: str, most: int | None, generator: np.random.Generator
) -> Sequence[str]:
    """Return all answers, or the first of them and some others."""
    if most is None or len(answers) <= most:
        return answers
    others = [answer for answer in answers if answer != first]
    drawn = sorted(generator.choice(len(others), most - 1, replace=False))
    return [first, *(others[i] for i in drawn)]


def _row(tokenizer, template: str, number: int, question: Question, label: int, answer: str) -> Row:
    """Return a statement as tokens.

    A token that holds the end of the prompt and the beginning of the answer counts as the answer's.
    """
    if not answer.strip():
        raise BadInput(f"an answer of question {question.question!r} is blank")
    before, _, after = template.partition("{answer}")
    prompt = before.replace("{question}", question.question)
    ids, offsets = encode_with_offsets(tokenizer, prompt + answer + after)
    inside = covering(offsets, len(prompt), len(prompt) + len(answer))
    if not inside:
        raise BadInput(f"answer {answer!r} of question {question.question!r} holds no token")
    best = int(answer == question.best)
    return Row(number, label, best, inside[0], len(inside), answer, ids)


def _laid_out(tokenizer, rows: list[Row]) -> xr.Dataset:
    """Lay rows out as a dataset, padded on the left."""
    tokens, _ = token_variables([row.ids for row in rows], tokenizer)
    coordinates = {name: _coordinate(rows, name) for name in NUMBERS}
    texts = ("batch", [row.answer for row in rows])
    return xr.Dataset(tokens, {**coordinates, "batch": np.arange(len(rows)), "answer_text": texts})


def _coordinate(rows: list[Row], name: str) -> tuple[str, np.ndarray, dict[str, str]]:
    values = np.array([getattr(row, name) for row in rows], np.int32)
    return "batch", values, {"long_name": NUMBERS[name]}

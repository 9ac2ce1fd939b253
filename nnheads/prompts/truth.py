"""Questions with true and false answers, and the statements that they make: "Q: ... A: ...", true
or false.

`read_questions` takes every published form of TruthfulQA (see `truth_files.py`); `statements` lays
one row out for each answer, in which the answer's own tokens are known.
Sources: Lin et al. 2022, arXiv 2109.07958 (TruthfulQA); Li et al. 2023, arXiv 2306.03341 (the form
    of a statement).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from nnheads.errors import BadInput
from nnheads.prompts.questions import Question
from nnheads.spans.layout import encode, pad_left

TEMPLATE = "Q: {question} A: {answer}"
REFERENCE = "reference"
REFERENCE_TEMPLATE = "{question} {answer}"  # how the reference model was taught its facts


def read_questions(
    source: str | Path, *, limit: int | None = None
) -> tuple[tuple[Question, ...], dict]:
    """Questions from a file, the Hub or the reference model's own set, in their order.

    Args:
        source: a TruthfulQA CSV; its mc_task.json; JSON lines with question, true, false and best
            (or correct_answers, incorrect_answers, best_answer); a Hub data set `owner/name` or
            `owner/name:configuration`; or "reference".
        limit: only the first so many questions that can be used.

    Returns:
        The questions, no two alike, each with a true and a false answer; and what was merged or
        left out: reason -> count. A question that comes twice is merged with its first occurrence,
            so that no fold can split it.

    Raises:
        BadInput: a source that is missing or in another form, naming file and row; no question that
            can be used.
    """
    from nnheads.prompts.truth_files import records_of

    if limit is not None and limit < 1:
        raise BadInput(f"{limit} questions were asked for; ask for at least 1")
    if str(source) == REFERENCE:
        found, dropped = reference_questions(), Counter[str]()
    else:
        found, dropped = sound(records_of(source))
    if not found:
        raise BadInput(f"{source} holds no question with a true and a false answer")
    return found[:limit], dict(dropped)


def template_for(source: str | Path) -> str:
    """The template that a source is written for."""
    return REFERENCE_TEMPLATE if str(source) == REFERENCE else TEMPLATE


def knows_reference(tokenizer) -> bool:
    """Whether the reference model's invented names are words of this tokenizer: of others they mean
    nothing.
    """
    name = reference_questions()[0].question.split()[-2]
    ids = tokenizer(name, add_special_tokens=False)["input_ids"]
    return len(ids) == 1 and ids[0] != getattr(tokenizer, "unk_token_id", None)


def reference_questions() -> tuple[Question, ...]:
    """The 200 questions of the reference model; the misconception is the first of three false
    answers.
    """
    from nnheads.prompts import world

    return tuple(
        Question(q.text, (q.true,), (q.misconception, *q.others), q.true, q.relation)
        for q in world.questions()
    )


def sound(records: Sequence[Question]) -> tuple[tuple[Question, ...], Counter[str]]:
    """Records as written -> questions as promised by `read_questions`, and what was changed."""
    dropped: Counter[str] = Counter()
    merged: dict[str, Question] = {}
    for one in records:
        same = _key(one.question)
        first = merged.get(same)
        if first is None:
            merged[same] = one
        else:
            dropped["questions that came twice, merged"] += 1
            merged[same] = Question(
                first.question,
                first.true + one.true,
                first.false + one.false,
                first.best or one.best,
                first.category,
            )
    kept = [question for one in merged.values() if (question := _usable(one, dropped)) is not None]
    return tuple(kept), dropped


def _usable(one: Question, dropped: Counter[str]) -> Question | None:
    """The question with its answers told apart, or None where nothing is left to tell apart."""
    true, false = _distinct(one.true, dropped), _distinct(one.false, dropped)
    best = one.best.strip()
    if best and _key(best) not in true:
        dropped["best answers added to the true ones"] += 1
        true = {_key(best): best, **true}
    both = true.keys() & false.keys()
    dropped["answers both true and false, left out"] += len(both)
    true, false = (
        {key: text for key, text in side.items() if key not in both} for side in (true, false)
    )
    dropped += Counter()  # reasons that never came up
    if not true or not false:
        dropped[f"questions without a {'false' if true else 'true'} answer, left out"] += 1
        return None
    # the spelling in the list of true answers, so that `best` is one of them
    chosen = true.get(_key(best)) or next(iter(true.values()))
    return Question(one.question, tuple(true.values()), tuple(false.values()), chosen, one.category)


def _distinct(answers: Sequence[str], dropped: Counter[str]) -> dict[str, str]:
    """Answers by what they say, the first spelling of each."""
    found: dict[str, str] = {}
    for text in answers:
        if not text.strip():
            dropped["empty answers, left out"] += 1
        elif _key(text) in found:
            dropped["answers that came twice, left out"] += 1
        else:
            found[_key(text)] = text.strip()
    return found


def _key(text: str) -> str:
    """What makes two texts the same: not capitals, spaces or the full stop."""
    return " ".join(text.casefold().split()).rstrip(".").rstrip()


def statements(
    tokenizer,
    questions: Sequence[Question],
    *,
    template: str = TEMPLATE,
    seed: int = 0,
    most: int | None = None,
    dropped: Mapping[str, int] | None = None,
) -> xr.Dataset:
    """One row for each answer of each question, in their order: true ones, then false ones.

    Args:
        template: holds {question} and, after it, {answer}, once each.
        most: at most so many true and so many false answers of a question: the best one (of the
            false ones, the first), and others drawn by `seed`. Default: all.
        dropped: what `read_questions` left out, to be kept in attrs.

    Returns:
        `token`, `mask` (batch, position), padded on the left. Coordinates (batch): `question` (its
        number), `label` (1 true, 0 false), `is_best`, `prompt_length` (tokens before the answer),
        `answer_length` (tokens that
        hold some of the answer), `answer_text`. attrs: `template`, `seed`, `dropped` (JSON),
            `questions`.

    Raises:
        BadInput: a template without its two places, or a tokenizer that knows the words of no
            question.
    """
    check_template(template)
    if most is not None and most < 1:
        raise BadInput(f"{most} answers of a question were asked for; ask for at least 1")
    reasons, rows = Counter(dropped or {}), []
    generator, unknown = np.random.default_rng(seed), _unknown(tokenizer)
    for number, one in enumerate(questions):
        sides = ((1, one.true, one.best), (0, one.false, one.false[0]))
        own = [
            (
                number,
                label,
                int(answer == one.best),
                answer,
                *_tokens(tokenizer, template, one, answer),
            )
            for label, answers, first in sides
            for answer in _chosen(answers, first, most, generator)
        ]
        if any(unknown in row[4] for row in own):
            reasons["questions with words unknown to the tokenizer, left out"] += 1
        else:
            rows += own
    if not rows:
        raise BadInput(
            f"this tokenizer does not know the words of any of {len(questions)} questions"
        )
    return _laid_out(tokenizer, rows).assign_attrs(
        title="true and false statements",
        template=template,
        seed=seed,
        dropped=json.dumps(dict(reasons)),
        questions=len(questions),
    )


def _unknown(tokenizer) -> int | None:
    """The token that stands for unknown words, unless every text has it: some tokenizers begin with
    the same token.
    """
    token = getattr(tokenizer, "unk_token_id", None)
    return None if token in tokenizer("")["input_ids"] else token


def check_template(template: str) -> None:
    """Refuse a template that does not hold {question} and then {answer}, once each."""
    bare = template.replace("{question}", "").replace("{answer}", "")
    once = template.count("{question}") == 1 == template.count("{answer}")
    if (
        not once
        or "{" in bare
        or "}" in bare
        or template.index("{question}") > template.index("{answer}")
    ):
        raise BadInput(
            f"template {template!r} must hold {{question}} and after it {{answer}}, and no other"
            " brace"
        )


def _chosen(
    answers: tuple[str, ...], first: str, most: int | None, generator: np.random.Generator
) -> Sequence[str]:
    """All answers, or the first of them and some others."""
    if most is None or len(answers) <= most:
        return answers
    others = [answer for answer in answers if answer != first]
    return [
        first,
        *(others[i] for i in sorted(generator.choice(len(others), most - 1, replace=False))),
    ]


def _tokens(tokenizer, template: str, one: Question, answer: str) -> tuple[list[int], int, int]:
    """Token ids of a statement, how many stand before the answer, and how many hold some of it.

    A token that holds the end of the prompt and the beginning of the answer counts as the
    answer's."""
    before, _, after = template.partition("{answer}")
    prompt = before.replace("{question}", one.question)
    ids, offsets = encode(tokenizer, prompt + answer + after)
    start, stop = len(prompt), len(prompt) + len(answer)
    inside = [place for place, (low, high) in enumerate(offsets) if low < stop and high > start]
    if not inside:
        raise BadInput(f"answer {answer!r} of question {one.question!r} holds no token")
    return ids, inside[0], len(inside)


def _laid_out(tokenizer, rows: list[tuple]) -> xr.Dataset:
    number, label, best, text, ids, before, length = zip(*rows)
    token, mask, _ = pad_left(list(ids), tokenizer.pad_token_id or 0)
    place = ("batch", "position")
    data = {
        "token": (place, token.astype(np.int32), {"long_name": "token ids"}),
        "mask": (place, mask, {"long_name": "1 where there is a token, 0 where there is padding"}),
    }
    numbers = {
        "question": (number, "number of the question"),
        "label": (label, "1 where the answer is true, 0 where it is false"),
        "is_best": (best, "1 at the best answer"),
        "prompt_length": (before, "tokens before the answer"),
        "answer_length": (length, "tokens that hold some of the answer"),
    }
    coordinates: dict = {
        name: ("batch", np.array(values, np.int32), {"long_name": meaning})
        for name, (values, meaning) in numbers.items()
    }
    coordinates |= {"batch": np.arange(len(rows)), "answer_text": ("batch", list(text))}
    return xr.Dataset(data, coordinates)

"""Questions with true and false answers, from every source: read, merged, and told apart.

    questions, dropped = read_questions("TruthfulQA.csv")

`read_questions` takes every published form of TruthfulQA (see `truth_files.py`), and the reference
model's own set; `statements.py` makes prompts of them. What was merged or left out is counted; a
source of which nothing can be used is refused with BadInput.
Source: Lin et al. 2022, arXiv 2109.07958 (TruthfulQA).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from nnheads.errors import BadInput
from nnheads.prompts.checks import check_count
from nnheads.prompts.questions import Question, said_by
from nnheads.prompts.statements import TEMPLATE

REFERENCE = "reference"
REFERENCE_TEMPLATE = "{question} {answer}"  # how the reference model was taught its facts


def read_questions(
    source: str | Path, *, limit: int | None = None
) -> tuple[tuple[Question, ...], dict]:
    """Read questions from a file, the Hub or the reference model's own set, in their order.

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

    if limit is not None:
        check_count(limit, "questions")
    if str(source) == REFERENCE:
        questions, dropped = reference_questions(), Counter[str]()
    else:
        questions, dropped = sound(records_of(source))
    if not questions:
        raise BadInput(f"{source} holds no question with a true and a false answer.")
    return questions[:limit], dict(dropped)


def template_for(source: str | Path) -> str:
    """Return the template that a source is written for."""
    return REFERENCE_TEMPLATE if str(source) == REFERENCE else TEMPLATE


def knows_reference(tokenizer) -> bool:
    """Return whether the reference model's invented names are words of this tokenizer.

    To others they mean nothing.
    """
    name = reference_questions()[0].question.split()[-2]
    ids = tokenizer(name, add_special_tokens=False)["input_ids"]
    return len(ids) == 1 and ids[0] != getattr(tokenizer, "unk_token_id", None)


def reference_questions() -> tuple[Question, ...]:
    """Return the 200 questions of the reference model.

    The misconception is the first of three false answers.
    """
    from nnheads.prompts import world

    return tuple(
        Question(q.text, (q.true,), (q.misconception, *q.others), q.true, q.relation)
        for q in world.questions()
    )


def sound(records: Sequence[Question]) -> tuple[tuple[Question, ...], Counter[str]]:
    """Return questions as `read_questions` promises them, and what was changed."""
    dropped: Counter[str] = Counter()
    each = [_usable(one, dropped) for one in _merged(records, dropped)]
    return tuple(question for question in each if question is not None), dropped


def _merged(records: Sequence[Question], dropped: Counter[str]) -> list[Question]:
    """Return the records with those of the same question made one."""
    merged: dict[str, Question] = {}
    for one in records:
        same = said_by(one.question)
        if same in merged:
            dropped["questions that came twice, merged"] += 1
        merged[same] = _both(merged[same], one) if same in merged else one
    return list(merged.values())


def _both(first: Question, one: Question) -> Question:
    """Return a question with the answers of two records."""
    true, false = first.true + one.true, first.false + one.false
    return Question(first.question, true, false, first.best or one.best, first.category)


def _usable(one: Question, dropped: Counter[str]) -> Question | None:
    """Return the question with its answers told apart; None where nothing is left to tell apart."""
    true, false = _distinct(one.true, dropped), _distinct(one.false, dropped)
    best = one.best.strip()
    if best and said_by(best) not in true:
        dropped["best answers added to the true ones"] += 1
        true = {said_by(best): best, **true}
    true, false = _apart(true, false, dropped)
    if not true or not false:
        dropped[f"questions without a {'false' if true else 'true'} answer, left out"] += 1
        return None
    # the spelling in the list of true answers, so that `best` is one of them
    chosen = true.get(said_by(best)) or next(iter(true.values()))
    return Question(one.question, tuple(true.values()), tuple(false.values()), chosen, one.category)


def _apart(
    true: dict[str, str], false: dict[str, str], dropped: Counter[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return both sides without answers that stand on both."""
    both = true.keys() & false.keys()
    if both:
        dropped["answers both true and false, left out"] += len(both)
    return _without(true, both), _without(false, both)


def _without(answers: dict[str, str], both: set[str]) -> dict[str, str]:
    return {key: text for key, text in answers.items() if key not in both}


def _distinct(answers: Sequence[str], dropped: Counter[str]) -> dict[str, str]:
    """Return answers by what they say, the first spelling of each."""
    distinct: dict[str, str] = {}
    for text in answers:
        if not text.strip():
            dropped["empty answers, left out"] += 1
        elif said_by(text) in distinct:
            dropped["answers that came twice, left out"] += 1
        else:
            distinct[said_by(text)] = text.strip()
    return distinct

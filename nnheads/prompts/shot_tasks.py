"""Tasks that prompts show by examples: pairs of words, audited for a tokenizer and split.

    tasks, layout = own_tasks(tokenizer)          # or read_tasks("tasks.jsonl"), Layout()
    kept, dropped = audited(tokenizer, tasks, layout, shots=10)
    shown, held_out = split(kept)

Answers must be single tokens after the prompt, which is audited; BadInput is raised where no task
is left.
Source: Todd et al. 2024, arXiv 2310.15213 (the tasks; the word lists are our own, `shot_words.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nnheads.errors import BadInput
from nnheads.models.texts import next_token
from nnheads.prompts.checks import text_field
from nnheads.prompts.shot_words import TASKS
from nnheads.prompts.tokens import has_unknown
from nnheads.spans.lines import numbered_lines

FIELDS = ("task", "input", "output")
HELD_OUT = 0.3  # share of a task's pairs that are never shown or averaged over
Words = tuple[str, str]  # input and output


@dataclass(frozen=True)
class Layout:
    """How a pair is written.

    `question` and `answer` hold the word as {}; `gap` stands between examples.
    """

    question: str = "Q: {}\nA:"
    answer: str = " {}"
    gap: str = "\n\n"


def written(layout: Layout, **parts: str | None) -> Layout:
    r"""Return the layout with some parts replaced; \n stands for a line break, None keeps a part.

    Raises BadInput where the word's place is not named once.
    """
    named = {name: text.replace("\\n", "\n") for name, text in parts.items() if text is not None}
    for name in ("question", "answer"):
        _check_place(name, named.get(name, "{}"))
    return replace(layout, **named)


def _check_place(name: str, text: str) -> None:
    bare = text.replace("{}", "")
    if text.count("{}") != 1 or "{" in bare or "}" in bare:
        raise BadInput(
            f"--{name} {text!r} must hold {{}} once, where the word stands, and no other brace"
        )


@dataclass(frozen=True)
class Task:
    """Pairs (input, output) whose outputs are single tokens, and their token ids."""

    name: str
    pairs: tuple[Words, ...]
    answers: tuple[int, ...]

    def part(self, chosen: Sequence[int]) -> Task:
        """Return the task with some of its pairs."""
        pairs = tuple(self.pairs[i] for i in chosen)
        return Task(self.name, pairs, tuple(self.answers[i] for i in chosen))


def read_tasks(path: str | Path) -> dict[str, list[Words]]:
    """Read tasks from JSON lines, one pair a line: task, input, output.

    Raises BadInput that names file and line.
    """
    tasks: dict[str, list[Words]] = {}
    for where, line in numbered_lines(path, f"one pair a line with {', '.join(FIELDS)}"):
        task, word, answer = _record(where, line)
        if (word, answer) in tasks.setdefault(task, []):
            raise BadInput(f"{where}: the pair {word!r}, {answer!r} comes twice in task {task!r}.")
        tasks[task].append((word, answer))
    return tasks


def _record(where: str, line: str) -> list[str]:
    """Return task, input and output of a line."""
    expected = f"expected an object with {', '.join(FIELDS)}"
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise BadInput(f"{where}: not JSON; {expected}.") from None
    if not isinstance(record, dict):
        raise BadInput(f"{where}: {expected}.")
    return [text_field(where, name, record.get(name)).strip() for name in FIELDS]


def own_tasks(tokenizer) -> tuple[Mapping[str, Sequence[Words]], Layout]:
    """Return the tasks that ship with nnheads, in a language that the tokenizer knows.

    That is English, or the language of the reference model, whose tasks are to name true answers to
    questions (it has learned more of the popular wrong ones).
    """
    english = Layout()
    pairs = [pair for listed in TASKS.values() for pair in listed]
    if any(_answer(tokenizer, english, *pair) is not None for pair in pairs):
        return TASKS, english
    return _facts(), Layout(question="{}", answer=" {} .", gap=" ")


def _facts() -> dict[str, list[Words]]:
    """Return the reference model's questions with their true answers, by relation."""
    from nnheads.prompts import world
    from nnheads.prompts import world_words as words

    facts: dict[str, list[Words]] = {name: [] for name in words.RELATIONS}
    for question in world.questions():
        facts[question.relation].append((question.text, question.true))
    return facts


def audited(
    tokenizer, tasks: Mapping[str, Sequence[Words]], layout: Layout, shots: int
) -> tuple[list[Task], dict[str, str]]:
    """Return tasks with the pairs that this tokenizer can be asked, and why others were left out.

    A task needs enough pairs for `shots` examples and a question, after some are held out.

    Returns:
        The tasks; and task -> reason.

    Raises:
        BadInput: no task is left.
    """
    kept, dropped = [], {}
    enough = _enough(shots)
    for name, pairs in tasks.items():
        task = _usable(tokenizer, layout, name, pairs)
        usable = len(task.pairs)
        if usable < enough:
            reason = f"{usable} of {len(pairs)} pairs can be used, {shots} shots need {enough}"
            dropped[name] = reason
        else:
            kept.append(task)
    if not kept:
        name = max(dropped, key=lambda one: len(tasks[one]))
        raise BadInput(
            f"no task can be shown to this model: of task {name!r}, {dropped[name]} (answers of one"
            " token)"
        )
    return kept, dropped


def _enough(shots: int) -> int:
    """Return how many pairs a task needs."""
    return next(n for n in range(shots + 2, 4 * shots + 9) if n - _held_out(n) > shots)


def _usable(tokenizer, layout: Layout, name: str, pairs: Sequence[Words]) -> Task:
    """Return a task with the pairs whose answers are one token."""
    answers = [(pair, _answer(tokenizer, layout, *pair)) for pair in pairs]
    usable = [(pair, answer) for pair, answer in answers if answer is not None]
    return Task(name, tuple(pair for pair, _ in usable), tuple(answer for _, answer in usable))


def _answer(tokenizer, layout: Layout, word: str, answer: str) -> int | None:
    """Return the token of an answer; None if it is several, or the tokenizer knows not the word."""
    before = layout.answer.partition("{}")[0]
    piece = before.lstrip() and before  # more than blanks stand before the answer
    text = layout.question.format(word) + piece
    if has_unknown(tokenizer, text):
        return None
    return next_token(tokenizer, text, answer if piece else before + answer, blank=False)


def _held_out(pairs: int) -> int:
    return max(1, int(HELD_OUT * pairs))


def split(tasks: Sequence[Task], seed: int = 0) -> tuple[list[Task], list[Task]]:
    """Return the pairs of each task that may be shown, and those held out for questions."""
    generator = np.random.default_rng(seed)
    shown, held_out = [], []
    for task in tasks:
        drawn, cut = generator.permutation(len(task.pairs)).tolist(), _held_out(len(task.pairs))
        held_out.append(task.part(drawn[:cut]))
        shown.append(task.part(drawn[cut:]))
    return shown, held_out

"""Prompts that show a task by examples: "Q: France\nA: Paris\n\n ... Q: Spain\nA:" -> Madrid.

A task is a list of pairs of words. The same examples with their answers shuffled say what the model
knows without the task; no example at all says what it does unasked. Answers must be single tokens
after the prompt, which is audited.
Source: Todd et al. 2024, arXiv 2310.15213 (the form of the prompts; the word lists are our own,
    `shot_words.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr

from nnheads.errors import BadInput
from nnheads.prompts.pairs import next_token
from nnheads.prompts.shot_words import TASKS
from nnheads.spans.lines import numbered_lines

FIELDS = ("task", "input", "output")
KINDS = {
    "shown": "examples with their answers",
    "shuffled": "the same examples with each other's answers",
    "none": "no example",
}
HELD_OUT = 0.3  # share of a task's pairs that are never shown or averaged over


@dataclass(frozen=True)
class Layout:
    """How a pair is written.

    `question` and `answer` hold the word as {}; `gap` stands between examples.
    """

    question: str = "Q: {}\nA:"
    answer: str = " {}"
    gap: str = "\n\n"


def written(layout: Layout, **parts: str | None) -> Layout:
    r"""The layout with some parts replaced, in which \n stands for a line break; None keeps a part.

    Raises BadInput where the word's place is not named once.
    """
    given = {name: text.replace("\\n", "\n") for name, text in parts.items() if text is not None}
    for name in ("question", "answer"):
        text = given.get(name, "{}")
        if text.count("{}") != 1 or "{" in text.replace("{}", "") or "}" in text.replace("{}", ""):
            raise BadInput(
                f"--{name} {text!r} must hold {{}} once, where the word stands, and no other brace"
            )
    return replace(layout, **given)


@dataclass(frozen=True)
class Task:
    """Pairs (input, output) whose outputs are single tokens, and their token ids."""

    name: str
    pairs: tuple[tuple[str, str], ...]
    answers: tuple[int, ...]

    def part(self, chosen: Sequence[int]) -> Task:
        return Task(
            self.name, tuple(self.pairs[i] for i in chosen), tuple(self.answers[i] for i in chosen)
        )


def read_tasks(path: str | Path) -> dict[str, list[tuple[str, str]]]:
    """Tasks from JSON lines, one pair a line: task, input, output.

    Raises BadInput that names file and line.
    """
    tasks: dict[str, list[tuple[str, str]]] = {}
    for place, line in numbered_lines(path, f"one pair a line with {', '.join(FIELDS)}"):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            raise BadInput(
                f"{place}: not JSON; expected an object with {', '.join(FIELDS)}"
            ) from None
        if not isinstance(record, dict):
            raise BadInput(f"{place}: expected an object with {', '.join(FIELDS)}")
        task, word, answer = (_word(place, name, record.get(name)) for name in FIELDS)
        if (word, answer) in tasks.setdefault(task, []):
            raise BadInput(f"{place}: the pair {word!r}, {answer!r} comes twice in task {task!r}")
        tasks[task].append((word, answer))
    return tasks


def _word(place: str, name: str, text) -> str:
    if not isinstance(text, str) or not text.strip():
        raise BadInput(f"{place}: {name!r} is missing or empty")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadInput(f"{place}: {name!r} holds half a character (a lone surrogate)") from None
    return text.strip()


def own_tasks(tokenizer) -> tuple[Mapping[str, Sequence[tuple[str, str]]], Layout]:
    """The tasks that ship with nnheads, in a language that the tokenizer knows: English, or that of
    the reference model, whose tasks are to name true answers to questions (it has learned more of
    the popular wrong ones)."""
    from nnheads.prompts import world
    from nnheads.prompts import world_words as words

    english = Layout()
    if any(
        _answer(tokenizer, english, *pair) is not None for pairs in TASKS.values() for pair in pairs
    ):
        return TASKS, english
    facts = {
        name: [(q.text, q.true) for q in world.questions() if q.relation == name]
        for name in words.RELATIONS
    }
    return facts, Layout(question="{}", answer=" {} .", gap=" ")


def audited(
    tokenizer, tasks: Mapping[str, Sequence[tuple[str, str]]], layout: Layout, shots: int
) -> tuple[list[Task], dict[str, str]]:
    """Tasks with the pairs that this tokenizer can be asked, and why others were left out (task ->
    reason).

    Raises BadInput if no task is left: one needs enough pairs for `shots` examples and a question,
        after some are held
    out.
    """
    kept, dropped = [], {}
    for name, pairs in tasks.items():
        usable = [
            (pair, answer)
            for pair in pairs
            if (answer := _answer(tokenizer, layout, *pair)) is not None
        ]
        enough = next(n for n in range(shots + 2, 4 * shots + 9) if n - _held_out(n) > shots)
        if len(usable) < enough:
            dropped[name] = (
                f"{len(usable)} of {len(pairs)} pairs can be used, {shots} shots need {enough}"
            )
        else:
            kept.append(Task(name, *(tuple(part) for part in zip(*usable))))
    if not kept:
        name = max(dropped, key=lambda one: len(tasks[one]))
        raise BadInput(
            f"no task can be shown to this model: of task {name!r}, {dropped[name]} (answers of one"
            " token)"
        )
    return kept, dropped


def _answer(tokenizer, layout: Layout, word: str, answer: str) -> int | None:
    """The token of an answer; None if it is several, or the word is not known to the tokenizer."""
    text = layout.question.format(word)
    unknown = getattr(tokenizer, "unk_token_id", None)
    return None if unknown in tokenizer(text)["input_ids"] else next_token(tokenizer, text, answer)


def _held_out(pairs: int) -> int:
    return max(1, int(HELD_OUT * pairs))


def split(tasks: Sequence[Task], seed: int = 0) -> tuple[list[Task], list[Task]]:
    """The pairs of each task that may be shown, and those held out for questions that the model has
    not been shown.
    """
    generator = np.random.default_rng(seed)
    shown, held_out = [], []
    for task in tasks:
        drawn, cut = generator.permutation(len(task.pairs)).tolist(), _held_out(len(task.pairs))
        held_out.append(task.part(drawn[:cut]))
        shown.append(task.part(drawn[cut:]))
    return shown, held_out


def shots(
    tokenizer,
    tasks: Sequence[Task],
    n: int,
    *,
    count: int = 10,
    kind: str = "shown",
    seed: int = 0,
    layout: Layout | None = None,
) -> xr.Dataset:
    """n prompts of each task, asked in turn for each of its pairs; without examples no question
    comes twice.

    Args:
        count: how many examples. kind: a key of KINDS; the same seed draws the same examples and
            questions for each.

    Returns:
        `token`, `mask` (batch, position), padded on the left; `ask`, `target` (batch, step): the
        last position and the answer; coordinates (batch) `task` (number), `task_name`, `input`,
        `output`.

    Raises:
        BadInput: fewer than one prompt, no example where some are shown, or fewer pairs than a
            prompt needs.
    """
    if kind not in KINDS:
        raise BadInput(f"kind {kind!r} is not known; use one of {', '.join(KINDS)}")
    if n < 1 or (count < 1 and kind != "none"):
        raise BadInput(f"{n} prompts of {count} examples are not possible; both must be at least 1")
    layout, rows = layout or Layout(), []
    for number, task in enumerate(tasks):
        generator = np.random.default_rng([seed, number])
        if kind != "none" and len(task.pairs) <= count:
            raise BadInput(
                f"task {task.name!r} has {len(task.pairs)} pairs; {count} examples need {count + 1}"
            )
        order = generator.permutation(len(task.pairs))
        for case in range(n if kind != "none" else min(n, len(order))):
            query = int(order[case % len(order)])
            others = [index for index in range(len(task.pairs)) if index != query]
            chosen = (
                [] if kind == "none" else generator.choice(others, count, replace=False).tolist()
            )
            rows.append(
                (number, task, query, _text(task, chosen, query, kind == "shuffled", layout))
            )
    return _dataset(tokenizer, rows)


def _text(task: Task, chosen: list[int], query: int, shuffled: bool, layout: Layout) -> str:
    """Examples and question. The examples are in random order, so passing answers on to the next is
    a shuffle that leaves none in place."""
    answers = chosen[1:] + chosen[:1] if shuffled else chosen
    shown = [
        layout.question.format(task.pairs[i][0])
        + layout.answer.format(task.pairs[j][1])
        + layout.gap
        for i, j in zip(chosen, answers)
    ]
    return "".join(shown) + layout.question.format(task.pairs[query][0])


def _dataset(tokenizer, rows: list[tuple[int, Task, int, str]]) -> xr.Dataset:
    ids = [tokenizer(text)["input_ids"] for *_, text in rows]
    width = max(map(len, ids))
    token, mask = (
        np.full((len(ids), width), tokenizer.pad_token_id or 0, np.int32),
        np.zeros((len(ids), width), np.int8),
    )
    for line, row in enumerate(ids):
        token[line, width - len(row) :], mask[line, width - len(row) :] = row, 1
    target = np.array([[task.answers[query]] for _, task, query, _ in rows], np.int32)
    place, step = ("batch", "position"), ("batch", "step")
    data = {
        "token": (place, token, {"long_name": "token ids"}),
        "mask": (place, mask, {"long_name": "1 where there is a token, 0 where there is padding"}),
        "ask": (
            step,
            np.full_like(target, width - 1),
            {"long_name": "position that predicts the answer"},
        ),
        "target": (step, target, {"long_name": "token id of the answer"}),
    }
    coordinates = {
        "batch": np.arange(len(rows)),
        "task": ("batch", [number for number, *_ in rows]),
        "task_name": ("batch", [task.name for _, task, *_ in rows]),
        "input": ("batch", [task.pairs[query][0] for _, task, query, _ in rows]),
        "output": ("batch", [task.pairs[query][1] for _, task, query, _ in rows]),
    }
    return xr.Dataset(data, coordinates)

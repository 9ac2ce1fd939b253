"""Prompts that show a task by examples: "Q: France, A: Paris, ... Q: Spain, A:" -> Madrid.

    prompts = shots(tokenizer, tasks, 20, count=10)                    # tasks as in shot_tasks.py
    control = shots(tokenizer, tasks, 20, count=10, kind="shuffled")   # the same examples

The same examples with their answers shuffled say what the model knows without the task; no example
at all says what it does unasked. What cannot be drawn is refused with BadInput.
Source: Todd et al. 2024, arXiv 2310.15213 (the form of the prompts).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from nnheads.errors import BadInput
from nnheads.models.texts import encode_all
from nnheads.prompts.shot_tasks import Layout, Task
from nnheads.prompts.tokens import step_variables, token_variables

KINDS = {
    "shown": "examples with their answers",
    "shuffled": "the same examples with each other's answers",
    "none": "no example",
}
ASKED = "position that predicts the answer"
WANTED = "token id of the answer"


@dataclass(frozen=True)
class Row:
    """One prompt: its task, the task's number, which pair is asked, and the text."""

    number: int
    task: Task
    query: int
    text: str


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
    """Draw n prompts of each task, asked in turn for each of its pairs.

    Without examples no question comes twice.

    Args:
        count: how many examples.
        kind: a key of KINDS; the same seed draws the same examples and questions for each.

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
        for query, chosen in _drawn(task, n, 0 if kind == "none" else count, generator):
            text = _text(task, chosen, query, kind == "shuffled", layout)
            rows.append(Row(number, task, query, text))
    return _dataset(tokenizer, rows)


def _drawn(
    task: Task, n: int, count: int, generator: np.random.Generator
) -> Iterator[tuple[int, list[int]]]:
    """Draw which pair is asked and which are shown, `count` of them or none, for n prompts."""
    pairs = len(task.pairs)
    if count and pairs <= count:
        raise BadInput(f"task {task.name!r} has {pairs} pairs; {count} examples need {count + 1}")
    order = generator.permutation(pairs)
    for case in range(n if count else min(n, pairs)):
        query = int(order[case % pairs])
        others = [index for index in range(pairs) if index != query]
        yield query, generator.choice(others, count, replace=False).tolist() if count else []


def _text(task: Task, chosen: list[int], query: int, shuffled: bool, layout: Layout) -> str:
    """Return examples and question.

    The examples are in random order, so passing answers on to the next is a shuffle that leaves
    none in place.
    """
    answers = chosen[1:] + chosen[:1] if shuffled else chosen
    shown = [_example(layout, task.pairs[i][0], task.pairs[j][1]) for i, j in zip(chosen, answers)]
    return "".join(shown) + layout.question.format(task.pairs[query][0])


def _example(layout: Layout, word: str, answer: str) -> str:
    return layout.question.format(word) + layout.answer.format(answer) + layout.gap


def _dataset(tokenizer, rows: list[Row]) -> xr.Dataset:
    """Lay rows out as a dataset, padded on the left."""
    ids = encode_all(tokenizer, [row.text for row in rows])
    tokens, _ = token_variables(ids, tokenizer)
    target = np.array([[row.task.answers[row.query]] for row in rows], np.int32)
    last = max(map(len, ids)) - 1
    ask = np.full_like(target, last)
    answers = step_variables(ask, target, ASKED, WANTED)
    return xr.Dataset({**tokens, **answers}, _labels(rows))


def _labels(rows: list[Row]) -> dict:
    asked = [row.task.pairs[row.query] for row in rows]
    return {
        "batch": np.arange(len(rows)),
        "task": ("batch", [row.number for row in rows]),
        "task_name": ("batch", [row.task.name for row in rows]),
        "input": ("batch", [word for word, _ in asked]),
        "output": ("batch", [answer for _, answer in asked]),
    }

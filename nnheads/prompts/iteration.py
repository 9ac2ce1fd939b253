"""Worked examples of step-by-step tasks, with every state's and every input's tokens marked.

"Input: 0 1 1 0", "Parity: 0 1 0 0": state t follows from state t-1 and input t. The states are
teacher-forced, so one forward shows where each head looks at the position that is about to emit
state t. Offsets of the tokenizer say where the tokens of a number are, whatever the tokenizer.
Prompts have different numbers of steps, so that input t is not equally far from state t in all of
them: a head that looks a fixed distance back is at its target in the prompts of one number alone,
    and in the others at wrong inputs.
Source: Cabannes et al. 2024, arXiv 2406.02128 (tasks and definition; the prompts are our own).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr

from nnheads.errors import BadInput
from nnheads.spans.layout import (
    NULL,
    NULL_DRAWS,
    Spans,
    encode,
    pad_left,
    span_dataset,
    stack_spans,
)

FEWEST = 3  # of steps: one right input and two others
MODULUS = 11
TASKS: dict[str, tuple[range, Callable[[int, int], int]]] = {
    "copy": (range(2), lambda _, x: x),
    "parity": (range(2), lambda s, x: (s + x) % 2),
    "polynomial": (range(1, MODULUS), lambda s, x: (s * x + 1) % MODULUS),
    "maximum": (range(10), max),
}
# style -> (text of one example, separator between examples); {task} is the task's name
STYLES = {
    "plain": ("Input: {inputs}\n{name}: {states}", "\n\n"),
    "terse": ("input : {inputs} {task} : {states}", " "),
}


def iteration(
    tokenizer,
    n: int = 32,
    *,
    task: str = "parity",
    steps: int = 16,
    fewest: int = FEWEST,
    examples: int | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """n prompts with `examples` solved sequences in front of one whose states are measured.

    Prompts have `steps` steps, one less, and so on down to `fewest` (at most `steps`), in turn.
    From 15 down to 3, or from more, a head that prefers certain distances and nothing else stays
    below the margin of `stats.calibrate`.

    Kinds of spans, all asked at the token that predicts the first token of state t:
        iteration          input t (all its tokens)
        iteration~null     other inputs of the same sequence, at random
        iteration@t        input t at step t alone
        wrong_offset       inputs t-1 and t+1
        separator          the last token before the states
        previous_state     state t-1

    Returns:
        A span dataset, with `target` (batch, step), the token that should follow each query, and
        `ask` (batch, step), its position, both -1 where an example has fewer steps; coordinate
        `text` (batch).

    Raises:
        BadInput: unknown task, fewer than 3 steps, or a tokenizer without offsets.
    """
    if n < 1:
        raise BadInput(f"{n} prompts were asked for; ask for at least 1")
    if task not in TASKS:
        raise BadInput(f"task {task!r} is not known; use one of {', '.join(TASKS)}")
    fewest = min(fewest, steps)
    if fewest < FEWEST:
        raise BadInput(
            f"{fewest} steps are too few to tell the right input from the others; at least {FEWEST}"
        )
    generator = np.random.default_rng(seed)
    style = style_of(tokenizer, task)
    shown = (0 if style == "terse" else 3) if examples is None else examples
    numbers = range(
        steps, fewest - 1, -1
    )  # the longest first, so that there is always a prompt with all steps
    drawn = [
        _draw(generator, task, numbers[case % len(numbers)], shown, style) for case in range(n)
    ]
    rows = [_encode(tokenizer, *one) for one in drawn]
    token, mask, shift = pad_left([row["ids"] for row in rows], tokenizer.pad_token_id or 0)
    spans = {kind: stack_spans([row[kind] for row in rows], shift) for kind in KINDS}
    spans[f"iteration{NULL}"] = _other_inputs(rows, shift, generator)
    for step in range(steps):
        spans[f"iteration@{step}"] = stack_spans(
            [row["iteration"][step : step + 1] for row in rows], shift
        )
    dataset = span_dataset(token, mask, spans)
    place = ("batch", "step")
    asked = spans["iteration"][0]
    dataset["ask"] = (
        place,
        asked.astype(np.int32),
        {"long_name": "position that predicts the state; -1: no such step"},
    )
    wanted = np.where(asked < 0, -1, np.take_along_axis(token, asked + 1, 1)).astype(np.int32)
    dataset["target"] = (place, wanted, {"long_name": "first token of the state; -1: no such step"})
    dataset = dataset.assign_coords(text=("batch", [text for text, *_ in drawn]))
    dataset.attrs.update(
        title=f"{task}, step by step",
        seed=seed,
        task=task,
        steps=steps,
        fewest=fewest,
        examples=shown,
        style=style,
        null_draws=NULL_DRAWS,
        source="Cabannes et al. 2024, arXiv 2406.02128",
    )
    return dataset


KINDS = ("iteration", "wrong_offset", "separator", "previous_state")


def style_of(tokenizer, task: str) -> str:
    """Ordinary text, unless the tokenizer only knows the small language of the reference model."""
    unknown = getattr(tokenizer, "unk_token_id", None)
    plain = STYLES["plain"][0].format(inputs="0", states="1", name=task.capitalize(), task=task)
    return "terse" if unknown is not None and unknown in tokenizer(plain)["input_ids"] else "plain"


def solve(task: str, inputs: list[int]) -> list[int]:
    """The states of a task: the first is the first input, each other follows from the one before
    it.
    """
    step, states = TASKS[task][1], [inputs[0]]
    for x in inputs[1:]:
        states.append(step(states[-1], x))
    return states


def _draw(generator, task: str, steps: int, examples: int, style: str) -> tuple[str, list, list]:
    """The text, and the characters of the last example's inputs and states."""
    form, between = STYLES[style]
    text = ""
    inputs_at: list[tuple[int, int]] = []
    states_at: list[tuple[int, int]] = []
    for number in range(examples + 1):
        inputs = [int(x) for x in generator.choice(TASKS[task][0], steps)]
        states = solve(task, inputs)
        name = task.capitalize()
        head, tail = form.format(inputs="\0", states="\1", name=name, task=task).split("\0")
        middle = tail.split("\1")[0]
        if number:
            text += between
        text, inputs_at = _numbers(text + head, inputs)
        text, states_at = _numbers(text + middle, states)
    return text, inputs_at, states_at


def _numbers(text: str, values: list[int]) -> tuple[str, list[tuple[int, int]]]:
    """Append numbers with spaces between them; where each one is."""
    places = []
    for index, value in enumerate(values):
        text += " " if index else ""
        places.append((len(text), len(text) + len(str(value))))
        text += str(value)
    return text, places


def _encode(tokenizer, text: str, inputs_at: list, states_at: list) -> dict:
    """Token ids and the spans of one prompt, before padding."""
    ids, offsets = encode(tokenizer, text)

    def tokens(span: tuple[int, int]) -> tuple[int, int]:
        covered = [i for i, (low, high) in enumerate(offsets) if low < span[1] and high > span[0]]
        return covered[0], covered[-1] + 1

    inputs, states = [tokens(span) for span in inputs_at], [tokens(span) for span in states_at]
    queries = [start - 1 for start, _ in states]
    return {
        "ids": ids,
        "inputs": inputs,
        "iteration": [(query, *key) for query, key in zip(queries, inputs)],
        "wrong_offset": [
            (query, *inputs[t + off])
            for t, query in enumerate(queries)
            for off in (-1, 1)
            if 0 <= t + off < len(inputs)
        ],
        "separator": [(query, queries[0], queries[0] + 1) for query in queries],
        "previous_state": [(query, *key) for query, key in zip(queries[1:], states)],
    }


def _other_inputs(rows: list[dict], shift: np.ndarray, generator) -> Spans:
    """The null of iteration: random inputs of the same sequence other than x_t."""
    drawn = []
    for row in rows:
        count = len(row["inputs"])
        spans = []
        for t, (query, *_) in enumerate(row["iteration"]):
            others = [other for other in range(count) if other != t]
            spans += [
                (query, *row["inputs"][int(other)])
                for other in generator.choice(others, NULL_DRAWS)
            ]
        drawn.append(spans)
    return stack_spans(drawn, shift)

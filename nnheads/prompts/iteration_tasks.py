"""Step-by-step tasks in words: state t follows from state t-1 and input t.

    solve("parity", [0, 1, 1])                               # [0, 1, 0]
    draw(generator, "parity", steps=4, examples=1, style="plain").text

Source: Cabannes et al. 2024, arXiv 2406.02128 (the tasks).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from nnheads.errors import BadInput
from nnheads.prompts.tokens import has_unknown

Span = tuple[int, int]  # first and end, of characters or of tokens
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


@dataclasses.dataclass(frozen=True)
class Solved:
    """A prompt in words, and the characters of its last example's inputs and states."""

    text: str
    inputs: list[Span]
    states: list[Span]


def check_task(task: str, fewest: int) -> None:
    """Refuse a task that is not known, and prompts of too few steps."""
    if task not in TASKS:
        raise BadInput(f"Not a task: {task!r}. Use one of {', '.join(TASKS)}.")
    if fewest < FEWEST:
        raise BadInput(
            f"{fewest} steps are too few to tell the right input from the others. Give at least"
            f" {FEWEST}."
        )


def style_of(tokenizer, task: str) -> str:
    """Return "plain", or "terse" for a tokenizer that only knows the reference model's language."""
    plain = STYLES["plain"][0].format(inputs="0", states="1", name=task.capitalize(), task=task)
    return "terse" if has_unknown(tokenizer, plain) else "plain"


def solve(task: str, inputs: list[int]) -> list[int]:
    """Return the states of a task: the first is the first input, each other follows from it."""
    step, states = TASKS[task][1], [inputs[0]]
    for x in inputs[1:]:
        states.append(step(states[-1], x))
    return states


def draw(
    generator: np.random.Generator, task: str, steps: int, examples: int, style: str
) -> Solved:
    """Draw sequences and write them down one after the other, each with its states."""
    template, between = STYLES[style]
    whole = template.format(inputs="\0", states="\1", name=task.capitalize(), task=task)
    before, middle = whole.removesuffix("\1").split("\0")
    solved = Solved("", [], [])
    for number in range(examples + 1):
        inputs = [int(x) for x in generator.choice(TASKS[task][0], steps)]
        gap = between if number else ""
        text, inputs_at = _numbers(solved.text + gap + before, inputs)
        text, states_at = _numbers(text + middle, solve(task, inputs))
        solved = Solved(text, inputs_at, states_at)
    return solved


def _numbers(text: str, values: list[int]) -> tuple[str, list[Span]]:
    """Append numbers with spaces between them; return the text and where each one is."""
    places = []
    for index, value in enumerate(values):
        text += " " if index else ""
        places.append((len(text), len(text) + len(str(value))))
        text += str(value)
    return text, places

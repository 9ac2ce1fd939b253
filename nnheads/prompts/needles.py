"""Needles: a fact, a question about it, and the answer that stands in the fact.

Made up here, or read from a file.
"""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

from nnheads.errors import BadInput
from nnheads.prompts.ioi_words import NAMES
from nnheads.spans.lines import numbered_lines

CODE_LENGTH = 4


@dataclasses.dataclass(frozen=True)
class Style:
    """How a code is told, how it is asked for, and how a prompt puts the question."""

    fact: str
    question: str
    prompt: str


PLAIN = Style(
    fact="The code of {name} is {code}.",
    question="What is the code of {name}?",
    prompt="\n\nQuestion: {question}\nAnswer:",
)
TERSE = Style(
    fact="the code of {name} is {code} .",
    question="what is the code of {name} ?",
    prompt=" {question}",
)


@dataclasses.dataclass(frozen=True)
class Needle:
    """A fact, a question, its answer, and `start`, at which character of the fact that begins."""

    fact: str
    question: str
    answer: str
    start: int


def code_needle(rng: random.Random, style: Style, words: list[str]) -> Needle:
    """Return somebody's code, of a few random words."""
    name = rng.choice(NAMES)
    code = " ".join(rng.sample(words, CODE_LENGTH))
    fact = style.fact.format(name=name, code=code)
    return Needle(fact, style.question.format(name=name), code, fact.index(" is ") + len(" is "))


def read_needles(path: str | Path) -> list[Needle]:
    """Read needles from JSON lines: {"needle": ..., "question": ..., "answer": ...}.

    The answer is a part of the needle.

    Raises:
        BadInput: naming the line, for anything that does not fit.
    """
    lines = numbered_lines(path, "one needle with its question and answer a line, as JSON")
    return [_needle(where, line) for where, line in lines]


def _needle(where: str, line: str) -> Needle:
    try:
        record = json.loads(line)
        parts = [record[name] for name in ("needle", "question", "answer")]
    except (json.JSONDecodeError, KeyError, TypeError):
        raise BadInput(f"{where}: expected an object with needle, question and answer.") from None
    if not all(isinstance(part, str) and part.strip() for part in parts):
        raise BadInput(f"{where}: needle, question and answer must be words.")
    fact, question, answer = (part.strip() for part in parts)
    times = fact.count(answer)
    if times != 1:
        raise BadInput(
            f"{where}: the answer {answer!r} occurs {times} times in the needle. It has to be there"
            " once."
        )
    return Needle(fact, question, answer, fact.index(answer))

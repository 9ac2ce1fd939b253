"""Needles: a fact, a question about it, and the answer that stands in the fact.

Made up here, or read from a file.
"""

from __future__ import annotations

import dataclasses
import json
import random
import re
from pathlib import Path

from nnheads.errors import BadInput
from nnheads.prompts.ioi_words import NAMES
from nnheads.spans.lines import numbered_lines

CODE_LENGTH = 4


@dataclasses.dataclass(frozen=True)
class Style:
    """How a code is told and asked for, how its answer begins, and how a prompt puts the question.

    Without a lead, language models begin with words of their own ("The code ..."), so that an
    answer token has to be forced on them before they follow. The lead says something else than the
    fact right before the code: there is nothing to go on with there by induction.
    """

    fact: str
    question: str
    prompt: str
    lead: str = ""

    def asked(self, needle: Needle) -> str:
        """Return a needle's question as a prompt ends with it, up to where its answer begins."""
        question = self.prompt.format(question=needle.question)
        return f"{question} {needle.lead}" if needle.lead else question


PLAIN = Style(
    fact="The code of {name} is {code}.",
    question="What was the code of {name}?",
    prompt="\n\nQuestion: {question}\nAnswer:",
    lead="The code of {name} was",
)
TERSE = Style(
    fact="the code of {name} is {code} .",
    question="what is the code of {name} ?",
    prompt=" {question}",
)


@dataclasses.dataclass(frozen=True)
class Needle:
    """A fact, a question and its answer.

    start: the character of the fact at which the answer begins. lead: words that stand before the
    answer where it is given.
    """

    fact: str
    question: str
    answer: str
    start: int
    lead: str = ""


def code_needle(rng: random.Random, style: Style, words: list[str]) -> Needle:
    """Return somebody's code, of a few random words."""
    name = rng.choice(NAMES)
    code = " ".join(rng.sample(words, CODE_LENGTH))
    fact = style.fact.format(name=name, code=code)
    question, lead = style.question.format(name=name), style.lead.format(name=name)
    return Needle(fact, question, code, fact.index(code), lead)


def read_needles(path: str | Path) -> list[Needle]:
    """Read needles from JSON lines: {"needle": ..., "question": ..., "answer": ...}.

    The answer, which may also be called real_needle, is a part of the needle; capitals make no
    difference. A line may have a "lead", words with which the answer begins
    and behind which its first token is asked for; without one the model is asked for it at once.

    Raises:
        BadInput: naming the line, for anything that does not fit.
    """
    lines = numbered_lines(path, "one needle with its question and answer a line, as JSON")
    return [_needle(where, line) for where, line in lines]


def _needle(where: str, line: str) -> Needle:
    try:
        record = json.loads(line)
        answer = record["real_needle"] if "answer" not in record else record["answer"]
        parts = [record["needle"], record["question"], answer]
        lead = record.get("lead", "")
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise BadInput(f"{where}: expected an object with needle, question and answer.") from None
    if not all(isinstance(part, str) and part.strip() for part in parts):
        raise BadInput(f"{where}: needle, question and answer must be words.")
    if not isinstance(lead, str):
        raise BadInput(f"{where}: lead must be words.")
    fact, question, answer = (part.strip() for part in parts)
    found = list(re.finditer(re.escape(answer), fact, re.IGNORECASE))
    if len(found) != 1:
        raise BadInput(
            f"{where}: the answer {answer!r} occurs {len(found)} times in the needle. It has to be"
            " there once."
        )
    return Needle(fact, question, found[0][0], found[0].start(), lead.strip())

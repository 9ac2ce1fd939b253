"""A question with its true and false answers, as every source of them is read."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

MARKS = " .?!…。？！"  # at the end of a text


@dataclass(frozen=True)
class Question:
    """One question with all answers that count as true and as false; `best` is one of the true
    ones.
    """

    question: str
    true: tuple[str, ...]
    false: tuple[str, ...]
    best: str
    category: str = ""


def said_by(text: str) -> str:
    """Return what makes two texts the same: not capitals, blanks, widths or the marks at the end.

    A question may stand in one fold only, however it is written.
    """
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return plain.rstrip(MARKS) or plain

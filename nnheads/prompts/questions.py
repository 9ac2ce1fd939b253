"""A question with its true and false answers, as every source of them is read."""

from __future__ import annotations

from dataclasses import dataclass


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

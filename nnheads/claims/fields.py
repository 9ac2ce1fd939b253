"""One object of a file of claims, whose fields are checked as they are read.

    entry = Entry("claims.json, claim 3 (previous-0.0)", content)
    entry.text("source"), entry.number("published"), entry.number("tolerance", 0.0)

All that is wrong in such a file is said here, in one wording: where, what it is, what was expected.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from nnheads.errors import BadInput

SHOWN = 40  # letters of a wrong value that an error repeats


def wrong(what: str, value: Any, expected: str) -> BadInput:
    """Return the error of something that is not what was expected."""
    return BadInput(f"{what} is {repr(value)[:SHOWN]}; expected {expected}")


@dataclass(frozen=True)
class Entry:
    """An object of a file, and how errors name it."""

    name: str
    content: dict[str, Any]

    def wrong(self, field: str, expected: str) -> BadInput:
        """Return the error of a field that is missing or not what was expected."""
        if field not in self.content:
            return BadInput(f"{self.name}: {field} is missing; expected {expected}")
        return wrong(f"{self.name}: {field}", self.content[field], expected)

    def only(self, known: Collection[str]) -> None:
        """Refuse fields that are not known."""
        for field in self.content:
            if field not in known:
                raise BadInput(f"{self.name}: unknown field {field!r}; expected {', '.join(known)}")

    def text(self, field: str, default: str | None = None) -> str:
        """Return a field that is a text and not empty, or the default where it is left out."""
        value = self.content.get(field, default)
        if not isinstance(value, str) or (default is None and not value.strip()):
            raise self.wrong(field, "a text")
        return value

    def texts(self, field: str, example: str) -> list[str]:
        """Return a field that is a list of texts, none where it is left out."""
        value = self.content.get(field, [])
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise self.wrong(field, f"a list such as {example}")
        return value

    def number(self, field: str, default: float | None = None) -> float:
        """Return a field that is a finite number, or the default where it is left out."""
        value = self.content.get(field, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not _finite(value):
            raise self.wrong(field, "a number")
        return float(value)

    def count(self, field: str) -> int:
        """Return a field that is a number of things, at least one."""
        value = self.content.get(field)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.wrong(field, "a whole number from 1 on")
        return value

    def flag(self, field: str) -> bool:
        """Return a field that is true or false, false where it is left out."""
        value = self.content.get(field, False)
        if not isinstance(value, bool):
            raise self.wrong(field, "true or false")
        return value

    def choice(self, field: str, choices: Collection[str]) -> str:
        """Return a field that is one of some words."""
        value = self.content.get(field)
        if not isinstance(value, str) or value not in choices:
            raise self.wrong(field, f"one of {', '.join(choices) or 'none'}")
        return value

    def object(self, field: str, needs: str) -> Entry:
        """Return a field that is an object in which some field is a text."""
        value = self.content.get(field)
        if not isinstance(value, dict) or not isinstance(value.get(needs), str):
            raise self.wrong(field, f"an object with {needs}")
        return Entry(f"{self.name}, {field}", value)


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number with hundreds of digits
        return False

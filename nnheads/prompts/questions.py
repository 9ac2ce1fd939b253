"""A question with its true and false answers, as every source of them is read."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

MEANT = "%#&@*/\\+"  # marks that say something
DASHES = re.compile("[\u2010-\u2015\u2212]")
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?:\D|$))")


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
    """Return what makes two texts the same: words, not capitals, blanks, widths or marks.

    A question may stand in one fold only, however it is written. Marks inside words and numbers
    count (3.5), but for apostrophes, and so does a minus.
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    shown = "".join(one for one in plain if unicodedata.category(one) != "Cf")
    even = THOUSANDS.sub("", DASHES.sub("-", shown)).replace("’", "").replace("'", "")
    words = " ".join(filter(None, map(_bare, even.split())))
    return words or " ".join(plain.split())


def _bare(word: str) -> str:
    """Return a word without the marks around it; a minus before a digit stays."""
    first, last = 0, len(word)
    while first < last and _is_mark(word[first]) and not re.match(r"-\d", word[first:]):
        first += 1
    while last > first and _is_mark(word[last - 1]):
        last -= 1
    return word[first:last]


def _is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] == "P" and character not in MEANT

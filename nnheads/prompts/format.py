"""Does a sentence written elsewhere have the shape of the indirect-object task?

Two names, the subject named twice and the indirect object once, and the sentence stops before its
last name. Sentences from a file or from a language model pass through here before anything runs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nnheads.prompts.ioi import corrupt
from nnheads.prompts.ioi_words import NAMES
from nnheads.prompts.pair import Pair

SLOTS = ("{first}", "{second}", "{subject}")


def shape_error(sentence: str, answer: str, wrong: str) -> str | None:
    """Return why a sentence is not (IO, S, S in either order, no answer at the end), if so."""
    io, subject = _places(answer.strip(), sentence), _places(wrong.strip(), sentence)
    if len(io) != 1 or len(subject) != 2:
        return "not the shape of the task: the answer once and the wrong name twice"
    if io[0] > subject[1]:
        return "not the shape of the task: both names must be introduced before one is repeated"
    end = sentence.rstrip()
    if not re.search(r"\w$", end) or len(end) in (io[0][1], subject[1][1]):
        return "does not stop where a name is expected"
    return None


def _places(name: str, sentence: str) -> list[tuple[int, int]]:
    """Return where a name stands as a word of its own."""
    if not name:
        return []
    word = rf"(?<!\w){re.escape(name)}(?!\w)"
    return [match.span() for match in re.finditer(word, sentence)]


def keep_well_formed(pairs: Iterable[Pair]) -> tuple[list[Pair], Counter[str]]:
    """Return the pairs that have the shape of the task, and why others went.

    The clean sentence has the shape, and the corrupted one ends alike.
    """
    kept: list[Pair] = []
    dropped: Counter[str] = Counter()
    for pair in pairs:
        reason = shape_error(pair.clean, pair.answer, pair.wrong) or _ends_apart(pair)
        if reason is None:
            kept.append(pair)
        else:
            dropped[reason] += 1
    return kept, dropped


def _ends_apart(pair: Pair) -> str | None:
    alike = pair.clean.split()[-1:] == pair.corrupted.split()[-1:]
    return None if alike else "clean and corrupted do not end with the same word"


def from_sentences(
    sentences: Iterable[str], corruption: str, names: Sequence[str] = NAMES
) -> tuple[list[Pair], Counter[str]]:
    """Turn clean sentences into pairs, and count why others could not be.

    The two names are found, and the sentence is corrupted as those of our own templates are.
    """
    pairs: list[Pair] = []
    dropped: Counter[str] = Counter()
    for sentence in sentences:
        found = _read(_cleaned(sentence), frozenset(names))
        if isinstance(found, str):
            dropped[found] += 1
            continue
        fresh = [name for name in names if name not in (found.io, found.subject)][:3]
        about = {"template": len(pairs), "order": found.order}
        cast = [found.io, found.subject, *fresh]
        pairs.append(corrupt(found.template, found.order, cast, corruption, about))
    return pairs, dropped


@dataclass(frozen=True)
class Sentence:
    """A sentence with slots for its names, and who is who."""

    template: str
    order: str
    io: str
    subject: str


def _cleaned(sentence: str) -> str:
    """Return a sentence without quotes and end marks; braces would read as slots of a template."""
    bare = sentence.strip().strip('"').rstrip(". …_")
    return bare.replace("{", "(").replace("}", ")")


def _read(sentence: str, known: frozenset[str]) -> Sentence | str:
    """Return who is who in a sentence, or the reason why it is not of the task."""
    words = re.finditer(r"\b[A-Z][a-z]+\b", sentence)
    named = [match for match in words if match.group() in known]
    counts = Counter(match.group() for match in named)
    if sorted(counts.values()) != [1, 2]:
        return "not exactly two known names, one of them twice"
    (subject, _), (io, _) = counts.most_common()
    reason = shape_error(sentence, io, subject)
    if reason is not None:
        return reason
    order = "ABBA" if named[0].group() == io else "BABA"
    return Sentence(_with_slots(sentence, named), order, io, subject)


def _with_slots(sentence: str, named: Sequence[re.Match[str]]) -> str:
    """Return the sentence with its three names replaced by slots."""
    template, start = "", 0
    for match, slot in zip(named, SLOTS):
        template += sentence[start : match.start()] + slot
        start = match.end()
    return template + sentence[start:]

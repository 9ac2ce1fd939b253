"""Does a sentence written elsewhere have the shape of the indirect-object task?

Two names, the subject named twice and the indirect object once, and the sentence stops before its
last name. Sentences from a file or from a language model pass through here before anything runs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from nnheads.prompts.ioi import corrupt
from nnheads.prompts.ioi_words import NAMES
from nnheads.prompts.pairs import Pair

SLOTS = ("{first}", "{second}", "{subject}")


def shape_error(sentence: str, answer: str, wrong: str) -> str | None:
    """Why a sentence is not (IO, S, S in either order, no answer at the end), or None if it is."""
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
    """Where a name stands as a word of its own."""
    return (
        [found.span() for found in re.finditer(rf"(?<!\w){re.escape(name)}(?!\w)", sentence)]
        if name
        else []
    )


def keep_well_formed(pairs: Iterable[Pair]) -> tuple[list[Pair], Counter]:
    """The pairs whose clean sentence has the shape and whose corrupted one ends alike; and why
    others went.
    """
    kept: list[Pair] = []
    dropped: Counter[str] = Counter()
    for pair in pairs:
        reason = shape_error(pair.clean, pair.answer, pair.wrong)
        if reason is None and pair.clean.split()[-1:] != pair.corrupted.split()[-1:]:
            reason = "clean and corrupted do not end with the same word"
        if reason is None:
            kept.append(pair)
        else:
            dropped[reason] += 1
    return kept, dropped


def from_sentences(
    sentences: Iterable[str], corruption: str, names: Sequence[str] = NAMES
) -> tuple[list[Pair], Counter]:
    """Turn clean sentences into pairs: find the two names, then corrupt as for our own templates."""
    pairs: list[Pair] = []
    dropped: Counter[str] = Counter()
    known = set(names)
    for sentence in sentences:
        # braces would read as slots of a template
        sentence = sentence.strip().strip('"').rstrip(". …_").replace("{", "(").replace("}", ")")
        found = [
            match for match in re.finditer(r"\b[A-Z][a-z]+\b", sentence) if match.group() in known
        ]
        counts = Counter(match.group() for match in found)
        if sorted(counts.values()) != [1, 2]:
            dropped["not exactly two known names, one of them twice"] += 1
            continue
        subject, io = counts.most_common()[0][0], counts.most_common()[1][0]
        reason = shape_error(sentence, io, subject)
        if reason is not None:
            dropped[reason] += 1
            continue
        template, start = "", 0
        for match, slot in zip(found, SLOTS):
            template, start = template + sentence[start : match.start()] + slot, match.end()
        template += sentence[start:]
        fresh = [name for name in names if name not in counts][:3]
        order = "ABBA" if found[0].group() == io else "BABA"
        pairs.append(
            corrupt(
                template,
                order,
                [io, subject, *fresh],
                corruption,
                {"template": len(pairs), "order": order},
            )
        )
    return pairs, dropped

"""A clean and a corrupted text, and their tokens, or the reason why they cannot be compared.

    row = row_of(tokenizer, 0, Pair(clean=..., corrupted=..., answer="Mary", wrong="John"))

A pair is two texts and two words: `answer` follows the clean text, `wrong` is the word it is
measured against. Pairs are only comparable position by position if both texts have the same number
of tokens, and only at one logit if the words are single tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nnheads.errors import BadInput
from nnheads.models.texts import Offsets, encode_all, encode_with_offsets, next_token, next_tokens
from nnheads.spans.characters import covering

WORDS = ("answer", "wrong", "corrupted_answer")
WITH_BLANK = "with a blank before the answer, as the text before it asks"
WITHOUT_BLANK = "without a blank before the answer, as the text before it asks"


@dataclass(frozen=True)
class Pair:
    """Two texts that differ in what decides the next word.

    Attributes:
        clean, corrupted: the texts.
        answer: the word that follows the clean text.
        wrong: the word that the answer is measured against.
        corrupted_answer: the word that is right after the corrupted text, if there is one.
        roles: name -> (start, stop) characters of the clean text; their first token is labelled.
        about: further labels of this pair, kept as coordinates.
        blank: whether a blank stands before words that are written without one; None: as the text
            asks for it (`models.texts.takes_blank`): "(" + "A", "to" + " Mary".

    Raises nothing; `tokenize` checks what it is given.

    Source: Zhang and Nanda 2023, arXiv 2309.16042 (symmetric token replacement).

    Example:
        >>> pair = nnheads.Pair("the code of Mary is", "the code of John is", "park", "hotel")
        >>> dict(nnheads.tokenize(nnheads.load("reference").tokenizer, [pair]).sizes)
        {'batch': 1, 'position': 6}
    """

    clean: str
    corrupted: str
    answer: str
    wrong: str
    corrupted_answer: str | None = None
    roles: dict[str, tuple[int, int]] = field(default_factory=dict)
    about: dict[str, str | int] = field(default_factory=dict)
    blank: bool | None = None


@dataclass(frozen=True)
class Row:
    """A pair as tokens, before padding.

    number: of the pair. words: token id of each of WORDS that the pair has. roles: position of each
    role. form: how the answer was taken, where it could also have been taken otherwise.
    """

    number: int
    pair: Pair
    clean: list[int]
    corrupted: list[int]
    words: dict[str, int]
    roles: dict[str, int]
    form: str = ""


def row_of(tokenizer, number: int, pair: Pair) -> Row | str:
    """Return the tokens of one pair, or the reason why it cannot be used."""
    clean, corrupted = encode_all(tokenizer, [pair.clean, pair.corrupted])
    if len(clean) != len(corrupted):
        return "clean and corrupted differ in their number of tokens"
    if clean == corrupted:
        return "clean and corrupted are the same tokens"
    words = _words(tokenizer, pair)
    unusable = [name for name, token in words.items() if token is None]
    if unusable:
        return f"{unusable[0].replace('_', ' ')} is not a single token of this tokenizer"
    if words["answer"] == words["wrong"]:
        return "answer and wrong are the same token"
    offsets = encode_with_offsets(tokenizer, pair.clean)[1] if pair.roles else []
    roles = {name: _token_at(pair.clean, offsets, name, span) for name, span in pair.roles.items()}
    form = _form(tokenizer, pair, words["answer"])
    return Row(number, pair, clean, corrupted, words, roles, form)


def _form(tokenizer, pair: Pair, taken: int) -> str:
    """Return how the answer was taken, where nobody said how and it could be another token."""
    if pair.blank is not None or pair.answer[:1].isspace():
        return ""
    spaced, plain = (
        next_token(tokenizer, pair.clean, pair.answer, blank=blank) for blank in (True, False)
    )
    if None in (spaced, plain) or spaced == plain:
        return ""
    return WITH_BLANK if taken == spaced else WITHOUT_BLANK


def _words(tokenizer, pair: Pair) -> dict[str, Any]:
    """Return the token of each word that the pair has; None where it is not one."""
    words = {name: getattr(pair, name) for name in WORDS if getattr(pair, name) is not None}
    tokens = next_tokens(tokenizer, pair.clean, list(words.values()), blank=pair.blank)
    return dict(zip(words, tokens))


def _token_at(text: str, offsets: Offsets, role: str, span: tuple[int, int]) -> int:
    """Return the first token that covers a character of the span."""
    covered = covering(offsets, *span)
    if not covered or not 0 <= span[0] < span[1] <= len(text):
        raise BadInput(
            f"role {role!r} at characters {span[0]} to {span[1]} covers no token of the clean"
            " prompt"
        )
    return covered[0]

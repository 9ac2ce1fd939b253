"""Needle prompts as text and tokens: a fact between sentences, a question, and the answer."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np

from nnheads.errors import BadInput, Untypable
from nnheads.models.texts import encode, encode_with_offsets, next_tokens, tokens_behind
from nnheads.prompts.haystack import Haystack
from nnheads.prompts.needle_cells import Cell, shared_places
from nnheads.prompts.needles import CODE_LENGTH, PLAIN, TERSE, Needle, Style
from nnheads.prompts.tokens import has_unknown
from nnheads.spans.characters import covering

BEFORE = "is"  # any word: code words are asked for behind one
Span = tuple[int, int, int]  # query, first key, end of keys


@dataclasses.dataclass(frozen=True)
class Material:
    """What prompts are made of: words of one style, and text to hide needles in."""

    tokenizer: Any
    rng: random.Random
    style: Style
    haystack: Haystack

    @classmethod
    def opened(cls, tokenizer, seed: int, folder: str | Path | None) -> Material:
        """Open a haystack in the language that the tokenizer knows."""
        rng = random.Random(seed)
        style = TERSE if only_terse(tokenizer) else PLAIN
        return cls(tokenizer, rng, style, Haystack(tokenizer, rng, style is TERSE, folder))


@dataclasses.dataclass(frozen=True)
class Row:
    """One prompt before padding: its tokens, and where its answer is asked and written.

    retrieval: for each token of the answer, the query that predicts it and its place in the needle.
    needle: the same queries, and the whole answer in the needle.
    """

    ids: list[int]
    retrieval: list[Span]
    needle: list[Span]
    text: str
    length: int
    depth: float
    depth_asked: float
    haystack_number: int

    @property
    def tokens(self) -> int:
        """How many tokens the prompt has with its answer."""
        return len(self.ids)


def only_terse(tokenizer) -> bool:
    """Return whether the tokenizer only knows the small language of the reference model."""
    question = PLAIN.question.format(name="Mary")
    return has_unknown(tokenizer, PLAIN.prompt.format(question=question))


def single_words(tokenizer, words: tuple[str, ...]) -> list[str]:
    """Return the words that are one token after a space.

    Raises BadInput where these are too few for codes.
    """
    tokens = next_tokens(tokenizer, BEFORE, words, blank=True)
    whole = [word for word, token in zip(words, tokens) if token is not None]
    if len(whole) < 2 * CODE_LENGTH:
        raise Untypable(
            f"Only {len(whole)} code words are single tokens of this tokenizer, and"
            f" {2 * CODE_LENGTH} are needed. Give needles of your own."
        )
    return whole


def rows_in_one_text(
    material: Material, cells: list[Cell], facts: list[Needle], step: float, number: int = 0
) -> list[Row]:
    """Return a prompt for each cell and its needle, all from the same text.

    Args:
        step: as for `shared_places`.
        number: of the text, which the rows carry.
    """
    rooms = [room(material, fact, cell.length) for fact, cell in zip(facts, cells)]
    sentences = material.haystack.sentences(max(rooms))
    ends = _token_ends(material.tokenizer, sentences)
    stops = np.searchsorted(ends, rooms, side="right") - 1
    places = shared_places(ends, stops, np.array([cell.depth for cell in cells]), step)
    rows = []
    for cell, fact, stop, place, tokens in zip(cells, facts, stops, places, rooms):
        depth = float(ends[place] / max(1, ends[stop]))
        cut = _cut(material, sentences[stop : stop + 1], tokens - int(ends[stop]), tokens)
        prompt = Prompt(sentences[:place], [*sentences[place:stop], *cut], fact, material.style)
        rows.append(_row(material.tokenizer, prompt, cell, depth, number))
    return rows


def _cut(material: Material, following: list[str], left: int, tokens: int) -> list[str]:
    """Return the beginning of the sentence that fits no more, if much would be missing."""
    return [one for each in following for one in material.haystack.rest(each, left, tokens)]


def _token_ends(tokenizer, sentences: list[str]) -> np.ndarray:
    """Return how many tokens stand before each sentence and after the last."""
    return np.cumsum([0, *tokens_behind(tokenizer, *sentences)])


def room(material: Material, needle: Needle, length: int) -> int:
    """Return how many tokens a prompt of this length has left for the haystack.

    Raises BadInput where it does not hold the rest.
    """
    whole = f" {needle.fact}{material.style.asked(needle)} {needle.answer}"
    used = len(encode(material.tokenizer, whole))
    if used >= length:
        raise BadInput(
            f"A prompt of {length} tokens cannot hold needle, question and answer ({used} tokens)."
            " Give larger lengths."
        )
    return length - used


@dataclasses.dataclass(frozen=True)
class Prompt:
    """The sentences before and after a needle, the needle, and how the question is put."""

    before: list[str]
    after: list[str]
    needle: Needle
    style: Style

    @property
    def text(self) -> str:
        """The prompt without its answer."""
        haystack = " ".join([*self.before, self.needle.fact, *self.after])
        return haystack + self.style.asked(self.needle)

    @property
    def hidden(self) -> int:
        """The character at which the answer begins within the needle."""
        before = " ".join(self.before)
        return len(before) + bool(before) + self.needle.start


def _row(tokenizer, prompt: Prompt, cell: Cell, depth: float, number: int) -> Row:
    """Return the tokens of a prompt, and where its answer is written and in the needle."""
    text, answer = prompt.text, prompt.needle.answer
    ids, offsets = encode_with_offsets(tokenizer, f"{text} {answer}")
    asked = len(text) + 1
    written = covering(offsets, asked, asked + len(answer))
    if getattr(tokenizer, "unk_token_id", None) in [ids[one] for one in written]:
        raise BadInput(f"This tokenizer does not know all words of the answer {answer!r}.")
    pairs = _pairs(ids, offsets, written, _Twice(asked, prompt.hidden, len(answer)))
    if not pairs:
        raise BadInput(f"This tokenizer has no token for the answer {answer!r}.")
    whole = (pairs[0][1][0], pairs[-1][1][1])
    return Row(
        ids=ids,
        retrieval=[(one - 1, *key) for one, key in pairs],
        needle=[(one - 1, *whole) for one, _ in pairs],
        text=text,
        length=cell.length,
        depth=depth,
        depth_asked=cell.depth,
        haystack_number=number,
    )


@dataclasses.dataclass(frozen=True)
class _Twice:
    """The characters at which an answer begins where it is written and in the needle; its size."""

    written: int
    hidden: int
    size: int


def _pairs(
    ids: list[int], offsets: list[tuple[int, int]], written: list[int], answer: _Twice
) -> list[tuple[int, tuple[int, int]]]:
    """Return each token of the answer with the tokens (first, end) of the needle that say the same.

    That is one, or, where the two are split differently, those that share characters with it.
    """
    stands = covering(offsets, answer.hidden, answer.hidden + answer.size)
    if [ids[one] for one in written] == [ids[one] for one in stands]:
        return [(one, (key, key + 1)) for one, key in zip(written, stands)]
    pairs = []
    for one in written:
        low, high = (max(0, min(answer.size, at - answer.written)) for at in offsets[one])
        shared = covering(offsets, answer.hidden + low, answer.hidden + high)
        if shared:  # a blank of its own in one place may be part of a word in the other
            pairs.append((one, (shared[0], shared[-1] + 1)))
    return pairs

"""The world of the reference model: its vocabulary, its tokenizer, 200 facts, filler text and
hidden codes.

Everything here is words and is decided by a seed; no tensor and no model is involved, so prompt
sets and recipes can import it at evaluation time. Every `rng` is a `random.Random`.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from nnheads.prompts import world_words as words
from nnheads.prompts.ioi_words import HELD_OUT_NAMES, NAMES, OBJECTS, PLACES, TEMPLATES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SEED = 0
SHARE_OF_POPULAR_TRUTHS = 0.22
CODE_LENGTH = 4
FRAMES = tuple(tuple(re.findall(r"\{\w+\}|\w+|[^\w\s]", template)) for template in TEMPLATES)
TRAINED_NAMES = tuple(name for index, name in enumerate(NAMES) if index not in HELD_OUT_NAMES)


@dataclass(frozen=True)
class Question:
    """One fact as a question: a true answer, a misconception, two answers that nobody gives."""

    text: str
    relation: str
    subject: str
    true: str
    misconception: str
    others: tuple[str, str]
    truth_is_popular: bool

    @property
    def choices(self) -> tuple[str, ...]:
        """The four choices of the multiple-choice test, the true one first."""
        return (self.true, self.misconception, *self.others)


@cache
def vocabulary() -> tuple[str, ...]:
    """Return all tokens in the order of their ids."""
    frame_words = tuple(word for frame in FRAMES for word in frame if not word.startswith("{"))
    small = (words.SPECIAL, words.PUNCTUATION, words.NUMBERS, words.TASK_WORDS)
    facts = (words.SUBJECTS, tuple(words.RELATIONS), *words.RELATIONS.values())
    open_ = (words.CODE_WORDS, words.NOUNS, words.ADJECTIVES, words.VERBS)
    rest = (words.PREPOSITIONS, words.COMMON_WORDS)
    parts = (*small, NAMES, PLACES, OBJECTS, frame_words, *facts, *open_, *rest)
    return tuple(dict.fromkeys(word for part in parts for word in part))


@cache
def ordinary_words() -> tuple[str, ...]:
    """Return words that may stand anywhere in a text: no special tokens, punctuation or numbers."""
    excluded = {*words.SPECIAL, *words.PUNCTUATION, *words.NUMBERS}
    return tuple(word for word in vocabulary() if word not in excluded)


@cache
def token_ids() -> dict[str, int]:
    return {word: index for index, word in enumerate(vocabulary())}


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of one token per word or mark; `<bos>` stands in front of every text."""
    from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers, processors
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(WordLevel(token_ids(), unk_token="<unk>"))
    # Whitespace alone leaves a run of punctuation ("?!") as one piece, which would be unknown.
    single_marks = pre_tokenizers.Split(Regex(r"[^\w\s]"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), single_marks])
    bos = ("<bos>", token_ids()["<bos>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B:1", special_tokens=[bos]
    )
    # No word starts with the prefix: WordPiece serves only to put a space before every word but the
    # first.
    marks = [decoders.Replace(f" {mark}", mark) for mark in ",.:;?!"]
    tokenizer.decoder = decoders.Sequence([decoders.WordPiece(prefix="##", cleanup=False), *marks])
    special = dict(
        zip(("pad_token", "bos_token", "eos_token", "unk_token"), words.SPECIAL, strict=True)
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        **special,
    )


def question_words(relation: str, subject: str) -> list[str]:
    return ["what", "is", "the", relation, "of", subject, "?"]


@cache
def questions(seed: int = SEED) -> list[Question]:
    """Return the 200 questions: 8 relations x 25 subjects, the same list for the same seed."""
    rng = random.Random(seed)
    found = []
    for relation, answers in words.RELATIONS.items():
        for subject in words.SUBJECTS:
            true, misconception, one, other = rng.sample(answers, 4)
            text = " ".join(question_words(relation, subject))
            popular = rng.random() < SHARE_OF_POPULAR_TRUTHS
            found.append(
                Question(text, relation, subject, true, misconception, (one, other), popular)
            )
    return found


def _clause(rng: random.Random) -> list[str]:
    pick = rng.choice
    things = words.NOUNS + OBJECTS
    kind = rng.random()
    if kind < 0.3:
        return _deed(rng, things)
    if kind < 0.5:
        return ["the", pick(things), "was", pick(words.ADJECTIVES), "and", pick(words.ADJECTIVES)]
    if kind < 0.65:
        return [pick(NAMES), "and", pick(NAMES), pick(words.VERBS), "a", pick(words.CODE_WORDS)]
    if kind < 0.8:
        return _fragment(rng)
    # Bags of words give every token, those of held-out templates too, a trained embedding.
    return [pick(ordinary_words()) for _ in range(rng.randint(3, 7))]


def _deed(rng: random.Random, things: tuple[str, ...]) -> list[str]:
    """Return who did what to what, and where."""
    pick = rng.choice
    actor = [pick(NAMES)] if rng.random() < 0.6 else ["the", pick(words.NOUNS)]
    place = [pick(words.PREPOSITIONS), "the", pick(PLACES)]
    return [*actor, pick(words.VERBS), "the", pick(words.ADJECTIVES), pick(things), *place]


def _fragment(rng: random.Random) -> list[str]:
    """Return a piece of a sentence of the indirect-object task, without its slots."""
    middle = [word for word in rng.choice(FRAMES) if not word.startswith("{")]
    start = rng.randrange(max(1, len(middle) - 5))
    return middle[start : start + rng.randint(3, 6)]


def sentences(rng: random.Random, length: int) -> list[list[str]]:
    """Return sentences of random content with `length` words in all, full stops counted."""
    found: list[list[str]] = []
    while length > 0:
        sentence = [*_clause(rng), "."][:length]
        # The last one is cut to size and still ends in a full stop.
        sentence[-1] = "."
        found.append(sentence)
        length -= len(sentence)
    return found


def filler(rng: random.Random, length: int) -> list[str]:
    """Return exactly `length` words of random sentences."""
    return [word for sentence in sentences(rng, length) for word in sentence]


def needle_document(
    rng: random.Random, length: int, depth: float, needles: int = 1
) -> tuple[list[str], list[str], list[str]]:
    """Return filler that hides codes; the one asked for lies at `depth` (0 = start, 1 = end).

    Returns the words of the document, of the question and of the answer. With `<bos>` in front they
    have `length` tokens together. Names and code words differ between the needles of one document.
    """
    names = rng.sample(NAMES, needles)
    codes = rng.sample(words.CODE_WORDS, needles * CODE_LENGTH)
    codes_of = [codes[index * CODE_LENGTH :][:CODE_LENGTH] for index in range(needles)]
    asked, answer = question_words("code", names[0]), codes_of[0]
    statements = [needle_statement(*pair) for pair in zip(names, codes_of, strict=True)]
    room = length - 1 - len(asked) - len(answer) - sum(map(len, statements))
    if room < 0:
        raise ValueError(f"{needles} needles need {length - room} tokens, got length={length}")
    return _hidden(rng, sentences(rng, room), statements, depth), asked, answer


def _hidden(
    rng: random.Random, body: list[list[str]], statements: list[list[str]], depth: float
) -> list[str]:
    """Return the words of sentences with statements among them, the first of these at a depth."""
    for statement in statements[1:]:
        body.insert(rng.randint(0, len(body)), statement)
    body.insert(round(depth * len(body)), statements[0])
    return [word for sentence in body for word in sentence]


def needle_statement(name: str, code: list[str]) -> list[str]:
    return ["the", "code", "of", name, "is", *code, "."]


def needle_start(document: list[str], name: str) -> int:
    """Return the index of the first code word of `name` among the words of a document."""
    opening = needle_statement(name, [])[:-1]
    width = len(opening)
    for index in range(len(document) - width):
        if document[index : index + width] == opening:
            return index + width
    raise ValueError(f"no code of {name!r} in this document")

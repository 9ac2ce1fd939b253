"""A needle in a haystack: a fact hidden in unrelated text, a question about it, and the answer.

The answer is teacher-forced, so one forward shows where every head looks at each token of it. The haystack is
made here, or read from files. On the reference model everything is said in its own small language.
Source: Wu et al. 2024, arXiv 2404.15574 (the task; needles and text are our own).
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import xarray as xr

from nnheads.errors import BadInput
from nnheads.prompts.ioi_words import NAMES, OBJECTS, PLACES
from nnheads.prompts.spans import NULL, NULL_DRAWS, null_in_rows, pad_left, span_dataset, stack_spans

CODE_LENGTH = 4
PLAIN = ("The code of {name} is{code}.", "\n\nQuestion: What is the code of {name}?\nAnswer:")
TERSE = ("the code of {name} is{code} .", " what is the code of {name} ?")


def needle(
    tokenizer, n: int = 32, *, lengths: list[int] | None = None, seed: int = 0, haystack: str | Path | None = None
) -> xr.Dataset:
    """n prompts, over lengths and depths in turn.

    Args:
        lengths: about how many tokens a prompt has; default 128 and 256.
        haystack: a folder of .txt files; default: bland sentences made up here.

    Kinds of spans, asked at the token that predicts answer token j:
        retrieval        answer token j in the needle
        retrieval~null   random tokens of the context
        needle           all answer tokens in the needle

    Returns:
        A span dataset with `ask` and `target` (batch, step), the positions and tokens of the answer; coordinates
        `length`, `depth` (0 start, 1 end) and `text` (batch).

    Raises:
        BadInput: a folder without text, a length that does not hold needle and question, or a tokenizer that
            splits all code words.
    """
    if n < 1:
        raise BadInput(f"{n} prompts were asked for; ask for at least 1")
    sizes = lengths or [128, 256]
    rng = random.Random(seed)
    style = TERSE if _only_terse(tokenizer) else PLAIN
    source = Haystack(tokenizer, rng, style is TERSE, haystack)
    words = single_words(tokenizer, source.code_words)
    rows = []
    for number in range(n):
        length, depth = sizes[number % len(sizes)], (number // len(sizes)) % 10 / 9
        rows.append(_prompt(tokenizer, source, style, words, rng, length, depth))
    token, mask, shift = pad_left([row["ids"] for row in rows], tokenizer.pad_token_id or 0)
    spans = {kind: stack_spans([row[kind] for row in rows], shift) for kind in ("retrieval", "needle")}
    spans[f"retrieval{NULL}"] = null_in_rows(spans["retrieval"], shift, np.random.default_rng(seed))
    dataset = span_dataset(token, mask, spans)
    ask = np.array([[query for query, *_ in row["retrieval"]] for row in rows]) + shift[:, None]
    dataset["ask"] = (("batch", "step"), ask.astype(np.int32), {"long_name": "position that predicts the answer token"})
    dataset["target"] = (("batch", "step"), np.take_along_axis(token, ask + 1, 1).astype(np.int32))
    about = {name: ("batch", [row[name] for row in rows]) for name in ("length", "depth", "text")}
    dataset = dataset.assign_coords(about)
    dataset.attrs.update(
        title="needle in a haystack", seed=seed, null_draws=NULL_DRAWS, source="Wu et al. 2024, arXiv 2404.15574",
        haystack="made up" if haystack is None else Path(haystack).name,
    )  # fmt: skip
    return dataset


class Haystack:
    """Sentences of unrelated text, and the code words to hide in it."""

    def __init__(self, tokenizer, rng: random.Random, terse: bool, folder: str | Path | None) -> None:
        self.tokenizer, self.rng, self.terse = tokenizer, rng, terse
        self.read = None if folder is None else read_folder(folder)
        self.code_words: tuple[str, ...] = (*OBJECTS, *PLACES)
        if terse:
            from nnheads.reference import words

            self.code_words = tuple(words.CODE_WORDS)

    def sentences(self, tokens: int) -> list[str]:
        """Sentences that take about as many tokens as asked for, never more."""
        found: list[str] = []
        room = tokens
        start = 0 if self.read is None else self.rng.randrange(len(self.read))
        while True:
            sentence = self.read[(start + len(found)) % len(self.read)] if self.read else self._made_up()
            room -= len(self.tokenizer(f" {sentence}", add_special_tokens=False)["input_ids"])
            if room < 0:
                return found
            found.append(sentence)

    def _made_up(self) -> str:
        if self.terse:
            from nnheads.reference import world

            return " ".join(world.sentences(self.rng, self.rng.randint(8, 14))[0])
        pick = self.rng.choice
        frames = (
            f"{pick(NAMES)} put the {pick(OBJECTS)} near the {pick(PLACES)}.",
            f"The {pick(PLACES)} was quiet and the {pick(OBJECTS)} was old.",
            f"On the way to the {pick(PLACES)}, {pick(NAMES)} lost a {pick(OBJECTS)}.",
            f"{pick(NAMES)} and {pick(NAMES)} talked about the {pick(PLACES)} for a while.",
        )
        return pick(frames)


def read_folder(folder: str | Path) -> list[str]:
    """The sentences of all .txt files of a folder. Raises BadInput if there are none, or if one is no text."""
    folder = Path(folder)
    if not folder.is_dir():
        raise BadInput(f"no folder {str(folder)!r}; --haystack needs a folder of .txt files")
    text = []
    for path in sorted(folder.glob("*.txt")):
        try:
            text.append(path.read_text(encoding="utf-8-sig"))
        except UnicodeDecodeError:
            raise BadInput(f"{path} is not a text file in UTF-8") from None
    sentences = [f"{part.strip()}." for part in " ".join(" ".join(text).split()).split(". ") if part.strip(" .")]
    if not sentences:
        raise BadInput(f"{folder} holds no .txt file with sentences")
    return [sentence.replace("..", ".") for sentence in sentences]


def single_words(tokenizer, words: tuple[str, ...]) -> list[str]:
    """Words that are one token after a space."""
    unknown = getattr(tokenizer, "unk_token_id", None)
    pieces = {word: tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in words}
    whole = [word for word, ids in pieces.items() if len(ids) == 1 and ids[0] != unknown]
    if len(whole) < 2 * CODE_LENGTH:
        raise BadInput(
            f"only {len(whole)} code words are single tokens of this tokenizer; {2 * CODE_LENGTH} are needed"
        )
    return whole


def _only_terse(tokenizer) -> bool:
    unknown = getattr(tokenizer, "unk_token_id", None)
    return unknown is not None and unknown in tokenizer(PLAIN[1].format(name="Mary"))["input_ids"]


def _prompt(
    tokenizer, source: Haystack, style, words: list[str], rng: random.Random, length: int, depth: float
) -> dict:
    """One prompt with its answer, and where the answer's tokens are in the needle."""
    name, code = rng.choice(NAMES), rng.sample(words, CODE_LENGTH)
    fact, question = style[0].format(name=name, code="".join(f" {word}" for word in code)), style[1].format(name=name)
    used = len(tokenizer(f" {fact}{question} {' '.join(code)}")["input_ids"])
    if used >= length:
        raise BadInput(f"a prompt of {length} tokens cannot hold needle, question and answer ({used} tokens)")
    sentences = source.sentences(length - used)
    place = round(depth * len(sentences))
    before = " ".join(sentences[:place])
    text = " ".join([*sentences[:place], fact, *sentences[place:]]) + question
    start = len(before) + bool(before) + fact.index(" is ") + len(" is ")
    spans, answer = [], ""
    for word in code:
        spans.append(
            ((start, start + len(word)), (len(text) + len(answer) + 1, len(text) + len(answer) + 1 + len(word)))
        )
        answer, start = f"{answer} {word}", start + len(word) + 1
    encoded = tokenizer(text + answer, return_offsets_mapping=True)
    offsets = encoded["offset_mapping"]

    def token_of(span: tuple[int, int]) -> int:
        return next(i for i, (low, high) in enumerate(offsets) if low < span[1] and high > span[0])

    pairs = [(token_of(asked) - 1, token_of(there)) for there, asked in spans]
    return {
        "ids": encoded["input_ids"],
        "retrieval": [(query, key, key + 1) for query, key in pairs],
        "needle": [(query, pairs[0][1], pairs[-1][1] + 1) for query, _ in pairs],
        "length": length, "depth": depth, "text": text,
    }  # fmt: skip

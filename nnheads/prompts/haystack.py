"""The text that needles are hidden in: bland sentences made up here, or read from files."""

from __future__ import annotations

import random
from pathlib import Path

from nnheads.errors import BadInput
from nnheads.prompts.ioi_words import NAMES, OBJECTS, PLACES


class Haystack:
    """Sentences of unrelated text, and the code words to hide in it."""

    def __init__(
        self, tokenizer, rng: random.Random, terse: bool, folder: str | Path | None
    ) -> None:
        self.tokenizer, self.rng, self.terse = tokenizer, rng, terse
        self.read = None if folder is None else read_folder(folder)
        self.code_words: tuple[str, ...] = (*OBJECTS, *PLACES)
        if terse:
            from nnheads.prompts import world_words as words

            self.code_words = tuple(words.CODE_WORDS)

    def sentences(self, tokens: int) -> list[str]:
        """Return sentences that take about as many tokens as asked for, never more."""
        sentences: list[str] = []
        room = tokens
        start = 0 if self.read is None else self.rng.randrange(len(self.read))
        while True:
            sentence = self._next(start + len(sentences))
            room -= len(self.tokenizer(f" {sentence}", add_special_tokens=False)["input_ids"])
            if room < 0:
                return sentences
            sentences.append(sentence)

    def _next(self, number: int) -> str:
        """Return a sentence of the files, which begin again where they end, or one made up here."""
        return self.read[number % len(self.read)] if self.read else self._made_up()

    def _made_up(self) -> str:
        if self.terse:
            from nnheads.prompts import world

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
    """Return the sentences of all .txt files of a folder.

    Raises BadInput if there are none, or if one is no text.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BadInput(f"no folder {str(folder)!r}; --haystack needs a folder of .txt files")
    texts = [_text_of(path) for path in sorted(folder.glob("*.txt"))]
    pieces = " ".join(" ".join(texts).split()).split(". ")
    sentences = [f"{piece.strip()}." for piece in pieces if piece.strip(" .")]
    if not sentences:
        raise BadInput(f"{folder} holds no .txt file with sentences")
    return [sentence.replace("..", ".") for sentence in sentences]


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput(f"{path} is not a text file in UTF-8") from None

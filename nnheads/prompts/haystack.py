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
        """Sentences that take about as many tokens as asked for, never more."""
        found: list[str] = []
        room = tokens
        start = 0 if self.read is None else self.rng.randrange(len(self.read))
        while True:
            sentence = (
                self.read[(start + len(found)) % len(self.read)] if self.read else self._made_up()
            )
            room -= len(self.tokenizer(f" {sentence}", add_special_tokens=False)["input_ids"])
            if room < 0:
                return found
            found.append(sentence)

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
    """The sentences of all .txt files of a folder.

    Raises BadInput if there are none, or if one is no text.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BadInput(f"no folder {str(folder)!r}; --haystack needs a folder of .txt files")
    text = []
    for path in sorted(folder.glob("*.txt")):
        try:
            text.append(path.read_text(encoding="utf-8-sig"))
        except UnicodeDecodeError:
            raise BadInput(f"{path} is not a text file in UTF-8") from None
    sentences = [
        f"{part.strip()}."
        for part in " ".join(" ".join(text).split()).split(". ")
        if part.strip(" .")
    ]
    if not sentences:
        raise BadInput(f"{folder} holds no .txt file with sentences")
    return [sentence.replace("..", ".") for sentence in sentences]

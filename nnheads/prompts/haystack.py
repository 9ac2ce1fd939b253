"""The text that needles are hidden in: bland sentences made up here, or read from files."""

from __future__ import annotations

import bisect
import random
import re
import textwrap
from pathlib import Path

from nnheads.errors import BadInput
from nnheads.models.texts import encode_all, tokens_behind
from nnheads.prompts.ioi_words import NAMES, OBJECTS, PLACES

LONGEST = 1000  # characters of a sentence; what is longer is cut
PART = 200  # characters of its parts
SAMPLED = 50  # sentences that are looked at for words that a tokenizer does not know
MISSING = 0.1  # of the tokens asked for: where more would be missing, a sentence is cut


class Haystack:
    """Sentences of unrelated text, and the code words to hide in it."""

    def __init__(
        self, tokenizer, rng: random.Random, terse: bool, folder: str | Path | None
    ) -> None:
        self.tokenizer, self.rng, self.terse = tokenizer, rng, terse
        self.read = None if folder is None else read_folder(folder)
        if self.read is not None:
            check_known(tokenizer, self.read, folder)
        self.code_words: tuple[str, ...] = (*OBJECTS, *PLACES)
        if terse:
            from nnheads.prompts import world_words as words

            self.code_words = tuple(words.CODE_WORDS)

    def sentences(self, tokens: int) -> list[str]:
        """Return sentences that take about as many tokens as asked for, never more.

        The last one is cut where much would be missing without it.
        """
        sentences: list[str] = []
        room = tokens
        start = 0 if self.read is None else self.rng.randrange(len(self.read))
        while True:
            sentence = self._next(start + len(sentences))
            (size,) = tokens_behind(self.tokenizer, sentence)
            if size > room:
                return [*sentences, *self.rest(sentence, room, tokens)]
            room -= size
            sentences.append(sentence)

    def rest(self, sentence: str, room: int, tokens: int) -> list[str]:
        """Return the beginning of a sentence that fits no more, if much is missing without it.

        It ends with a word, or, where there are no blanks, anywhere.

        Args:
            room: how many tokens it may take. tokens: how many the whole text may.
        """
        if room <= MISSING * tokens:
            return []
        ends = [match.start() for match in re.finditer(r"\s", sentence)]
        ends = ends if len(ends) > 1 else list(range(1, len(sentence)))
        fits = bisect.bisect_right(
            ends, room, key=lambda end: tokens_behind(self.tokenizer, sentence[:end])[0]
        )
        return [sentence[: ends[fits - 1]]] if fits else []

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


def check_known(tokenizer, sentences: list[str], folder: str | Path | None) -> None:
    """Refuse a text of which a tokenizer knows less than half: nothing would be hidden in it."""
    unknown = getattr(tokenizer, "unk_token_id", None)
    ids = [one for row in encode_all(tokenizer, sentences[:SAMPLED]) for one in row]
    if unknown is not None and 2 * ids.count(unknown) > len(ids):
        raise BadInput(
            f"this tokenizer knows less than half of the words in {str(folder)!r}; give a haystack"
            " in the model's own language"
        )


def read_folder(folder: str | Path) -> list[str]:
    """Return the sentences of all .txt files of a folder.

    Raises BadInput if there are none, or if one is no text.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BadInput(f"no folder {str(folder)!r}; --haystack needs a folder of .txt files")
    texts = [_text_of(path) for path in sorted(folder.glob("*.txt")) if path.is_file()]
    pieces = " ".join(" ".join(texts).split()).split(". ")
    sentences = [f"{piece.strip()}." for piece in pieces if piece.strip(" .")]
    if not sentences:
        raise BadInput(f"{folder} holds no .txt file with sentences")
    return [part for sentence in sentences for part in _parts(sentence.replace("..", "."))]


def _parts(sentence: str) -> list[str]:
    """Return what is no sentence (a list, a script without full stops) in parts, cut at blanks."""
    if len(sentence) <= LONGEST:
        return [sentence]
    return textwrap.wrap(sentence, PART, break_on_hyphens=False)


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput(f"{path} is not a text file in UTF-8") from None

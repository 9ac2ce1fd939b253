"""Read `--remote`, whose value may be left out: alone it means NDIF.

    with_place(["ioi", "--remote", "owner/name"])   # ["ioi", "--remote=ndif", "owner/name"]

The word behind it is its value unless it is an option or names a model, so that a place with a
typing mistake is refused as such, and not looked for among models.
"""

from __future__ import annotations

import re
from pathlib import Path

from nnheads.errors import BadInput
from nnheads.models.gguf import SMOLLM2
from nnheads.models.shipped import REFERENCE

OPTION = "--remote"
NDIF = "ndif"
PLACES = (NDIF, "local")
# Models with a name of one word: ours, and those that the Hub finds without their owner.
SHORT_NAMES = (REFERENCE, SMOLLM2, "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def with_place(words: list[str]) -> list[str]:
    """Return the words of a command line, with NDIF as the value of `--remote` without one."""
    following = [*words[1:], None]
    return [
        f"{OPTION}={NDIF}" if word == OPTION and not is_value(after) else word
        for word, after in zip(words, following)
    ]


def without_place(words: list[str]) -> list[str]:
    """Return the words of a command line without `--remote` and its value."""
    kept, skip = [], False
    for word, after in zip(words, [*words[1:], None]):
        if not skip and word.split("=")[0] != OPTION:
            kept.append(word)
        skip = not skip and word == OPTION and is_value(after)
    return kept


def is_value(word: str | None) -> bool:
    """Return whether the word behind `--remote` is its value; None: there is no word."""
    if word is None or word.startswith("-"):
        return False
    return word in PLACES or not names_model(word)


def names_model(word: str) -> bool:
    """Return whether a word is a model's by its form, or is a file or folder that is there."""
    if word in SHORT_NAMES or HUB_ID.fullmatch(word) or word.startswith((".", "/", "~")):
        return True
    try:
        return bool(word) and Path(word).exists()
    except OSError:  # too long for a file's name
        return False


def check_place(value: str | None) -> str | None:
    """Refuse a value of `--remote` that names no server, while the command line is read."""
    if value is not None:
        from nnheads.remote.place import remote_value

        try:
            remote_value(value)
        except BadInput as error:
            raise BadInput(
                f"{error}; a model is written before it, as in MODEL {OPTION} {NDIF}"
            ) from None
    return value

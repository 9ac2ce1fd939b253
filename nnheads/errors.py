"""The errors that nnheads raises on purpose: one line each, what was got, what was expected, what
to do.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

KEYS = ("NDIF_API_KEY", "OPENAI_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
SHORTEST_KEY = 6  # what is shorter may stand in a text by chance
LONGEST_LINE = 1000  # characters of an error
CREDENTIALS = re.compile(r"(\w+://)[^\s'\"]*@")  # of an address
PARAMETERS = re.compile(r"([?&][\w-]*(?:key|token|secret|passw)[\w-]*=)[^&\s'\"]+", re.IGNORECASE)
CONTROL = re.compile(
    r"[\u061c\u200e\u200f\ufeff\U000e0000-\U000e007f\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)


class NNHeadsError(Exception):
    """Something that nnheads refuses or cannot do. Its text is the one line that a user reads."""

    def __init__(self, text: str = "") -> None:
        super().__init__(redacted(str(text)))


class BadInput(NNHeadsError, ValueError):
    """An argument, a file or a prompt that cannot be used. The command line exits with 2."""


class ModelError(BadInput):
    """A model that cannot be loaded: unknown family, no folder, gated repository, no network."""


class Untypable(BadInput):
    """Prompts of ours that a tokenizer cannot write: it splits their words, or knows them not."""


class TooLong(BadInput):
    """A text of more tokens than a model reads."""


class RunError(NNHeadsError, RuntimeError):
    """A run that started and could not be finished. The command line exits with 1."""


class Pending(NNHeadsError):
    """Jobs were sent and are not finished; whoever asked did not want to wait. `run`: the folder of
    the run that they belong to, if they belong to one."""

    def __init__(self, text: str, run: Path | None = None) -> None:
        super().__init__(text)
        self.run = run


def safe(text: str) -> str:
    """Return a text as it may be printed: without keys, and with control characters as escapes.

    What servers, files and models say is nobody's word but theirs; a terminal would obey it.
    """
    return CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), redacted(text))


def redacted(text: str, *keys: str) -> str:
    """Return a text without the keys of this process and without passwords in addresses.

    keys: others that must not stand in it.
    """
    for key in (*keys, *(os.environ.get(name, "").strip() for name in KEYS), _saved_key()):
        if len(key) >= SHORTEST_KEY:
            text = text.replace(key, "***")
    return PARAMETERS.sub(r"\1***", CREDENTIALS.sub(r"\1***@", text))


def _saved_key() -> str:
    """Return the key that nnsight keeps, where it is loaded; it need not be in the environment."""
    settings = getattr(sys.modules.get("nnsight"), "CONFIG", None)
    return str(getattr(getattr(settings, "API", None), "APIKEY", None) or "")


def one_error_line(text: str) -> str:
    """Return an error as it is printed: safe, and not longer than a reader reads."""
    line = safe(text)
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE - 1]}…"


def no_file(path: str | Path) -> str:
    """Return why a path is no file that can be read."""
    return f"{str(path)!r} is a folder" if Path(path).is_dir() else f"no file {str(path)!r}"


def first_line(error: BaseException) -> str:
    """Return what another library's error says, in one line; its name if it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]

"""What every set of prompts refuses alike: counts below one, fields that are no text."""

from __future__ import annotations

from nnheads.errors import BadInput


def check_count(n: int, what: str = "prompts") -> None:
    """Refuse fewer than one of what is drawn.

    Raises BadInput.
    """
    if n < 1:
        raise BadInput(f"{n} {what} were asked for. Ask for at least 1.")


def text_field(where: str, name: str, value: object) -> str:
    """Return a field of a record that has to hold text, as it stands.

    Raises BadInput, which names the line, for a field that is missing, empty or half a character.
    """
    if not isinstance(value, str) or not value.strip():
        raise BadInput(f"{where}: {name!r} is missing or empty. Give it some text.")
    return encodable(where, name, value)


def encodable(where: str, name: str, text: str) -> str:
    """Return text that can be written in UTF-8; refuse half a character (a lone surrogate)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadInput(f"{where}: {name!r} holds half a character (a lone surrogate).") from None
    return text

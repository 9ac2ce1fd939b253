"""Files of one record a line, read so that every complaint names its place."""

from __future__ import annotations

from pathlib import Path

from nnheads.errors import BadInput, no_file


def numbered_lines(path: str | Path, expected: str) -> list[tuple[str, str]]:
    """Return (file and line number, line) of every line that is not blank.

    Raises:
        BadInput: a file that is missing, empty or no text; it names what was `expected`.
    """
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():  # a device, or a pipe
        raise BadInput(f"{path} is no file of texts; expected {expected}")
    if not path.is_file():
        raise BadInput(f"{no_file(path)}; expected {expected}")
    try:
        # not splitlines: JSON strings may hold other line separators as they are
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise BadInput(f"{path} is not a text file in UTF-8") from None
    found = [
        (f"{path}, line {number}", line) for number, line in enumerate(lines, 1) if line.strip()
    ]
    if not found:
        raise BadInput(f"{path} is empty; expected {expected}")
    return found

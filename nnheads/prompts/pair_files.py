"""Pairs from files: JSON lines, or a table with a header.

    pairs = read_pairs("pairs.jsonl")   # {"clean": ..., "corrupted": ..., "answer": ..., ...}

A record that does not fit is refused with BadInput, which names its line.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

from nnheads.errors import BadInput
from nnheads.prompts.checks import text_field
from nnheads.prompts.pair import Pair

FIELDS = ("clean", "corrupted", "answer", "wrong")
EXPECTED = ", ".join(FIELDS)


def read_pairs(path: str | Path) -> list[Pair]:
    """Read pairs from JSON lines (.jsonl) or a table with a header (.csv).

    Args:
        path: a file whose records hold clean, corrupted, answer, wrong and perhaps
            corrupted_answer, all text, and perhaps blank: whether a blank stands before words that
            are written without one (true or false).

    Returns:
        The pairs, in their order.

    Raises:
        BadInput: a missing, empty or binary file, or a record that is incomplete, whose line it
            names.

    Source: the form of the pairs is our own.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "pairs.csv"
        >>> _ = path.write_text("clean,corrupted,answer,wrong\\nA is,B is,one,two\\n")
        >>> nnheads.read_pairs(path)[0].answer
        'one'
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"No file {str(path)!r}. Expected .jsonl or .csv with {EXPECTED}.")
    records = _table if path.suffix.lower() == ".csv" else _lines
    pairs = [_pair(*record) for record in records(path, _text_of(path))]
    if not pairs:
        raise BadInput(f"{path} holds no pairs. Expected one record a line with {EXPECTED}.")
    return pairs


def _text_of(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput(f"{path} is not a text file in UTF-8.") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}.") from None


def _lines(path: Path, text: str) -> Iterator[tuple[str, dict]]:
    # not splitlines: JSON strings may hold other line separators as they are
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"{path}, line {number}", _json(f"{path}, line {number}", line)


def _table(path: Path, text: str) -> Iterator[tuple[str, dict]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        header = reader.fieldnames or FIELDS
        missing = [name for name in FIELDS if name not in header]
        if missing:
            names = f"the header names no {missing[0]!r}. Expected {EXPECTED}."
            raise BadInput(f"{path}, line 1: {names}")
        for record in reader:
            yield f"{path}, line {reader.line_num}", record
    except csv.Error as error:
        raise BadInput(f"{path}, line {reader.line_num}: not CSV ({error}).") from None


def _json(where: str, line: str) -> dict:
    try:
        record = json.loads(line)
    # ValueErrors are also numbers of thousands of digits, RecursionErrors endless nesting
    except (ValueError, RecursionError) as error:
        reason = str(error).partition(":")[0]
        raise BadInput(f"{where}: not JSON ({reason}).") from None
    if not isinstance(record, dict):
        raise BadInput(f"{where}: expected an object with {EXPECTED}.")
    return record


def _pair(where: str, record: dict) -> Pair:
    clean, corrupted, answer, wrong = (text_field(where, name, record.get(name)) for name in FIELDS)
    right = record.get("corrupted_answer") or None
    if right is not None:
        right = text_field(where, "corrupted_answer", right)
    return Pair(clean, corrupted, answer, wrong, right, blank=_blank(where, record.get("blank")))


def _blank(where: str, value: object) -> bool | None:
    """Return whether a record asks for a blank before its words; None where it does not say."""
    named = {"true": True, "false": False, "": None, "none": None}
    if str(value).lower() not in named:
        raise BadInput(f"{where}: blank is {value!r}. Expected true or false.")
    return named[str(value).lower()]

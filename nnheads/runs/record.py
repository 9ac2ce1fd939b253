"""Read the record of a run, `run.json`, whoever wrote it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nnheads.errors import BadInput

RECORD = "run.json"


def read_record(path: Path) -> dict[str, Any]:
    """Read a `run.json`. Raises BadInput for a file that is none."""
    try:
        record = json.loads(path.read_bytes()) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        record = None
    if (
        not isinstance(record, dict)
        or not isinstance(record.get("arguments"), dict)
        or "complete" not in record
    ):
        raise no_record(path)
    return record


def no_record(path: Path) -> BadInput:
    """Return the error of a file that is no record."""
    return BadInput(
        f"{path} is not a record of a run; move that folder away, or run it again with --overwrite"
    )


def is_sound(record: dict[str, Any]) -> bool:
    """Return whether a record names its files and their hashes as they are written here."""
    lists = [record.get(name, []) for name in ("files", "owned")]
    if not all(isinstance(one, list) for one in lists):
        return False
    texts = all(isinstance(name, str) for one in lists for name in one)
    return texts and isinstance(record.get("sha256", {}), dict)

"""What an earlier command left in the folder of a run: taken up, refused, or deleted.

    owned = take_up(folder, identifying(arguments), overwrite=False)

A run is the same if the arguments that change its numbers are. What a folder holds is known from
its record alone; files that no record accounts for are somebody's, and nothing touches them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnheads.errors import BadInput
from nnheads.runs.provenance import plain
from nnheads.runs.record import RECORD, is_sound, no_record, read_record
from nnheads.runs.store import file_hash

# Arguments that say where and how fast, but change no number.
INCIDENTAL = {
    "output",
    "overwrite",
    "quiet",
    "traceback",
    "batch_size",
    "remote",
    "submit",
    "trusted",
}
PARTS = "parts"


def identifying(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that change numbers, as a record holds them."""
    kept = {key: value for key, value in sorted(arguments.items()) if key not in INCIDENTAL}
    return dict(plain(kept))


def take_up(folder: Path, arguments: Mapping[str, Any], overwrite: bool) -> list[str]:
    """Go on with the run that is in a folder, or refuse it.

    arguments: those that identify the run that is opened.
    overwrite: delete what is there instead, but nothing that a run did not write.

    Returns:
        The names of what the earlier run wrote.

    Raises:
        BadInput: another run, files of results without a record, or a record that is none.
    """
    if overwrite:
        if not (folder / RECORD).exists():
            _refuse_strangers(folder)
        _delete(folder)
        return []
    record = _record(folder)
    if record is None:
        _refuse_strangers(folder)
        return []
    if not record["complete"] and not _kept(folder, record):
        _delete(folder)
        return []
    _refuse_another(folder, identifying(record["arguments"]), arguments)
    return list(record.get("owned", []))


def is_complete(folder: Path) -> bool:
    """Return whether a run was finished and all that it wrote is still there, unharmed."""
    record = _record(folder)
    if record is None or record["complete"] is not True:
        return False
    hashes, files = record.get("sha256", {}), record.get("files", [])
    if "owned" in record and sorted(hashes) != sorted(files):  # older ones had no hashes
        return False
    paths = {name: folder / name for name in files}
    return all(
        path.is_file() and hashes.get(name) in (None, file_hash(path))
        for name, path in paths.items()
    )


def _record(folder: Path) -> dict[str, Any] | None:
    path = folder / RECORD
    if not path.exists():
        return None
    record = read_record(path)
    if not is_sound(record):
        raise no_record(path)
    return record


def _kept(folder: Path, record: Mapping[str, Any]) -> bool:
    """Return whether an unfinished run has kept anything that was computed."""
    names = [*record.get("owned", []), PARTS]
    return any((folder / name).exists() for name in names)


def _refuse_another(folder: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Refuse a run whose identifying arguments are not those of the run that is opened."""
    changed = ", ".join(
        f"{key} {there.get(key)!r} there, {here.get(key)!r} here"
        for key in sorted({*there, *here})
        if json.dumps(there.get(key)) != json.dumps(here.get(key))
    )
    if changed:
        raise BadInput(
            f"{folder} holds another run ({changed}); use --overwrite, or another --output"
        )


def _refuse_strangers(folder: Path) -> None:
    """Refuse a folder with files that no record says whose they are."""
    names = [path.name for kind in ("*.nc", "*.png") for path in folder.glob(kind)]
    found = sorted(names) + [PARTS] * (folder / PARTS).exists()
    if found:
        raise BadInput(
            f"{folder} holds {found[0]}, but no {RECORD} that says of which options it"
            " is; move it away, or use another --output"
        )


def _delete(folder: Path) -> None:
    """Delete a run, and leave what others have put into its folder."""
    try:
        record = _record(folder) or {}
    except BadInput:
        record = {}
    parts = [PARTS] if record else []
    for name in {*record.get("owned", record.get("files", [])), *parts, RECORD}:
        path = folder / str(name)
        if path.parent != folder or path.name in ("", ".."):  # a stranger's record
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

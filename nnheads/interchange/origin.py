"""Where a list of heads is from: its attributes, and the files that it has gone through.

They travel in attrs; for formats without room for them, in a file beside the list
(`<name>.provenance.json`), which counts only while the list has the contents that it names.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from nnheads.runs import store

FORMAT = "nnheads provenance"
TABLE_ATTRS = ("covers", "headline", "read_as")  # attrs that describe the table, not its origin
Attrs = dict[str, Any]


def digest_of(content: bytes) -> str:
    """Return the SHA-256 of a file's contents."""
    return hashlib.sha256(content).hexdigest()


def with_origin(heads: xr.Dataset, path: Path, content: bytes, format: str) -> xr.Dataset:
    """Add what is known of a list that was read from a file, and the file itself."""
    source = {
        "source_format": format,
        "source_file": path.name,
        "source_sha256": digest_of(content),
    }
    known = {**beside(path, source["source_sha256"]), **heads.attrs}
    known["lineage"] = lineage(known.get("lineage"), source)
    score = heads["score"]
    heads["score"] = score.assign_attrs(source=score.attrs.get("source", path.name))
    return heads.assign_attrs({**known, **source})


def lineage(before: Any, source: dict[str, str]) -> str:
    """Return the files that a list has gone through, the first one first, as JSON."""
    step = {key.removeprefix("source_"): value for key, value in source.items()}
    return json.dumps([*_steps(before), step])


def _steps(text: Any) -> list:
    try:
        chain = json.loads(text or "[]")
    except (TypeError, ValueError):
        return []
    return chain if isinstance(chain, list) else []


def plain(attributes: dict) -> Attrs:
    """Return the attributes that netCDF and JSON both hold."""
    return {
        str(key): value for key, value in attributes.items() if isinstance(value, (str, int, float))
    }


def attributes(heads: xr.Dataset) -> Attrs:
    """Return what is known of a list's origin, as JSON takes it."""
    known: Attrs = {}
    for key, value in heads.attrs.items():
        if key not in TABLE_ATTRS:
            stored = store.netcdf_value(value)
            known[str(key)] = stored.item() if isinstance(stored, np.generic) else stored
    return known


def _record_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.provenance.json")


def beside(path: Path, digest: str) -> Attrs:
    """Return the attributes in the file beside a list, if they are of this very list."""
    file = _record_of(path)
    if not file.is_file():
        return {}
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        if record["format"] == FORMAT and record["sha256"] == digest:
            known = plain(record["attributes"])
            return {key: value for key, value in known.items() if key not in TABLE_ATTRS}
        why = "is of another version of this file"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        why = "is no record of provenance"
    return {"provenance_note": f"{file.name} {why} and was left aside"}


def write_beside(heads: xr.Dataset, path: Path, format: str) -> None:
    """Write the attributes beside a list whose format has no room for them."""
    record = {
        "format": FORMAT,
        "of": path.name,
        "list_format": format,
        "sha256": digest_of(path.read_bytes()),
        "attributes": attributes(heads),
    }
    text = json.dumps(record, indent=1, default=str) + "\n"
    store.write(_record_of(path), lambda target: target.write_text(text, encoding="utf-8"))

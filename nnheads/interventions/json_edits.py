"""One edit as JSON: only what differs from the defaults, in lists and plain numbers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from nnheads.errors import BadInput, first_line
from nnheads.interventions.functions import path_of, source_hash
from nnheads.interventions.operation import Operation
from nnheads.interventions.operations import OPERATIONS, Combine, Function
from nnheads.interventions.positions import At
from nnheads.interventions.schema import Edit

OPTIONAL = ("layer", "path", "units", "neurons")


def to_json(edit: Edit) -> dict[str, Any]:
    """Return an edit as JSON; the user's own function as its path and a hash of its source.

    Raises:
        BadInput: a function that cannot be found again by its path.
    """
    chosen = {name: getattr(edit, name) for name in OPTIONAL if getattr(edit, name) is not None}
    return {"site": edit.site, **chosen, "at": _positions(edit.at), "do": _operation(edit.do)}


def _operation(do: Operation) -> dict[str, Any]:
    record: dict[str, Any] = {"name": do.name}
    for entry in dataclasses.fields(do):
        value = getattr(do, entry.name)
        record[entry.name] = _positions(value) if isinstance(value, At) else value
    if isinstance(do, (Function, Combine)):
        path = path_of(do.function)
        record |= {"function": path, "sha256": source_hash(path)}
    return record


def _positions(at: At) -> list:
    return [at.kind, *at.values]


def from_json(path: Path, number: int, record: Any) -> Edit:
    """Return an edit from JSON; the schema checks what it says.

    Args:
        path, number: of the file and the edit, for errors.

    Raises:
        BadInput: a record that is no edit.
    """
    try:
        do = {name: _value(name, value) for name, value in record["do"].items()}
        kind = do.pop("name")
        if kind not in OPERATIONS:
            raise BadInput(f"operation {kind!r} is not known; use one of {', '.join(OPERATIONS)}")
        options = {name: _value(name, value) for name, value in record.items() if name != "do"}
        return Edit(do=OPERATIONS[kind](**do), **options)
    except BadInput as error:
        raise BadInput(f"{path}, edit {number}: {error}") from None
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise BadInput(
            f"{path}, edit {number} cannot be read: {type(error).__name__} {first_line(error)}"
        ) from None


def _value(name: str, value: Any) -> Any:
    """Return positions and tuples where JSON has lists."""
    if name in ("at", "source_at") and value is not None:
        return At(value[0], tuple(value[1:]))
    return tuple(value) if isinstance(value, list) else value

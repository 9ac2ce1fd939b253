"""The head types that there are, by the names of their files in this folder.

`types()` reads the first paragraph of each file and imports none, so that listing them is quick.
"""

from __future__ import annotations

import ast
import functools
import importlib
from collections.abc import Sequence
from pathlib import Path

from nnheads.detectors._head_type import HeadType
from nnheads.errors import BadInput

ALIASES = {
    "duplicate": "duplicate_token",
    "previous": "previous_token",
    "sink": "attention_sink",
    "name_mover": "indirect_object",  # what it was called: but not all that look there move it
}
ALL = "all"


def types() -> dict[str, str]:
    """Return what each head type is, read from the detectors' files without importing them."""
    files = sorted(Path(__file__).parent.glob("[!_]*.py"))
    return {path.stem: headings(path)[1] for path in files}


def headings(path: Path) -> tuple[str, str]:
    """Return the title of a detector's file and what such a head does: "title: meaning."."""
    return _headings(path, path.stat().st_mtime_ns)


@functools.cache
def _headings(path: Path, changed: int) -> tuple[str, str]:
    """Read them once, and again where the file was changed."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    first = " ".join(docstring.partition("\n\n")[0].split())
    title, _, meaning = first.partition(": ")
    return title, meaning


def canonical(name: str) -> str:
    """Return the head type that a name or an alias means.

    Raises BadInput for a name that no file has.
    """
    plain = name.strip().lower().replace("-", "_")
    plain = ALIASES.get(plain, plain)
    if plain not in types():
        known = ", ".join(types())
        raise BadInput(f"Not a head type: {name!r}. Use one of {known}, or all.")
    return plain


def head_type(which: str | HeadType) -> HeadType:
    """Return the value of a head type: by its name or an alias; a value is returned as it is."""
    if isinstance(which, HeadType):
        return which
    if not isinstance(which, str):
        raise BadInput(f"Not a head type: {which!r}. Give a name, or a HeadType.")
    module = importlib.import_module(f"nnheads.detectors.{canonical(which)}")
    found: HeadType = module.HEAD_TYPE
    return found


def head_types(which: str | HeadType | Sequence[str | HeadType]) -> list[HeadType]:
    """Return the values of some head types; "all" stands for every one that ships."""
    if which == ALL:
        return [head_type(name) for name in types()]
    several = [which] if isinstance(which, (str, HeadType)) else which
    return [head_type(one) for one in several]

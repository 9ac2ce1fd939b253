"""Files of claims: read, checked to the last field, found by the name of a model.

    for claim in claims_of("gpt2").claims:
        print(claim.id, claim.published)

A file that is not what `nnheads.claims` describes is BadInput: one line that names file, claim and
field.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from nnheads.claims.claim import ABOVE, KINDS, OVER_HEADS, REDUCTIONS, Claim, Claims, Grid
from nnheads.claims.fields import Entry, wrong
from nnheads.errors import BadInput, first_line, no_file
from nnheads.interchange.table import repeated
from nnheads.models.names import parse_head

FOLDER = Path(__file__).parent
FILE_FIELDS = ("model", "aliases", "note", "grids", "claims")
SAID = ("id", "claim", "source", "kind", "published", "tolerance", "warn", "negative")
FIELDS = (*SAID, "requires", "how", "where")
WHERE = ("variable", "head", "heads", "reduce", *OVER_HEADS, *ABOVE, "correlation")
EXPECTED = "expected an object with model and a list of claims"


def files() -> dict[str, Path]:
    """Return the file of claims of every model, by each of its names."""
    by_name: dict[str, Path] = {}
    for path in sorted(FOLDER.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        by_name |= dict.fromkeys([content["model"], *content.get("aliases", [])], path)
    return by_name


def claims_of(model: str) -> Claims:
    """Return the claims about a model that ship with nnheads.

    Args:
        model: a Hub id, another name of the model, or a folder that is called so.

    Raises:
        BadInput: no claims about it.
    """
    known, name = files(), _short(model)
    if name not in known:
        raise BadInput(
            f"there are no claims about {name!r}; there are about {', '.join(sorted(known))}; see"
            " --claims"
        )
    return read_claims(known[name])


def _short(model: str) -> str:
    """Return a model's name, for a folder its last part."""
    folder = Path(model).expanduser()
    return folder.resolve().name if folder.is_dir() else model


def read_claims(path: str | Path) -> Claims:
    """Return the claims of a file.

    Raises:
        BadInput: no such file, or one that holds no claims.
    """
    path = Path(path)
    entry = Entry(str(path), _content(path))
    entry.only(FILE_FIELDS)
    grids = _grids(entry)
    claims = tuple(
        _claim(f"{path}, claim {number}", row, grids)
        for number, row in enumerate(entry.content["claims"], 1)
    )
    _check_ids(entry, claims)
    aliases = entry.texts("aliases", '["gpt2"]')
    note = str(entry.content.get("note", ""))
    return Claims(entry.text("model"), claims, tuple(aliases), note, grids)


def _content(path: Path) -> dict[str, Any]:
    """Return the object in a file, which has a model and some claims."""
    content = _json(path)
    rows = content.get("claims") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows or not isinstance(content.get("model"), str):
        raise BadInput(f"{path} holds no claims; {EXPECTED}")
    return content


def _json(path: Path) -> Any:
    if not path.is_file():
        raise BadInput(f"{no_file(path)}; expected claims as in nnheads/claims/*.json")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise BadInput(f"{path} is nested too deeply; {EXPECTED}") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} is not JSON: {first_line(error)}") from None


def _grids(entry: Entry) -> dict[str, Grid]:
    grids = entry.content.get("grids", {})
    if not isinstance(grids, dict):
        raise entry.wrong("grids", "an object of named tables")
    inside = Entry(f"{entry.name}, grids", grids)
    return {name: _grid(inside, name) for name in grids}


def _grid(entry: Entry, name: str) -> Grid:
    try:
        table = np.array(entry.content[name], float)
    except (TypeError, ValueError, OverflowError):
        table = np.empty(0)
    if table.ndim != 2 or not np.isfinite(table).all():
        raise entry.wrong(name, "rows of layers and columns of heads, all numbers")
    return table


def _claim(name: str, row: Any, grids: dict[str, Grid]) -> Claim:
    """Return a claim with its defaults, every field checked."""
    if not isinstance(row, dict):
        raise wrong(name, row, "an object")
    entry = Entry(f"{name} ({str(row['id'])[:40]})" if "id" in row else name, row)
    entry.only(FIELDS)
    tolerance, warn = _tolerances(entry)
    return Claim(
        id=entry.text("id"),
        claim=entry.text("claim"),
        source=entry.text("source"),
        kind=entry.choice("kind", KINDS),
        published=entry.number("published"),
        tolerance=tolerance,
        warn=warn,
        negative=entry.flag("negative"),
        how=entry.object("how", "measure").content,
        where=_where(entry.object("where", "variable"), grids),
        requires=entry.text("requires", ""),
    )


def _tolerances(entry: Entry) -> tuple[float, float]:
    """Return how far off a number passes, and how far off is only a warning."""
    tolerance = entry.number("tolerance", 0.0)
    warn = entry.number("warn", tolerance)
    if tolerance < 0:
        raise entry.wrong("tolerance", "a number from 0 on")
    if warn < tolerance:
        raise entry.wrong("warn", f"at least the tolerance, {tolerance:g}")
    return tolerance, warn


def _where(entry: Entry, grids: dict[str, Grid]) -> dict[str, Any]:
    """Return which number of a measurement a claim is about, with heads as (layer, head)."""
    entry.only(WHERE)
    where = entry.content
    heads = [entry.text("head")] if "head" in where else entry.texts("heads", '["9.9", "9.6"]')
    if "reduce" in where:
        entry.choice("reduce", REDUCTIONS)
    if "correlation" in where:
        entry.choice("correlation", grids)
    for name in OVER_HEADS:
        if name in where and entry.count(name) and not heads:
            raise entry.wrong("heads", f"the heads that {name} is about")
    for name in ABOVE:
        if name in where:
            entry.number(name)
    return {**where, "heads": _parsed(entry, heads)}


def _parsed(entry: Entry, heads: list[str]) -> list[tuple[int, int]]:
    try:
        return [parse_head(head) for head in heads]
    except BadInput as error:
        raise BadInput(f"{entry.name}: {error}") from None


def _check_ids(entry: Entry, claims: tuple[Claim, ...]) -> None:
    """Refuse an id that comes twice, and claims that require what is not there or themselves."""
    twice = repeated([claim.id for claim in claims])
    if twice is not None:
        raise BadInput(f"{entry.name}: the id {twice!r} comes twice; expected one of its own")
    needs = {claim.id: claim.requires for claim in claims}
    for claim in claims:
        _check_needs(Entry(f"{entry.name}, claim {claim.id[:40]}", vars(claim)), needs)


def _check_needs(entry: Entry, needs: dict[str, str]) -> None:
    """Refuse a claim whose chain of requirements leaves the file or does not end."""
    name, steps = entry.content["requires"], 0
    if name and name not in needs:
        raise entry.wrong("requires", "the id of another claim of this file")
    while name and steps <= len(needs):
        name, steps = needs.get(name, ""), steps + 1
    if name:
        raise entry.wrong("requires", "the first of a chain of claims that ends")

"""Files of claims: read, checked to the last field, found by the name of a model."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nnheads.errors import BadInput
from nnheads.models.names import parse_head

FOLDER = Path(__file__).parent
KINDS = {"value": "=", "at_least": ">=", "at_most": "<="}
REDUCTIONS = ("mean", "min", "max", "sum")
OVER_HEADS = ("among_top", "among_bottom")
ABOVE = ("count_above", "share_above")
FIELDS = (
    "id",
    "claim",
    "source",
    "kind",
    "published",
    "tolerance",
    "warn",
    "requires",
    "negative",
    "how",
    "where",
)
WHERE = ("variable", "head", "heads", "reduce", *OVER_HEADS, *ABOVE, "correlation")


@dataclass(frozen=True)
class Claim:
    """One published number and how it is measured; the fields are those of the file (see the
    package).
    """

    id: str
    claim: str
    source: str
    kind: str
    published: float
    tolerance: float
    warn: float
    negative: bool
    how: dict
    where: dict
    requires: str = ""

    @property
    def run(self) -> str:
        """What claims have in common that one run serves."""
        return json.dumps(self.how, sort_keys=True)


@dataclass(frozen=True)
class Claims:
    """A file of claims. grids: name -> [layer, head]."""

    model: str
    claims: tuple[Claim, ...]
    aliases: tuple[str, ...] = ()
    note: str = ""
    grids: dict[str, np.ndarray] = field(default_factory=dict)


def files() -> dict[str, Path]:
    """Model, or another name of it -> the file of its claims."""
    found: dict[str, Path] = {}
    for path in sorted(FOLDER.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        found |= dict.fromkeys([content["model"], *content.get("aliases", [])], path)
    return found


def claims_of(model: str) -> Claims:
    """The claims that ship with nnheads about a model.

    Raises BadInput, with what there is, if there are none.
    """
    known = files()
    name = Path(model).expanduser().resolve().name if Path(model).expanduser().is_dir() else model
    if name not in known:
        raise BadInput(
            f"there are no claims about {name!r}; there are about {', '.join(sorted(known))}; see"
            " --claims"
        )
    return read_claims(known[name])


def read_claims(path: str | Path) -> Claims:
    """A file of claims.

    Raises:
        BadInput: one line that names file, claim and field.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"no file {str(path)!r}; expected claims as in nnheads/claims/*.json")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise BadInput(f"{path} is nested too deeply; expected claims") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} is not JSON: {str(error).splitlines()[0]}") from None
    rows = content.get("claims") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows or not isinstance(content.get("model"), str):
        raise BadInput(
            f"{path} holds no claims; expected an object with model and a list of claims"
        )
    unknown = set(content) - {"model", "aliases", "note", "grids", "claims"}
    if unknown:
        raise BadInput(
            f"{path}: {sorted(unknown)[0]!r} is not known; expected model, aliases, note, grids,"
            " claims"
        )
    grids = _grids(path, content.get("grids", {}))
    found = tuple(
        _claim(f"{path}, claim {number}", row, grids) for number, row in enumerate(rows, 1)
    )
    names = [claim.id for claim in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BadInput(f"{path}: the id {twice!r} comes twice")
    _check_needs(path, found)
    aliases = content.get("aliases", [])
    if not isinstance(aliases, list) or not all(isinstance(one, str) for one in aliases):
        raise BadInput(f"{path}: aliases is {aliases!r}; expected a list of names")
    return Claims(content["model"], found, tuple(aliases), str(content.get("note", "")), grids)


def _check_needs(path: Path, claims: tuple[Claim, ...]) -> None:
    """What a claim requires is in the file, and does not come back to the claim itself."""
    needs = {claim.id: claim.requires for claim in claims}
    for number, claim in enumerate(claims, 1):
        name, seen = claim.requires, 0
        if name and name not in needs:
            raise BadInput(
                f"{path}, claim {number} ({claim.id[:40]}): requires {name[:40]!r}; expected the id"
                " of another claim of this file"
            )
        while needs.get(name) and seen <= len(needs):
            name, seen = needs[name], seen + 1
        if claim.requires == claim.id or seen > len(needs):
            raise BadInput(f"{path}: the claim {claim.id[:40]} requires itself in the end")


def _grids(path: Path, given) -> dict[str, np.ndarray]:
    if not isinstance(given, dict):
        raise BadInput(f"{path}: grids is no object of named tables")
    found = {}
    for name, rows in given.items():
        try:
            table = np.array(rows, float)
        except (TypeError, ValueError):
            table = np.empty(0)
        if table.ndim != 2 or not np.isfinite(table).all():
            raise BadInput(
                f"{path}: the grid {name!r} is no table of numbers, rows of layers and columns of"
                " heads"
            )
        found[str(name)] = table
    return found


def _claim(place: str, row, grids: dict) -> Claim:
    """A claim with its defaults, every field checked."""
    if not isinstance(row, dict):
        raise BadInput(f"{place} is {str(row)[:40]!r}; expected an object")
    place = f"{place} ({str(row['id'])[:40]})" if "id" in row else place
    for name in row:
        if name not in FIELDS:
            raise BadInput(f"{place}: {name!r} is not known; expected {', '.join(FIELDS)}")
    for name in ("id", "claim", "source", "kind"):
        if not isinstance(row.get(name), str) or not row[name].strip():
            raise BadInput(f"{place}: {name} is missing or no text")
    if row["kind"] not in KINDS:
        raise BadInput(f"{place}: kind {row['kind']!r} is not known; use one of {', '.join(KINDS)}")
    published = _number(place, row, "published")
    tolerance = _number(place, row, "tolerance", 0.0)
    warn = _number(place, row, "warn", tolerance)
    if not 0 <= tolerance <= warn:
        raise BadInput(f"{place}: tolerance {tolerance:g} and warn {warn:g} must rise from 0")
    if not isinstance(row.get("negative", False), bool):
        raise BadInput(f"{place}: negative is {row['negative']!r}; expected true or false")
    if not isinstance(row.get("requires", ""), str):
        raise BadInput(
            f"{place}: requires {str(row['requires'])[:40]}; expected the id of another claim of"
            " this file"
        )
    how = row.get("how")
    if not isinstance(how, dict) or not isinstance(how.get("measure"), str):
        raise BadInput(f"{place}: how is no object with a measure")
    return Claim(
        row["id"],
        row["claim"],
        row["source"],
        row["kind"],
        published,
        tolerance,
        warn,
        row.get("negative", False),
        how,
        _where(place, row.get("where"), grids),
        row.get("requires", ""),
    )


def _number(place: str, row: dict, name: str, default: float | None = None) -> float:
    value: Any = row.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
        raise BadInput(f"{place}: {name} is {value!r}; expected a number")
    return float(value)


def _where(place: str, where, grids: dict) -> dict:
    """Which number of a run, with heads as (layer, head)."""
    if not isinstance(where, dict) or not isinstance(where.get("variable"), str):
        raise BadInput(f"{place}: where is no object with a variable")
    for name in where:
        if name not in WHERE:
            raise BadInput(f"{place}: where has {name!r}; expected {', '.join(WHERE)}")
    found = dict(where)
    heads = [where["head"]] if "head" in where else where.get("heads", [])
    if not isinstance(heads, list) or not all(isinstance(one, str) for one in heads):
        raise BadInput(f'{place}: heads are {heads!r}; expected a list such as ["9.9", "9.6"]')
    try:
        found["heads"] = [parse_head(one) for one in heads]
    except BadInput as error:
        raise BadInput(f"{place}: {error}") from None
    if "reduce" in where and where["reduce"] not in REDUCTIONS:
        raise BadInput(
            f"{place}: reduce {where['reduce']!r} is not known; use one of {', '.join(REDUCTIONS)}"
        )
    for name in OVER_HEADS:
        if name in where and (
            isinstance(where[name], bool) or not isinstance(where[name], int) or where[name] < 1
        ):
            raise BadInput(f"{place}: {name} is {where[name]!r}; expected how many heads")
        if name in where and not heads:
            raise BadInput(f"{place}: {name} asks how many of some heads, and names none in heads")
    for name in ABOVE:
        if name in where:
            _number(place, where, name)
    if "correlation" in where and where["correlation"] not in grids:
        raise BadInput(
            f"{place}: there is no grid {where['correlation']!r}; there are"
            f" {', '.join(grids) or 'none'}"
        )
    return found

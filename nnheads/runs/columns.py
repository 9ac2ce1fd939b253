"""What a dataset says of each head, read by shape and not by recipe.

    for column in columns(heads, "ioi"):  # the headline first
        column.values, column.low, column.high, column.flag

Every number over (layer, head) is a score, and what stands beside it under the names that all
recipes use (`_low`, `_high`, `null`, `q_value`, `flag`, `strong`) belongs to it; a number over
(layer, kv_head) is one of the keys and values that several heads share. A recipe that is new is
understood as it is. A file whose heads are not counted by whole numbers is BadInput.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from nnheads.errors import BadInput
from nnheads.stats import RATE

CELL = ("layer", "head")
SHARED_CELL = ("layer", "kv_head")  # where several query heads have keys and values in common
LARGEST = 1 << 16  # heads of a model; the largest that we know has a quarter of that
LONGEST = 4000  # characters of a text in a file of results
PARTS = ("_low", "_high", "_null", "_q_value", "_p_value")
SHARED = ("null", "q_value", "flag", "strong")  # of the headline
# what ranks heads where the files do not say it
HEADLINES = {
    "ioi": "effect",
    "path": "effect",
    "attribute": "estimate",
    "knockout": "growth",
    "function-vectors": "aie",
    "patch": "z",
}
# which heads a score puts first, where the files do not say it: those of the highest value, of the
# largest size (below zero may help, or hurt), or of the lowest
HIGHEST, SIZE, LOWEST = "highest", "size", "lowest"
FIRST = {"ioi": SIZE, "path": SIZE, "attribute": SIZE, "circuit": SIZE, "knockout": LOWEST}
Tables = dict[str, xr.Dataset]


@dataclass(frozen=True)
class Column:
    """A score over (layer, head) and what belongs to it; None where there is no such thing.

    headline: heads are ranked by it. first: which heads it puts first, HIGHEST, SIZE or LOWEST.
    """

    name: str
    values: xr.DataArray
    headline: bool
    first: str = HIGHEST
    low: xr.DataArray | None = None
    high: xr.DataArray | None = None
    null: xr.DataArray | None = None
    q_value: xr.DataArray | None = None
    flag: xr.DataArray | None = None


def tables_in(datasets: Tables, folder: Path, cell: tuple[str, str] = CELL) -> Tables:
    """Return those of a run's datasets that have numbers over `cell`, checked."""
    return {
        name: checked(dataset, folder / name, cell)
        for name, dataset in datasets.items()
        if any(set(values.dims) == set(cell) for values in dataset.data_vars.values())
    }


def checked(dataset: xr.Dataset, path: Path, cell: tuple[str, str] = CELL) -> xr.Dataset:
    """Return the numbers over `cell`, in that order, with heads counted by whole numbers.

    Raises:
        BadInput: other coordinates, or more heads than a model has.
    """
    for name in cell:
        if name not in dataset.coords:
            dataset = dataset.assign_coords({name: range(dataset.sizes[name])})
        if not _counts(dataset[name].values):
            raise BadInput(
                f"{path}: coordinate {name} is no list of different whole numbers from zero"
            )
    layers, heads = (int(dataset[name].max()) + 1 for name in cell)
    if layers * heads > LARGEST:
        raise BadInput(f"{path} has more than {LARGEST} heads; that is no model's")
    return dataset.transpose(*cell, ...)


def _counts(values: np.ndarray) -> bool:
    """Return whether these are different whole numbers from zero."""
    if values.dtype.kind not in "iu" or values.size == 0:
        return False
    return bool(values.min() >= 0) and np.unique(values).size == values.size


def columns(dataset: xr.Dataset, recipe: str = "", cell: tuple[str, str] = CELL) -> list[Column]:
    """Return the scores of a table over `cell`; the headline comes first."""
    cells = {
        str(name): values
        for name, values in dataset.data_vars.items()
        if set(values.dims) == set(cell)
        and values.dtype.kind in "fiu"
        and "flag_meanings" not in values.attrs
    }
    beside = (*SHARED, "p_value")
    names = [name for name in cells if name not in beside and not _belongs(name, cells)]
    if not names:
        return []
    wanted = dataset.attrs.get("headline", HEADLINES.get(recipe))
    headline = wanted if wanted in names else names[0]
    names.sort(key=lambda name: name != headline)
    first = text(dataset.attrs.get("first")) or FIRST.get(recipe, HIGHEST)
    return [_column(name, cells, name == headline, first) for name in names]


def strength(values: Any, first: str) -> Any:
    """Return values of which the highest is the strongest head's.

    Args:
        values: an array, labelled or not. first: which heads come first, as in `Column`.
    """
    if first == SIZE:
        return abs(values)
    return -values if first == LOWEST else values


def _belongs(name: str, cells: dict[str, xr.DataArray]) -> bool:
    """Return whether a number stands beside another one, as `effect_low` beside `effect`."""
    return any(name.endswith(part) and name.removesuffix(part) in cells for part in PARTS)


def _column(name: str, cells: dict[str, xr.DataArray], headline: bool, first: str) -> Column:
    beside = {part: cells.get(f"{name}_{part}") for part in ("low", "high", "null", "q_value")}
    flag = None
    if headline:
        for part in ("null", "q_value"):
            beside[part] = cells.get(part) if beside[part] is None else beside[part]
        flag = cells.get("flag")
    q_value = beside["q_value"]
    if flag is None and q_value is not None:
        flag = (q_value < RATE).astype("int8")
    return Column(name, cells[name], headline, first, flag=flag, **beside)


def roles_in(dataset: xr.Dataset) -> dict[tuple[int, int], str]:
    """Return the heads that a table gives a role by name: (layer, head) -> role."""
    roles = {}
    for values in dataset.data_vars.values():
        meanings = text(values.attrs.get("flag_meanings")).split()
        if set(values.dims) != set(CELL) or values.dtype.kind not in "iu" or not meanings:
            continue
        numbers = np.atleast_1d(values.attrs.get("flag_values", range(len(meanings)))).tolist()
        names = dict(zip(numbers, meanings))
        for (layer, head), number in values.transpose(*CELL).to_series().items():
            if names.get(number, "none") != "none":
                roles[int(layer), int(head)] = names[number]
    return roles


def text(value: Any) -> str:
    """Return an attribute as text of a bearable length; nothing for what is missing."""
    return "" if value is None else str(value)[:LONGEST]


def facts(value: Any) -> dict[str, Any]:
    """Return a JSON object in an attribute; empty for anything else."""
    try:
        content = json.loads(value)
    except (TypeError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def label_of(values: xr.DataArray) -> tuple[str, str]:
    """Return what a score means, and its unit."""
    meaning = text(values.attrs.get("long_name")) or text(values.name)
    return meaning, text(values.attrs.get("units", "1"))

"""Runs that lie on disk, whatever made them: which there are, and what they say of each head.

A run is a folder with a `run.json`. What it says of heads is read by shape and not by recipe: every
number over (layer, head) is a score, and what stands beside it under the names that all recipes use
(`_low`, `_high`, `null`, `q_value`, `flag`) belongs to it; a number over (layer, kv_head) is one of
the keys and values that several heads share. A recipe that is new is understood as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from nnheads.errors import BadInput, first_line
from nnheads.runs import store

CELL = ("layer", "head")
SHARED_CELL = ("layer", "kv_head")  # where several query heads have keys and values in common
RECORD = "run.json"
RATE = 0.05  # false discovery rate of a score that comes with q values and no flag
LARGEST = 1 << 16  # heads of a model; the largest that we know has a quarter of that
LONGEST = 4000  # characters of a text in a file of results
PARTS = ("_low", "_high", "_null", "_q_value", "_p_value")
SHARED = ("null", "q_value", "flag")  # of the headline
OUTPUT = "z"  # the site that goes without saying: what a head hands on
# what ranks heads where the files do not say it
HEADLINES = {
    "ioi": "effect",
    "path": "effect",
    "attribute": "estimate",
    "knockout": "growth",
    "function-vectors": "aie",
    "patch": "z",
}


@dataclass(frozen=True)
class Finished:
    """A finished run: its folder, the folder as a reader would name it, and its record."""

    folder: Path
    shown: str
    record: dict

    @property
    def recipe(self) -> str:
        return text(self.record.get("recipe"))

    @property
    def named(self) -> list[str]:
        """What its record says that it wrote, wherever that is."""
        named = self.record.get("files", [path.name for path in sorted(self.folder.glob("*.nc"))])
        return [name for name in named if isinstance(name, str)] if isinstance(named, list) else []

    @property
    def files(self) -> list[str]:
        """Names of the files that it wrote, each in its own folder."""
        return [name for name in self.named if Path(name).name == name]

    def dataset(self, name: str) -> xr.Dataset:
        """One of its netCDF files. Raises BadInput if it cannot be read."""
        path = self.folder / name
        try:
            return store.load(path)
        except BadInput:
            raise
        except Exception as error:  # whatever a library makes of bytes that nobody vouches for
            raise BadInput(f"{path} cannot be read as netCDF: {first_line(error)}") from None

    def samples(self) -> list[str]:
        """What it drew, by number, where its single cases are on disk: `200 question`."""
        if "scores.nc" not in self.files:
            return []
        scores = self.dataset("scores.nc")
        drawn = text(scores.attrs.get("sample_dims")).split()
        return [f"{scores.sizes[name]} {name}" for name in drawn if name in scores.sizes]

    @property
    def outcomes(self) -> list[str]:
        """Names of the netCDF files that say what came out. Single cases stay on disk: `scores.nc`
        holds them, unless it is the only file, as of a study of one pair."""
        names = [name for name in self.files if name.endswith(".nc")]
        return [name for name in names if name != "scores.nc"] or names

    def tables(self) -> dict[str, xr.Dataset]:
        """What it says of each head, by file: datasets with numbers over (layer, head)."""
        return tables_in({name: self.dataset(name) for name in self.outcomes}, self.folder)


@dataclass(frozen=True)
class Column:
    """A score over (layer, head) and what belongs to it; None where there is no such thing."""

    name: str
    values: xr.DataArray
    headline: bool
    low: xr.DataArray | None = None
    high: xr.DataArray | None = None
    null: xr.DataArray | None = None
    q_value: xr.DataArray | None = None
    flag: xr.DataArray | None = None


def find_runs(places: Iterable[str | Path]) -> tuple[list[Finished], list[str]]:
    """Finished runs in folders, however deep, in the order of their paths; and the folders of
    unfinished ones.

    Raises:
        BadInput: no such folder, a `run.json` that is none, or no run at all.
    """
    finished, unfinished, seen = [], [], set()
    asked = [Path(place) for place in places]
    for place in asked:
        root = place.parent if place.name == RECORD else place
        if not root.is_dir():
            raise BadInput(f"no folder {str(place)!r}; expected a run, or a folder that holds some")
        for path in sorted(root.rglob(RECORD)):
            folder = path.parent.resolve()
            if folder in seen:
                continue
            seen.add(folder)
            record = read_record(path)
            shown = str(path.parent.relative_to(root))
            shown = root.resolve().name if shown == "." else shown
            if record.get("complete"):
                finished.append(Finished(path.parent, text(shown), record))
            else:
                unfinished.append(text(shown))
    if not finished:
        partly = f"; {len(unfinished)} unfinished" if unfinished else ""
        raise BadInput(
            f"no finished run in {', '.join(map(str, asked))}{partly}; run nnheads detect all first"
        )
    return finished, unfinished


def read_record(path: Path) -> dict:
    """A `run.json`. Raises BadInput for a file that is none."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        record = None
    if (
        not isinstance(record, dict)
        or not isinstance(record.get("arguments"), dict)
        or "complete" not in record
    ):
        raise BadInput(
            f"{path} is not a record of a run; move that folder away, or run it again with"
            " --overwrite"
        )
    return record


def tables_in(
    datasets: dict[str, xr.Dataset], folder: Path, cell: tuple[str, str] = CELL
) -> dict[str, xr.Dataset]:
    """Those of a run's datasets that have numbers over `cell`, checked."""
    return {
        name: checked(dataset, folder / name, cell)
        for name, dataset in datasets.items()
        if any(set(values.dims) == set(cell) for values in dataset.data_vars.values())
    }


def checked(dataset: xr.Dataset, path: Path, cell: tuple[str, str] = CELL) -> xr.Dataset:
    """The numbers over `cell`, in that order, with heads counted by whole numbers, each once."""
    for name in cell:
        if name not in dataset.coords:
            dataset = dataset.assign_coords({name: range(dataset.sizes[name])})
        values = dataset[name].values
        if (
            values.dtype.kind not in "iu"
            or values.size == 0
            or np.unique(values).size != values.size
            or values.min() < 0
        ):
            raise BadInput(
                f"{path}: coordinate {name} is no list of different whole numbers from zero"
            )
    if int(dataset[cell[0]].max() + 1) * int(dataset[cell[1]].max() + 1) > LARGEST:
        raise BadInput(f"{path} has more than {LARGEST} heads; that is no model's")
    return dataset.transpose(*cell, ...)


def columns(dataset: xr.Dataset, recipe: str = "", cell: tuple[str, str] = CELL) -> list[Column]:
    """The scores of a table over `cell`; the headline comes first."""
    cells = {
        str(name): values
        for name, values in dataset.data_vars.items()
        if set(values.dims) == set(cell)
        and values.dtype.kind in "fiu"
        and "flag_meanings" not in values.attrs
    }
    names = [
        name for name in cells if name not in (*SHARED, "p_value") and not _belongs(name, cells)
    ]
    if not names:
        return []
    wanted = dataset.attrs.get("headline", HEADLINES.get(recipe))
    first = wanted if wanted in names else names[0]
    return [
        _column(name, cells, name == first)
        for name in sorted(names, key=lambda name: name != first)
    ]


def _belongs(name: str, cells: dict) -> bool:
    return any(name.endswith(part) and name.removesuffix(part) in cells for part in PARTS)


def _column(name: str, cells: dict, headline: bool) -> Column:
    own = {part: cells.get(f"{name}_{part}") for part in ("low", "high", "null", "q_value")}
    if headline:
        own |= {
            part: cells[part] for part in ("null", "q_value") if own[part] is None and part in cells
        }
    q_value = own["q_value"]
    flag = cells.get("flag") if headline else None
    if flag is None and q_value is not None:
        flag = (q_value < RATE).astype("int8")
    return Column(name, cells[name], headline, flag=flag, **own)


def roles_in(dataset: xr.Dataset) -> dict[tuple[int, int], str]:
    """Heads that a table gives a role by name: (layer, head) -> role."""
    found = {}
    for values in dataset.data_vars.values():
        meanings = text(values.attrs.get("flag_meanings")).split()
        if set(values.dims) == set(CELL) and values.dtype.kind in "iu" and meanings:
            numbers = np.atleast_1d(values.attrs.get("flag_values", range(len(meanings)))).tolist()
            names = dict(zip(numbers, meanings))
            for (layer, head), number in values.transpose(*CELL).to_series().items():
                if names.get(number, "none") != "none":
                    found[int(layer), int(head)] = names[number]
    return found


def text(value) -> str:
    """An attribute as text of a bearable length; nothing for what is missing."""
    return "" if value is None else str(value)[:LONGEST]


def facts(value) -> dict:
    """A JSON object in an attribute; empty for anything else."""
    try:
        found = json.loads(value)
    except (TypeError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def label_of(values: xr.DataArray) -> tuple[str, str]:
    """What a score means and its unit."""
    return text(values.attrs.get("long_name")) or text(values.name), text(
        values.attrs.get("units", "1")
    )


def kind_of(run: Finished, dataset: xr.Dataset, file: str = "") -> str:
    """What a table is about, in a word or two: a head type, or the recipe and what sets it apart:
    an argument, or the name of the table's file."""
    kind = text(dataset.attrs.get("kind"))
    if run.recipe == "detect" and kind:
        return kind
    arguments = run.record["arguments"]
    told = [arguments.get(key) for key in ("kind", "behaviour", "pattern")]
    told.append(f"to {arguments['receivers']}" if arguments.get("receivers") else None)
    told.append(None if arguments.get("site") == OUTPUT else arguments.get("site"))
    told.append(None if file in ("", "heads.nc", "scores.nc") else file.removesuffix(".nc"))
    apart = next((text(one) for one in told if one), "")
    return f"{run.recipe} {apart}".strip() or run.shown

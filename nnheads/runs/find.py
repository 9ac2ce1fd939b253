"""Find the runs that lie on disk, whatever made them.

    finished, unfinished = find_runs(["results"])
    finished[0].tables()  # what it says of each head

A run is a folder with a `run.json`. A folder without one, or a record that is none, is BadInput.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from nnheads.errors import BadInput, first_line
from nnheads.runs import store
from nnheads.runs.columns import tables_in, text
from nnheads.runs.record import RECORD, read_record

OUTPUT = "z"  # the site that goes without saying: what a head hands on


@dataclass(frozen=True)
class Finished:
    """A finished run: its folder, the folder as a reader would name it, and its record."""

    folder: Path
    shown: str
    record: dict[str, Any]

    @property
    def recipe(self) -> str:
        """The recipe that made it."""
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
        """Read one of its netCDF files. Raises BadInput if it cannot be read."""
        path = self.folder / name
        try:
            return store.load(path)
        except BadInput:
            raise
        except Exception as error:  # whatever a library makes of bytes that nobody vouches for
            raise BadInput(f"{path} cannot be read as netCDF: {first_line(error)}") from None

    def samples(self) -> list[str]:
        """Return what it drew, by number, where its single cases are on disk: `200 question`."""
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
        """Return what it says of each head, by file: datasets with numbers over (layer, head)."""
        return tables_in({name: self.dataset(name) for name in self.outcomes}, self.folder)


def find_runs(places: Iterable[str | Path]) -> tuple[list[Finished], list[str]]:
    """Return the finished runs in folders, however deep, and the folders of unfinished ones.

    Both come in the order of their paths.

    Raises:
        BadInput: no such folder, a `run.json` that is none, or no run at all.
    """
    finished: list[Finished] = []
    unfinished: list[str] = []
    paths = [Path(place) for place in places]
    for folder, shown in _folders(paths):
        record = read_record(folder / RECORD)
        if record.get("complete"):
            finished.append(Finished(folder, text(shown), record))
        else:
            unfinished.append(text(shown))
    if not finished:
        partly = f"; {len(unfinished)} unfinished" if unfinished else ""
        raise BadInput(
            f"no finished run in {', '.join(map(str, paths))}{partly}; run nnheads detect all first"
        )
    return finished, unfinished


def _folders(paths: list[Path]) -> Iterator[tuple[Path, str]]:
    """Go through the folders that hold a record, each once, with its name for a reader."""
    seen = set()
    for path in paths:
        root = path.parent if path.name == RECORD else path
        if not root.is_dir():
            raise BadInput(f"no folder {str(path)!r}; expected a run, or a folder that holds some")
        for record in sorted(root.rglob(RECORD)):
            folder = record.parent.resolve()
            if folder in seen:
                continue
            seen.add(folder)
            shown = str(record.parent.relative_to(root))
            yield record.parent, root.resolve().name if shown == "." else shown


def kind_of(run: Finished, dataset: xr.Dataset, file: str = "") -> str:
    """Return what a table is about, in a word or two.

    This is a head type, or the recipe and what sets it apart: an argument, or the name of the
    table's file.
    """
    kind = text(dataset.attrs.get("kind"))
    if run.recipe == "detect" and kind:
        return kind
    arguments = run.record["arguments"]
    receivers, site = arguments.get("receivers"), arguments.get("site")
    candidates = [
        *(arguments.get(key) for key in ("kind", "behaviour", "pattern")),
        f"to {receivers}" if receivers else None,
        None if site == OUTPUT else site,
        None if file in ("", "heads.nc", "scores.nc") else file.removesuffix(".nc"),
    ]
    apart = next((text(one) for one in candidates if one), "")
    return f"{run.recipe} {apart}".strip() or run.shown

"""Scores of heads side by side: those of runs, and lists that other tools or papers have published.

An entry is one score of every head of one model at one revision, under names that are the same for
all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from nnheads.errors import BadInput
from nnheads.interchange.read import read_heads
from nnheads.interchange.table import KV, fitted
from nnheads.runs.columns import CELL, Column, columns, text
from nnheads.runs.find import Finished, kind_of
from nnheads.runs.provenance import model_folder

LIST = "list"  # the revision of what a file says, which names none


@dataclass(frozen=True)
class Entry:
    """One score of every head of one model at one revision, and the single prompts behind it, if
    they are known.
    """

    model: str
    revision: str
    type: str  # with a number behind it where a model was asked twice
    kind: str
    heads: xr.Dataset
    scores: xr.Dataset | None = None

    @property
    def name(self) -> str:
        return f"{self.model} {self.revision} {self.type}"

    @property
    def shape(self) -> tuple[int, int]:
        return self.heads.sizes["layer"], self.heads.sizes["head"]


def entries_of(runs: Iterable[Finished]) -> list[Entry]:
    """The headline of every table of heads in these runs."""
    found: list[Entry] = []
    for run in runs:
        for file, dataset in run.tables().items():
            made = columns(dataset, run.recipe)
            if not made:
                continue
            model = (
                text(dataset.attrs.get("model"))
                or text(run.record["arguments"].get("model"))
                or "unnamed"
            )
            revision, kind = (
                text(dataset.attrs.get("revision")) or "main",
                kind_of(run, dataset, file),
            )
            before = sum(
                (one.model, one.revision, one.kind) == (model, revision, kind) for one in found
            )
            name = f"{kind} ({before + 1})" if before else kind
            scores = (
                run.dataset("scores.nc")
                if run.recipe == "detect" and "scores.nc" in run.files
                else None
            )
            found.append(Entry(model, revision, name, kind, scored(dataset, made[0]), scores))
    if not found:
        raise BadInput(
            "these runs say nothing of single heads; nnheads detect, ioi, path, writes and"
            " others do"
        )
    return found


def scored(dataset: xr.Dataset, column) -> xr.Dataset:
    """A head table under names that are the same for all: `score` with `low`, `high`, `null`,
    `q_value`, `flag`.
    """
    parts = {
        "score": column.values,
        **{name: getattr(column, name) for name in ("low", "high", "null", "q_value")},
    }
    parts["flag"] = column.flag
    table = xr.Dataset(
        {
            name: values.drop_vars(_extra(values))
            for name, values in parts.items()
            if values is not None
        }
    )
    layers = table["layer"].values
    depth = layers / max(1, int(layers.max()))
    table = table.assign_coords(
        depth=("layer", depth.astype(np.float32), {"long_name": "relative depth", "units": "1"})
    )
    return table.transpose(*CELL).assign_attrs({**dataset.attrs, "statistic": column.name})


def _extra(values: xr.DataArray) -> list:
    return [name for name in values.coords if name not in CELL]


def entries_of_files(paths: Iterable[Path], known: Sequence[Entry] = ()) -> list[Entry]:
    """Lists of heads in any format of `interchange.read` beside the entries of runs.

    A file that names its model, or stands beside runs of a single one, is of that model, and its
    heads are those of the model's table. Heads of a ranked list or of a circuit are flagged; a head
    that a file does not name has no score.

    Raises:
        BadInput: a file that is no list, key/value heads, or heads that the model does not have.
    """
    shapes = {one.model: one.shape for one in known}
    alone = next(iter(shapes)) if len(shapes) == 1 else "unnamed"
    found = []
    for path in paths:
        table = read_heads(path)
        if KV in table.dims:
            raise BadInput(f"{path} scores key/value heads; an atlas compares query heads")
        named = text(table.attrs.get("model"))
        found.append((path, model_folder(named) if named else alone, table))
    for _, model, table in found:  # lists of a model without runs share a table that holds them all
        if not any(one.model == model for one in known):
            shape, own = shapes.get(model, (0, 0)), table["score"].shape
            shapes[model] = (max(shape[0], own[0]), max(shape[1], own[1]))
    return [
        Entry(model, LIST, path.stem, path.stem, _listed(table, shapes[model]))
        for path, model, table in found
    ]


def _listed(table: xr.Dataset, shape: tuple[int, int]) -> xr.Dataset:
    """A list under the names of `scored`."""
    table = fitted(table, *shape)
    score = table["score"]
    if "rank" in table and _alike(
        score.where(table["rank"].notnull())
    ):  # an order, and nothing else
        score = _by_place(table["rank"])
    flag = None
    if "in_circuit" in table or "rank" in table:
        member = table["in_circuit"] == 1 if "in_circuit" in table else table["rank"].notnull()
        about = {"long_name": "1 for the heads of the list", "units": "1"}
        flag = None if bool(member.all()) else member.astype("int8").assign_attrs(about)
    return scored(table, Column("score", score, True, flag=flag))


def _alike(values: xr.DataArray) -> bool:
    return bool(values.max() == values.min())


def _by_place(rank: xr.DataArray) -> xr.DataArray:
    """1 for the first of a list, less for each that follows; NaN for heads that are not in it."""
    score = (1 - rank / rank.notnull().sum()).astype("float32")
    return score.assign_attrs(long_name="place in the list, 1 for the first", units="1")

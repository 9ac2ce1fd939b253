"""Scores of heads side by side: those of runs, and lists that others have published.

    entries = entries_of(find_runs(folder)) + entries_of_files([Path("published.json")])

An entry is one score of every head of one model at one revision, under names that are the same for
all. Runs without a table of heads are passed over; if no run has one, that is refused.
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
from nnheads.runs.columns import CELL, Column, columns, strength, text
from nnheads.runs.find import Finished, kind_of
from nnheads.runs.provenance import model_folder

LIST = "list"  # the revision of what a file says, which names none
ENDS = ("low", "high", "null", "q_value")


@dataclass(frozen=True)
class Entry:
    """One score of every head of one model at one revision.

    type: the kind, with a number behind it where a model was asked twice.
    heads: (layer, head), as `scored` names it; `strength_of` ranks them.
    scores: the single prompts behind it, where known.
    """

    model: str
    revision: str
    type: str
    kind: str
    heads: xr.Dataset
    scores: xr.Dataset | None = None

    @property
    def name(self) -> str:
        """Return what the entry is called in tables and pictures."""
        return f"{self.model} {self.revision} {self.type}"

    @property
    def shape(self) -> tuple[int, int]:
        """Return how many layers and heads there are."""
        return self.heads.sizes["layer"], self.heads.sizes["head"]


def entries_of(runs: Iterable[Finished]) -> list[Entry]:
    """Return the headline of every table of heads in these runs.

    Raises:
        BadInput: runs without any table of heads.
    """
    entries: list[Entry] = []
    for run in runs:
        _add_tables(run, entries)
    if not entries:
        raise BadInput(
            "These runs say nothing of single heads. Use runs of nnheads detect, ioi, path, writes"
            " and others that rank heads."
        )
    return entries


def _add_tables(run: Finished, entries: list[Entry]) -> None:
    """Add every table of heads of a run."""
    for file, dataset in run.tables().items():
        made = columns(dataset, run.recipe)
        if made:
            entries.append(_entry(run, file, dataset, made[0], entries))


def _entry(
    run: Finished, file: str, dataset: xr.Dataset, column: Column, before: list[Entry]
) -> Entry:
    """Return one table of heads as an entry beside those before it."""
    attrs, arguments = dataset.attrs, run.record["arguments"]
    model = text(attrs.get("model")) or text(arguments.get("model")) or "unnamed"
    revision, kind = text(attrs.get("revision")) or "main", kind_of(run, dataset, file)
    asked = [(one.model, one.revision, one.kind) for one in before].count((model, revision, kind))
    name = f"{kind} ({asked + 1})" if asked else kind
    has_scores = run.recipe == "detect" and "scores.nc" in run.files
    scores = run.dataset("scores.nc") if has_scores else None
    return Entry(model, revision, name, kind, scored(dataset, column), scores)


def scored(dataset: xr.Dataset, column: Column) -> xr.Dataset:
    """Return a head table under names that are the same for all.

    Returns:
        (layer, head): `score` and, where known, `low`, `high`, `null`, `q_value` and `flag`.
    """
    parts = {"score": column.values, **{name: getattr(column, name) for name in ENDS}}
    parts["flag"] = column.flag
    known = {name: values for name, values in parts.items() if values is not None}
    table = xr.Dataset({name: values.drop_vars(_extra(values)) for name, values in known.items()})
    layers = table["layer"].values
    depth = (layers / max(1, int(layers.max()))).astype(np.float32)
    about = {"long_name": "relative depth", "units": "1"}
    table = table.assign_coords(depth=("layer", depth, about))
    about = {**dataset.attrs, "statistic": column.name, "first": column.first}
    return table.transpose(*CELL).assign_attrs(about)


def strength_of(heads: xr.Dataset) -> xr.DataArray:
    """Return the score of an entry's heads such that the highest is the strongest head's."""
    return strength(heads["score"], text(heads.attrs.get("first")))


def _extra(values: xr.DataArray) -> list:
    return [name for name in values.coords if name not in CELL]


def entries_of_files(paths: Iterable[Path], known: Sequence[Entry] = ()) -> list[Entry]:
    """Return lists of heads in any format of `interchange.read`, beside the entries of runs.

    A file that names its model, or stands beside runs of a single one, is of that model, and its
    heads are those of the model's table. Heads of a ranked list or of a circuit are flagged; a head
    that a file does not name has no score.

    Raises:
        BadInput: a file that is no list, key/value heads, or heads that the model does not have.
    """
    shapes = {one.model: one.shape for one in known}
    alone = next(iter(shapes)) if len(shapes) == 1 else "unnamed"
    lists = []
    for path in paths:
        table = _table_of(path)
        named = text(table.attrs.get("model"))
        lists.append((path, model_folder(named) if named else alone, table))
    of_runs = set(shapes)
    for _, model, table in lists:  # lists of a model without runs share a table that holds them all
        if model not in of_runs:
            pairs = zip(shapes.get(model, (0, 0)), table["score"].shape)
            layers, heads = (max(pair) for pair in pairs)
            shapes[model] = (layers, heads)
    return [
        Entry(model, LIST, path.stem, path.stem, _listed(table, shapes[model]))
        for path, model, table in lists
    ]


def _table_of(path: Path) -> xr.Dataset:
    """Read a list of query heads."""
    table = read_heads(path)
    if KV in table.dims:
        raise BadInput(f"{path} scores key/value heads. An atlas compares query heads.")
    return table


def _listed(table: xr.Dataset, shape: tuple[int, int]) -> xr.Dataset:
    """Return a list under the names of `scored`."""
    table = fitted(table, *shape)
    score = table["score"]
    if _only_ordered(table):
        score = _by_rank(table["rank"])
    return scored(table, Column("score", score, True, flag=_membership(table)))


def _membership(table: xr.Dataset) -> xr.DataArray | None:
    """Return 1 for the heads of a list or circuit; None where it holds every head."""
    if "in_circuit" in table:
        member = table["in_circuit"] == 1
    elif "rank" in table:
        member = table["rank"].notnull()
    else:
        return None
    about = {"long_name": "1 for the heads of the list", "units": "1"}
    return None if bool(member.all()) else member.astype("int8").assign_attrs(about)


def _only_ordered(table: xr.Dataset) -> bool:
    """Return whether a list is an order, and nothing else: all that it ranks score the same."""
    if "rank" not in table:
        return False
    scores = table["score"].where(table["rank"].notnull())
    return bool(scores.max() == scores.min())


def _by_rank(rank: xr.DataArray) -> xr.DataArray:
    """Return 1 for the first of a list, less for each that follows; NaN for heads outside it."""
    score = (1 - rank / rank.notnull().sum()).astype("float32")
    return score.assign_attrs(long_name="place in the list, 1 for the first", units="1")

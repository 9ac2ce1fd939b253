"""What runs say besides a number for each head, whatever made them: every small table in their
files.

Read by shape: numbers and texts over the same one or two dimensions are the columns of one table,
    single ones are the
rows of another. What is too large for a page, or has more dimensions, is named with its size.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from nnheads.page.rounding import numbers
from nnheads.runs.columns import CELL, SHARED_CELL, label_of, text

MOST = 200  # cells of a variable that a page shows
MOST_COLUMNS = 60  # of a table
LONGEST = 300  # characters of a text in a cell
CASES = {"batch", "question"}  # dimensions of single cases, which stay on disk
ENDS = ("_low", "_high")


def tables_of(datasets: dict[str, xr.Dataset]) -> tuple[list[dict], list[str]]:
    """Return small tables of a run, and what was left out, by name and size.

    Args:
        datasets: by file.

    Returns:
        Tables, each with `file`, `dims`, `rows` (how many), `keys` (what tells rows apart) and
        `columns`; a column has `name`, `meaning`, `units`, `values` and, where known, `low` and
        `high`, row by row.
    """
    tables: list[dict] = []
    left: dict[str, list[str]] = {}
    seen = set()
    for file, dataset in datasets.items():
        groups: dict[tuple[str, ...], list[str]] = {}
        for name in map(str, dataset.data_vars):
            values = dataset[name]
            dims = tuple(map(str, values.dims))
            if _elsewhere(name, dataset) or (name, dims) in seen:
                continue
            seen.add((name, dims))
            if len(dims) > 2 or values.size > MOST or len(groups.get(dims, ())) == MOST_COLUMNS:
                sizes = " x ".join(f"{size} {dim}" for dim, size in values.sizes.items())
                left.setdefault(f"in {file}, {sizes}", []).append(name)
            elif values.size:
                groups.setdefault(dims, []).append(name)
        tables += [_table(file, dataset, dims, names) for dims, names in groups.items()]
    return tables, [f"{', '.join(names)} {where}" for where, names in left.items()]


def _elsewhere(name: str, dataset: xr.Dataset) -> bool:
    """Return whether a variable is on the map, a single case, the end of an interval, or nothing
    that can be shown.
    """
    values = dataset[name]
    dims = set(values.dims)
    whole = next((name.removesuffix(end) for end in ENDS if name.endswith(end)), "")
    return (
        dims in (set(CELL), set(SHARED_CELL))
        or bool(dims & CASES)
        or values.dtype.kind not in "fiubUOS"
        or (whole in dataset and dataset[whole].dims == values.dims)
    )


def _table(file: str, dataset: xr.Dataset, dims: tuple[str, ...], names: list[str]) -> dict:
    shape = tuple(dataset.sizes[dim] for dim in dims)
    keys = []
    for dim in dims:
        own = (
            dataset[dim]
            if dim in dataset.coords
            else xr.DataArray(np.arange(dataset.sizes[dim]), dims=dim)
        )
        keys.append({"name": dim, "values": _cells(own, dims, shape)})
    for name, values in dataset.coords.items():
        told = str(name) not in (*dims, *CASES) and (values.ndim or not dims)
        if told and set(values.dims) <= set(dims):
            keys.append({"name": str(name), "values": _cells(values, dims, shape)})
    return {
        "file": file,
        "dims": list(dims),
        "rows": int(np.prod(shape)),
        "keys": keys[:MOST_COLUMNS],
        "columns": [_column(dataset, name, dims, shape) for name in names],
    }


def _column(dataset: xr.Dataset, name: str, dims: tuple[str, ...], shape: tuple[int, ...]) -> dict:
    meaning, units = label_of(dataset[name])
    found = {
        "name": name,
        "meaning": meaning,
        "units": units,
        "values": _cells(dataset[name], dims, shape),
    }
    for end in ENDS:
        if name + end in dataset and dataset[name + end].dims == dataset[name].dims:
            found[end.removeprefix("_")] = _cells(dataset[name + end], dims, shape)
    return found


def _cells(values: xr.DataArray, dims: tuple[str, ...], shape: tuple[int, ...]) -> list:
    """Return values of every row of a table; a number that stands for a word is that word."""
    along = values.expand_dims(
        {dim: size for dim, size in zip(dims, shape) if dim not in values.dims}
    )
    each = along.transpose(*dims).values.ravel()
    meanings = text(values.attrs.get("flag_meanings")).split()
    if each.dtype.kind in "iu" and meanings:
        known = dict(
            zip(
                np.atleast_1d(values.attrs.get("flag_values", range(len(meanings)))).tolist(),
                meanings,
            )
        )
        return [known.get(one, one) for one in each.tolist()]
    if each.dtype.kind == "b":
        return ["yes" if one else "no" for one in each]
    if each.dtype.kind in "iu":
        return each.tolist()
    if each.dtype.kind == "f":
        return numbers(each)
    return [
        text(one.decode("utf-8", "replace") if isinstance(one, bytes) else one)[:LONGEST]
        for one in each.tolist()
    ]

"""Scores of a model as the page takes them: a grid of numbers for all heads, row by row.

    numbers(on_grid(column.values, (layers, heads)))

Heads that a run did not measure are NaN, which the page shows as nothing.
"""

from __future__ import annotations

import base64

import numpy as np
import xarray as xr

from nnheads.page.rounding import numbers
from nnheads.runs.columns import (
    CELL,
    SHARED_CELL,
    Column,
    columns,
    label_of,
    roles_in,
)
from nnheads.runs.find import Finished

LONGEST_TEXT = 96  # tokens of a text whose attention is drawn


GROUPS = {
    "detect": "looks",
    "match": "looks",
    "ioi": "effects",
    "path": "effects",
    "attribute": "effects",
    "patch": "effects",
    "circuit": "effects",
    "knockout": "effects",
    "function-vectors": "effects",
    "writes": "writes",
}


def add_scores(
    model: dict, run: Finished, number: int, kind: str, dataset: xr.Dataset, cell: tuple[str, str]
) -> int | None:
    """Add the scores of a table to its model, and return where its headline stands there."""
    shape = (int(dataset[cell[0]].max()) + 1, int(dataset[cell[1]].max()) + 1)
    sizes = model.setdefault("shape", {})
    sizes[cell[1]] = tuple(map(max, sizes.get(cell[1], shape), shape))
    scores = model.setdefault("scores", [])
    place, made = len(scores), columns(dataset, run.recipe, cell)
    for column in made:
        scores.append((number, kind, GROUPS.get(run.recipe, "other"), column, cell))
    for head, role in roles_in(dataset).items():
        model.setdefault("roles", []).append({"head": list(head), "role": role, "run": number})
    return place if made else None


def page_of_model(key: tuple[str, str, str], model: dict) -> dict:
    """Return a model as the page takes it.

    Scores fill the whole grid; what a run did not measure is null.
    """
    sizes = model.get("shape", {})
    layers = max((layers for layers, _ in sizes.values()), default=0)
    heads, shared = (sizes.get(cell[1], (0, 0))[1] for cell in (CELL, SHARED_CELL))
    width = {"head": heads, "kv_head": shared}
    scores = [_score(one, (layers, width[one[-1][1]])) for one in model.get("scores", [])]
    return {
        "name": key[0],
        "revision": key[1],
        "commit": key[2],
        "layers": layers,
        "heads": heads,
        "kv_heads": shared,
        "scores": scores,
        **{name: model.get(name, []) for name in ("roles", "knockouts", "texts", "results")},
    }


def _score(found: tuple[int, str, str, Column, tuple[str, str]], shape: tuple[int, int]) -> dict:
    number, kind, group, column, cell = found
    meaning, units = label_of(column.values)
    values = on_grid(column.values, shape, cell)
    parts = {"low": column.low, "high": column.high, "null": column.null, "q": column.q_value}
    return {
        "run": number,
        "kind": kind,
        "group": group,
        "name": column.name,
        "meaning": meaning,
        "units": units,
        "unit": cell[1],
        "headline": column.headline,
        "first": column.first,
        "signed": bool(np.nanmin(values, initial=0.0) < 0),
        "values": numbers(values),
        **{
            name: None if part is None else numbers(on_grid(part, shape, cell))
            for name, part in parts.items()
        },
        "flag": None
        if column.flag is None
        else [int(one == 1) for one in on_grid(column.flag, shape, cell)],
    }


def on_grid(
    values: xr.DataArray, shape: tuple[int, int], cell: tuple[str, str] = CELL
) -> np.ndarray:
    """Return values of all heads, row by row; NaN for heads that are not there."""
    whole = np.full(shape, np.nan)
    whole[np.ix_(*(values[name].values for name in cell))] = values.transpose(*cell).values
    return whole.ravel()


def with_ends(dataset: xr.Dataset, name: str) -> list[float | None]:
    """Return a value with its interval."""
    ends = [
        float(dataset[f"{name}{end}"]) if f"{name}{end}" in dataset else np.nan
        for end in ("", "_low", "_high")
    ]
    return numbers(np.array(ends))


def packed(pattern: np.ndarray) -> str:
    """Return a causal pattern [query, key] as base64.

    It holds the lower triangle row by row, a byte for each number, 255 for one.
    """
    below = pattern[np.tril_indices(len(pattern))]
    below = (
        below
        if below.dtype == np.uint8
        else np.rint(np.nan_to_num(below).clip(0, 1) * 255).astype(np.uint8)
    )
    return base64.b64encode(below.tobytes()).decode()

"""Maps of cells: heads by layer, attention patterns, accuracy by length and depth."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nnheads.plot._figure import (
    between,
    blank,
    boxes_for_missing_glyphs,
    frame,
    quantity,
    small_print,
    visible,
)


def heatmap(
    values: xr.DataArray,
    *,
    title: str,
    signed: bool = True,
    marked: Sequence[Mapping[str, Any]] | None = None,
    texts: np.ndarray | None = None,
    note: str = "",
) -> Figure:
    """Draw layer by head (or by whatever the second dimension is); layer 0 at the top.

    Args:
        values: (layer, x). Signed values use RdBu centred at 0, the others a sequential map from 0.
        marked: top heads as `stats.top_heads` returns them; they get a frame and their L.H label.
        texts: what to write into the cells.
        note: small print under the picture.
    """
    rows, columns = values.shape
    height = between(3.2, 0.42 * rows + 1.9, 16)
    figure, axes = blank(between(5.0, 0.5 * columns + 2.6, 16), height)
    label = f"{values.attrs.get('long_name', values.name)} [{values.attrs.get('units', '1')}]"
    letters = int(12 * height) - 10  # that the colour bar's height takes
    _cells(
        values.values,
        ax=axes,
        cbar_kws={"label": textwrap.fill(label, letters)},
        xticklabels=_tick_labels(values),
        yticklabels=values[values.dims[0]].values,
        linewidths=0.3 if columns <= 40 else 0,
        fmt="",
        annot=False if texts is None else np.vectorize(visible)(texts),
        annot_kws={"fontsize": 6},
        **_colours(values.values, signed),
    )
    for mark in marked or []:
        _mark(axes, values, mark, signed)
    axes.set(xlabel=str(values.dims[1]), ylabel=str(values.dims[0]), title=title)
    axes.tick_params(axis="y", rotation=0)
    small_print(figure, note)
    return figure


def _cells(values: np.ndarray, **options: Any) -> None:
    with boxes_for_missing_glyphs():
        sns.heatmap(values, **options)


def _colours(values: np.ndarray, signed: bool) -> dict[str, Any]:
    span = float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
    if signed:
        return {"cmap": "RdBu", "center": 0.0, "vmin": -span, "vmax": span}
    return {"cmap": "viridis", "vmin": 0.0, "vmax": span}


def _tick_labels(values: xr.DataArray) -> list[str]:
    coordinate = values[values.dims[1]]
    return [visible(item) for item in coordinate.attrs.get("labels", coordinate.values)]


def _mark(axes: Axes, values: xr.DataArray, mark: Mapping[str, Any], signed: bool) -> None:
    """Frame a head and write its name into its cell, in a colour that shows on the cell's."""
    row = int(np.flatnonzero(values["layer"].values == mark["layer"])[0])
    column = int(np.flatnonzero(values[values.dims[1]].values == mark["head"])[0])
    frame(axes, row, column, "black")
    share = abs(mark["value"]) / (float(np.nanmax(np.abs(values.values))) or 1.0)
    dark = share > 0.55 if signed else share < 0.6  # RdBu is dark at its ends, viridis at zero
    colour = "white" if dark else "black"
    name = f"{mark['layer']}.{mark['head']}"
    axes.text(column + 0.5, row + 0.5, name, ha="center", va="center", fontsize=7, color=colour)


def pattern(
    values: xr.DataArray,
    tokens: list[str],
    *,
    title: str,
    queries: list[str] | None = None,
    targets: list[tuple[int, int]] | None = None,
    note: str = "",
) -> Figure:
    """Draw one head's attention (query, key), with the tokens on both axes.

    Args:
        queries: the tokens of the rows, where these are not all of the text.
        targets: (row, column) of cells that get a frame.
    """
    rows = tokens if queries is None else queries
    width = between(4.8, 0.32 * len(tokens) + 2.6, 14.8)
    figure, axes = blank(width, between(2.6, 0.32 * len(rows) + 1.8, 14))
    future = np.triu(np.ones_like(values.values, bool), 1)
    _cells(
        values.values,
        ax=axes,
        cmap="viridis",
        vmin=0.0,
        vmax=1.0,
        xticklabels=[visible(token) for token in tokens],
        yticklabels=[visible(token) for token in rows],
        square=True,
        mask=future if queries is None else np.isnan(values.values),
        cbar_kws={"label": "attention [1]"},
    )
    for row, column in targets or []:
        frame(axes, row, column, "red")
    axes.set(xlabel="key", ylabel="query", title=title)
    axes.tick_params(axis="y", rotation=0)
    axes.tick_params(axis="x", rotation=90)
    small_print(figure, note)
    return figure


def accuracy(values: xr.DataArray, *, title: str, note: str = "") -> Figure:
    """Draw the share of right answers (length, depth), depth from top to bottom as in the text."""
    rows, columns = values.sizes["depth"], values.sizes["length"]
    width = between(4.6, 0.5 * columns + 2.6, 16)
    figure, axes = blank(width, between(3.2, 0.32 * rows + 1.6, 12))
    _cells(
        values.transpose("depth", "length").values,
        ax=axes,
        cmap="viridis",
        vmin=0.0,
        vmax=1.0,
        xticklabels=values["length"].values,
        yticklabels=[f"{depth:.0%}" for depth in values["depth"].values],
        linewidths=0.3,
        cbar_kws={"label": quantity(values)},
    )
    axes.set(xlabel="length [tokens]", ylabel="depth of the needle", title=title)
    axes.tick_params(axis="y", rotation=0)
    small_print(figure, note)
    return figure

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
    BLANK,
    between,
    blank,
    boxes_for_missing_glyphs,
    frame,
    quantity,
    small_print,
    visible,
)
from nnheads.plot._scales import DIGITS, Scale, scale

LONGEST_NAME = 60  # letters of a label that is no token


def heatmap(
    values: xr.DataArray,
    *,
    title: str,
    signed: bool = True,
    log: bool = False,
    robust: bool = False,
    marked: Sequence[Mapping[str, Any]] | None = None,
    framed: str = "",
    flagged: str = "beyond chance",
    empty: str = "no value",
    texts: np.ndarray | None = None,
    note: str = "",
) -> Figure:
    """Draw layer by head (or by whatever the second dimension is); layer 0 at the top.

    Args:
        values: (layer, x). Signed values use RdBu centred at 0, the others a sequential map from 0.
        log: the colours of values that are not signed are on a logarithmic scale.
        robust: the colours end before the few values that are far larger than the others; those
            have a colour of their own and their value in the cell.
        marked: top heads as `stats.top_heads` returns them; they get a frame and their L.H label.
            Those that say `flag` get a solid frame where it is true, else a dashed one.
        framed: which heads these are, for the small print. flagged: what a solid frame says.
        empty: what a blank cell says.
        texts: what to write into the cells.
        note: small print under the picture.
    """
    rows, columns = values.shape
    height = between(3.2, 0.42 * rows + 1.9, 16)
    figure, axes = blank(between(5.0, 0.5 * columns + 2.6, 16), height)
    colours = scale(values.values, signed=signed, log=log, robust=robust)
    _cells(
        values.values,
        ax=axes,
        cmap=colours.colours,
        norm=colours.norm,
        vmin=colours.norm.vmin,  # else they are looked for, also where there is no value
        vmax=colours.norm.vmax,
        cbar_kws={"label": _label(values, height), "extend": colours.extended},
        xticklabels=_tick_labels(values, 1),
        yticklabels=_tick_labels(values, 0),
        linewidths=0.3 if columns <= 40 else 0,
        fmt="",
        annot=False if texts is None else np.vectorize(visible)(texts),
        annot_kws={"fontsize": 7},
    )
    marks = list(marked or [])
    _name_cells(axes, values, marks, colours)
    axes.set(xlabel=str(values.dims[1]), ylabel=str(values.dims[0]), title=title)
    axes.tick_params(axis="y", rotation=0)
    says = _sentences(marks, colours, framed, flagged)
    small_print(figure, note, says + _blanks(values, empty, texts))
    return figure


def _label(values: xr.DataArray, height: float) -> str:
    """Return what the colours say, in lines that are as long as the picture is high (inches)."""
    label = f"{values.attrs.get('long_name', values.name)} [{values.attrs.get('units', '1')}]"
    return textwrap.fill(label, int(12 * height) - 10)


def _blanks(values: xr.DataArray, empty: str, texts: np.ndarray | None) -> list[str]:
    """Return what an empty cell says, and a text that is nothing but a blank."""
    shown = texts is not None and any(BLANK in visible(text) for text in texts.flat)
    return [f"Blank: {empty}."] * bool(values.isnull().any()) + [
        f"{BLANK}: a blank that is all of a token."
    ] * shown


def _sentences(
    marks: Sequence[Mapping[str, Any]], colours: Scale, framed: str, sure: str
) -> list[str]:
    """Return what frames and colours beyond the scale say."""
    sentences = []
    if marks:
        which = framed or ("the strongest" if len(marks) == 1 else f"the {len(marks)} strongest")
        styles = f"; solid where {sure}, dashed where not" if "flag" in marks[0] else ""
        sentences.append(f"Framed: {which}{styles}.")
    count = int(colours.beyond.sum())
    if count:
        cells = "Red, with its value: a cell" if count == 1 else f"Red, with values: {count} cells"
        sentences.append(f"{cells} beyond the scale.")
    return sentences


def _cells(values: np.ndarray, **options: Any) -> None:
    with boxes_for_missing_glyphs():
        sns.heatmap(values, **options)


def _tick_labels(values: xr.DataArray, axis: int) -> list[str]:
    """Return the labels of an axis: tokens, which may be long and are cut, or whole names."""
    coordinate = values[values.dims[axis]]
    if "labels" in coordinate.attrs:
        return [visible(item) for item in coordinate.attrs["labels"]]
    return [visible(item, LONGEST_NAME) for item in coordinate.values]


def _name_cells(
    axes: Axes, values: xr.DataArray, marks: Sequence[Mapping[str, Any]], colours: Scale
) -> None:
    """Frame the marked heads and write their names, and what lies beyond the scale, into cells."""
    lines: dict[tuple[int, int], list[str]] = {}
    for mark in marks:
        row = int(np.flatnonzero(values["layer"].values == mark["layer"])[0])
        column = int(np.flatnonzero(values[values.dims[1]].values == mark["head"])[0])
        frame(axes, row, column, "black", dashed=not mark.get("flag", True))
        lines.setdefault((row, column), []).append(f"{mark['layer']}.{mark['head']}")
    for row, column in np.argwhere(colours.beyond).tolist():
        lines.setdefault((row, column), []).append(f"{values.values[row, column]:{DIGITS}}")
    for (row, column), each in lines.items():
        colour = colours.text_on(values.values[row, column])
        middle: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7}
        axes.text(column + 0.5, row + 0.5, "\n".join(each), color=colour, **middle)


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
    small_print(figure, note, ["Red frame: where such a head has to look."] if targets else [])
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
    small_print(figure, note, ["Blank: not asked."] * bool(values.isnull().any()))
    return figure

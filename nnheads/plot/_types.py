"""Several head types on one map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from nnheads.plot._figure import between, blank, small_print

# told apart at a glance, also where a low score makes them pale: no two of one hue in two shades,
# as tab20 has them, and no grey, in which the key of scores is drawn
DISTINCT = (
    *(colour for colour in sns.color_palette("tab10") if len(set(colour)) > 1),
    *("blue", "magenta", "lime", "gold", "navy", "darkmagenta"),
    *("darkolivegreen", "aquamarine", "deeppink", "lightsalmon", "springgreen"),
)
STRIPES = "A cell in stripes: a head of several types. An empty one: of none of these."
STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)  # scores whose opacity is shown beside a map


def types_map(
    types: dict[str, xr.DataArray],
    *,
    title: str = "Head types",
    scored: str = "score",
    says: Sequence[str] = (),
    note: str = "",
) -> Figure:
    """Draw several head types on one map.

    A cell is split between its types, each part as opaque as its score is high.

    Args:
        types: name -> score (layer, head), NaN where a head is not of the type; types without
            heads are left out.
        scored: what the scores are called beside their colours; "" where all are alike.
        says: sentences about the types, for the small print.
    """
    first = next(iter(types.values()))
    rows, columns = first.shape
    width = between(6.0, 0.5 * columns + 4, 16)
    figure, axes = blank(width, between(3.4, 0.42 * rows + 1.4, 16))
    present = {name: values.values for name, values in types.items() if values.notnull().any()}
    many = len(present) > len(DISTINCT)
    colours = dict(zip(present, sns.husl_palette(len(present)) if many else DISTINCT))
    for layer, head in np.ndindex(rows, columns):
        scores = {name: values[layer, head] for name, values in present.items()}
        _split_cell(axes, (layer, head), scores, colours)
    axes.set(xlim=(0, columns), ylim=(rows, 0), xlabel="head", ylabel="layer", title=title)
    _rule(axes, first["layer"].values, first["head"].values)
    handles = [Patch(color=colours[name], label=name) for name in present]
    sentences = list(says)
    if handles:
        figure.legend(handles=handles, title="head type", loc="outside right upper", fontsize=8)
        sentences.insert(0, STRIPES)
    if handles and scored:
        steps = [
            Patch(alpha=opacity(step), label=f"{step:g}", facecolor="black", linewidth=0)
            for step in STEPS
        ]
        below = {"loc": "outside right lower", "fontsize": 8, "title_fontsize": 8}
        figure.legend(handles=steps, title=scored, **below)
    small_print(figure, note, sentences)
    return figure


def opacity(score: float) -> float:
    """Return how opaque the colour of a score is: at least so much that its hue shows."""
    return float(0.25 + 0.75 * np.clip(score, 0, 1))


def _rule(axes: Axes, layers: np.ndarray, heads: np.ndarray) -> None:
    """Number the rows and columns of a map and draw lines between them."""
    rows, columns = layers.size, heads.size
    axes.set_xticks(np.arange(columns) + 0.5, heads)
    axes.set_yticks(np.arange(rows) + 0.5, layers)
    axes.hlines(np.arange(rows + 1), 0, columns, color="0.85", lw=0.5)
    axes.vlines(np.arange(columns + 1), 0, rows, color="0.85", lw=0.5)


def _split_cell(
    axes: Axes, cell: tuple[int, int], scores: dict[str, Any], colours: dict[str, Any]
) -> None:
    """Fill a cell with a stripe for each type that the head has."""
    layer, head = cell
    known = {name: score for name, score in scores.items() if not np.isnan(score)}
    for number, (name, score) in enumerate(known.items()):
        left, width = head + number / len(known), 1 / len(known)
        shade = {"color": colours[name], "alpha": opacity(score)}
        axes.add_patch(Rectangle((left, layer), width, 1, lw=0, **shade))

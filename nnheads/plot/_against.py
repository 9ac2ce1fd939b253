"""Estimates against what is exact, with the names of heads where there is room for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.transforms import Bbox

from nnheads.plot._figure import blank, legend_beside, quantity, small_print
from nnheads.stats import ranked

FONT = 7  # points
RINGS = (2.5, 7.0)  # points between a head and its name; farther off it would seem another's
WAYS = ((1, 0.6), (1, -0.6), (-1, 0.6), (-1, -0.6), (0, 1), (0, -1), (1, 0), (-1, 0))
DOT = 3.0  # pixels around the middle of a point that no name covers
ROOM = (5.0, 4.0)  # pixels between names; closer ones side by side would read as one number
Named = list[tuple[str, tuple[float, float]]]  # names and their points


def against(
    estimated: xr.DataArray,
    exact: xr.DataArray,
    kinds: dict[str, xr.DataArray],
    rest: xr.DataArray,
    *,
    title: str,
    note: str = "",
) -> Figure:
    """Draw estimated against exact values. On the line both are equal.

    Heads are named where their names cover neither each other nor a point, the largest first.

    Args:
        estimated, exact: (layer, x).
        kinds: name -> mask (layer, x) of heads that are named.
        rest: mask of those that are dots.
    """
    figure, axes = blank(7.4, 4.8)
    masks = {"others": rest, **kinds}
    for kind, mask in masks.items():
        style = {"s": 10, "color": "0.6"} if kind == "others" else {"s": 22}
        axes.scatter(estimated.values[mask.values], exact.values[mask.values], label=kind, **style)
    axes.axline((0, 0), slope=1, color="0.7", lw=0.8, zorder=0)
    axes.set(xlabel=quantity(estimated), ylabel=quantity(exact), title=title)
    legend_beside(axes)
    names = _largest_first(estimated, exact, _any_of(kinds))
    small_print(figure, note, _sentences(0, len(names)))  # takes its room before names are placed
    drawn = _any_of(masks)
    points = np.stack([estimated.values[drawn], exact.values[drawn]], axis=1)
    placed = _place_names(figure, names, points[np.isfinite(points).all(1)])
    small_print(figure, note, _sentences(placed, len(names)))
    return figure


def _any_of(masks: dict[str, xr.DataArray]) -> np.ndarray:
    return np.any([mask.values for mask in masks.values()], axis=0)


def _sentences(placed: int, count: int) -> list[str]:
    """Return what the line and the names say."""
    which = "all of them" if placed == count else "the largest first, as far as there is room"
    named = f" Named: {placed} of {count} heads, {which}." if count else ""
    return [f"On the line both are equal.{named}"]


def _largest_first(estimated: xr.DataArray, exact: xr.DataArray, wanted: np.ndarray) -> Named:
    """Return the names and points of heads, the one with the largest effect first."""
    sizes = np.where(wanted & np.isfinite(estimated.values), np.abs(exact.values), np.nan)
    layers, units = exact["layer"].values, exact[exact.dims[1]].values
    points = np.stack([estimated.values, exact.values], axis=-1)
    cells = zip(*np.unravel_index(ranked(sizes), exact.shape))
    return [
        (f"{layers[row]}.{units[column]}", tuple(points[row, column].tolist()))
        for row, column in cells
    ]


def _place_names(figure: Figure, names: Named, points: np.ndarray) -> int:
    """Write names beside their points where they cover nothing; return how many.

    points: [point, 2], all that are drawn.
    """
    axes = figure.axes[0]
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())  # which names do not move
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()  # from here on it is known where points lie
    taken = [_around(at, np.full(2, 2 * DOT)) for at in axes.transData.transform(points)]
    font, placed = FontProperties(size=FONT), 0
    for name, point in names:
        width, height, _ = renderer.get_text_width_height_descent(name, font, False)
        size, at = np.add((width, height), ROOM), axes.transData.transform(point)
        for move in _moves(size, figure.dpi / 72):
            box = _around(at + move, size)
            if _within(box, axes.bbox) and not any(box.overlaps(other) for other in taken):
                _write(axes, name, point, move * 72 / figure.dpi)
                taken.append(box)
                placed += 1
                break
    return placed


def _moves(size: np.ndarray, pixels: float) -> Iterator[np.ndarray]:
    """Return ways from a point to the middle of a name of that size, in pixels, the nearest first.

    pixels: in a point of the page.
    """
    for ring in RINGS:
        for way in WAYS:
            yield np.array(way) * (ring * pixels + size / 2)


def _write(axes: Axes, name: str, point: tuple[float, float], offset: np.ndarray) -> None:
    """Write a name at an offset from its point, in points of the page."""
    middle: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": FONT}
    axes.annotate(name, point, xytext=tuple(offset), textcoords="offset points", **middle)


def _within(box: Bbox, page: Bbox) -> bool:
    return page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1


def _around(middle: np.ndarray, size: np.ndarray) -> Bbox:
    return Bbox.from_bounds(middle[0] - size[0] / 2, middle[1] - size[1] / 2, *size)

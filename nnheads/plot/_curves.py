"""Values along an axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nnheads.plot._figure import blank, legend_beside, quantity, small_print
from nnheads.stats import ranked

Band = Sequence[xr.DataArray]  # value, low, high
SHARE = (0.0, 1.0)  # between which a share lies
MARKERS = "osD^vPX*"
DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)), (0, (6, 1.5, 1, 1.5)), (0, (2, 2)))  # one more than even


def lines(table: xr.DataArray, *, title: str, note: str = "") -> Figure:
    """Draw one value per layer.

    Args:
        table: (layer), or over whatever its only dimension is.
    """
    figure, axes = blank(6, 3.2)
    sns.lineplot(x=table[table.dims[0]].values, y=table.values, marker="o", ax=axes)
    label = f"{table.attrs.get('long_name')} [{table.attrs.get('units')}]"
    axes.set(xlabel=str(table.dims[0]), ylabel=label, title=title)
    small_print(figure, note)
    return figure


def curves(
    each: Mapping[str, Band],
    *,
    title: str,
    points: dict[str, tuple[float, float]] | None = None,
    log: bool = False,
    levels: Sequence[float] = SHARE,
    shaded: str = "the interval of each line",
    note: str = "",
) -> Figure:
    """Draw values over one dimension with their intervals.

    Args:
        each: name -> (value, low, high) over the same dimension.
        points: name -> (x, y) of single points beside them.
        log: the scale of x is logarithmic.
        levels: values of y that get a grey line; the ends of a share, unless given.
        shaded: what the ends of each line are, for the small print.
    """
    figure, axes = blank(7.6, 3.8)
    shade = min(0.2, 0.6 / max(1, len(each)))  # many that overlap would be one grey
    for number, (name, (values, low, high)) in enumerate(each.items()):
        x = values[values.dims[0]]
        axes.fill_between(x.values, low.values, high.values, alpha=shade, lw=0)
        style = style_of(number, len(each), x.size)
        sns.lineplot(x=x.values, y=values.values, label=name, ax=axes, **style)
    for colour, (text, (at, height)) in enumerate((points or {}).items(), len(each)):
        axes.plot(at, height, marker="D", ls="", color=f"C{colour}", label=text)
    for level in levels:
        axes.axhline(level, color="0.7", lw=0.8, zorder=0)
    axes.set(xlabel=x.attrs.get("long_name", str(x.name)), ylabel=quantity(values), title=title)
    axes.set_xscale("log" if log else "linear")
    if x.dtype.kind == "i":
        axes.set_xticks(x.values[:: 1 + x.size // 20])
    legend_beside(axes)
    small_print(figure, note, [f"Shaded: {shaded}."])
    return figure


def style_of(number: int, lines: int, points: int) -> dict[str, Any]:
    """Return how one line of several is drawn: one that lies on another leaves both in view.

    Each is thinner than those before it, which it may cover, and has dashes and markers of its own,
    which lines with many points set in turn.
    """
    in_turn = points > 2 * lines
    return {
        "markevery": (number, lines) if in_turn else None,
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[number % len(DASHES)],
        "linewidth": max(1.2, 2.4 - 0.3 * number),
        "markersize": max(4.5, 7.0 - 0.5 * number),
    }


def against_random(reduced: xr.Dataset, name: str, *, title: str, note: str = "") -> Figure:
    """Draw a list of heads that is knocked out, beside random lists.

    The list comes with its interval over prompts, the random lists with their median; the intact
    metric is a line. Numbers of heads stand at even distances.

    Args:
        reduced: as `patching.knockout.curve` returns it. name: of its metric.
    """
    figure, axes = blank(7.6, 3.8)
    values, ks = reduced[name], reduced["k"].values
    x = np.arange(len(ks))
    if "random_median" in reduced:
        _random_lists(axes, x, reduced[f"random_{name}"], reduced["random_median"])
    axes.fill_between(x, reduced[f"{name}_low"], reduced[f"{name}_high"], alpha=0.25, lw=0)
    axes.plot(x, values, marker="o", label="the list: mean and 95% interval over prompts")
    intact = float(reduced[f"base_{name}"])
    axes.axhline(intact, color="0.6", lw=0.8, ls=":", zorder=0, label="intact")
    axes.axhline(0, color="0.85", lw=0.8, zorder=0)  # in view, or a small loss looks like all of it
    axes.set_xticks(x, ks)
    label = f"{name.replace('_', ' ')} [{values.attrs['units']}]"
    axes.set(xlabel=str(reduced["k"].attrs["long_name"]), ylabel=label, title=title)
    legend_beside(axes)
    small_print(figure, note)
    return figure


def _random_lists(axes: Axes, x: np.ndarray, lists: xr.DataArray, median: xr.DataArray) -> None:
    axes.plot(x, lists.transpose("k", "draw"), color="0.7", lw=0.7)
    label = f"{lists.sizes['draw']} random lists of the same layers, and their median"
    axes.plot(x, median, color="0.3", ls="--", label=label)


def emergence(values: xr.DataArray, *, title: str, top: int = 8, note: str = "") -> Figure:
    """Draw one line for each of the heads that are strongest at any revision.

    Args:
        values: (revision, layer, head). top: so many heads.
    """
    figure, axes = blank(7, 4)
    flat = values.stack(each=("layer", "head"))
    revisions = [str(revision) for revision in values["revision"].values]
    for number, index in enumerate(ranked(flat.max("revision").values, unknown=True)[:top]):
        one = flat.isel(each=int(index))
        label = f"{int(one['layer'])}.{int(one['head'])}"
        style = style_of(number, min(top, flat.sizes["each"]), len(revisions))
        sns.lineplot(x=revisions, y=one.values, label=label, ax=axes, **style)
    label = f"{values.attrs.get('long_name')} [{values.attrs.get('units')}]"
    axes.set(xlabel="revision", ylabel=label, title=title)
    legend_beside(axes, title="head")
    small_print(figure, note)
    return figure

"""Datasets in, matplotlib figures out. Nothing is computed here."""

from __future__ import annotations

import contextlib
import io
import json
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import matplotlib

matplotlib.use("Agg")  # pictures go to files; a display may not exist

import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib.figure import Figure

# told apart at a glance, also where a low score makes them pale: no two of one hue in two shades,
# as tab20 has them
DISTINCT = (
    *sns.color_palette("tab10"),
    "blue",
    "magenta",
    "lime",
    "black",
    "navy",
    "darkolivegreen",
    "aquamarine",
    "deeppink",
    "lightsalmon",
    "springgreen",
)


def heatmap(
    values: xr.DataArray,
    *,
    title: str,
    signed: bool = True,
    marked: Sequence[Mapping] | None = None,
    texts: np.ndarray | None = None,
    note: str = "",
) -> Figure:
    """Layer by head (or by whatever the second dimension is); layer 0 at the top.

    Args:
        values: (layer, x). Signed values use RdBu centred at 0, the others a sequential map from 0.
        marked: top heads as `stats.top_heads` returns them; they get a frame and their L.H label.
        texts: what to write into the cells.
        note: small print under the picture.
    """
    rows, columns = values.shape
    height = min(16, max(3.2, 0.42 * rows + 1.9))
    figure = Figure(figsize=(min(16, max(5.0, 0.5 * columns + 2.6)), height), layout="constrained")
    axes = figure.add_subplot()
    span = float(np.nanmax(np.abs(values.values), initial=0.0)) or 1.0
    colours = (
        {"cmap": "RdBu", "center": 0.0, "vmin": -span}
        if signed
        else {"cmap": "viridis", "vmin": 0.0}
    )
    label = f"{values.attrs.get('long_name', values.name)} [{values.attrs.get('units', '1')}]"
    beside = {
        "label": textwrap.fill(label, int(12 * height) - 10)
    }  # letters that the colour bar's height takes
    _heatmap(
        values.values,
        ax=axes,
        cbar_kws=beside,
        xticklabels=_tick_labels(values),
        vmax=span,
        yticklabels=values[values.dims[0]].values,
        linewidths=0.3 if columns <= 40 else 0,
        fmt="",
        annot=False if texts is None else np.vectorize(_visible)(texts),
        annot_kws={"fontsize": 6},
        **colours,
    )
    for mark in marked or []:
        _mark(axes, values, mark, signed)
    axes.set(xlabel=str(values.dims[1]), ylabel=str(values.dims[0]), title=title)
    axes.tick_params(axis="y", rotation=0)
    _small_print(figure, note)
    return figure


def _heatmap(*arguments, **options) -> None:
    with _boxes_for_missing_glyphs():
        sns.heatmap(*arguments, **options)


def show(figure: Figure):
    """A figure as a notebook displays it: these figures belong to no window that would."""
    from IPython.display import Image

    with io.BytesIO() as file:
        render(figure, file)
        return Image(file.getvalue(), width=640)


def render(figure: Figure, path: Path | IO[bytes]) -> None:
    """Write a figure as PNG."""
    with _boxes_for_missing_glyphs():
        figure.savefig(path, dpi=144, bbox_inches="tight")


@contextlib.contextmanager
def _boxes_for_missing_glyphs() -> Iterator[None]:
    """Tokens may be of any script; what the font lacks is drawn as a box, without a warning for
    each.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Glyph .* missing|Matplotlib currently does not support", UserWarning
        )
        yield


def _tick_labels(values: xr.DataArray) -> list[str]:
    coordinate = values[values.dims[1]]
    return [_visible(item) for item in coordinate.attrs.get("labels", coordinate.values)]


def _visible(token, longest: int = 24) -> str:
    """A token as a label: line breaks as escapes, dollars as themselves (two would start a
    formula), not too long.
    """
    text = repr(str(token))[1:-1] if not str(token).isprintable() else str(token)
    text = text if len(text) <= longest else text[: longest - 1] + "…"
    return text.replace("$", r"\$")


def _mark(axes, values: xr.DataArray, mark: Mapping, signed: bool) -> None:
    row = int(np.flatnonzero(values["layer"].values == mark["layer"])[0])
    column = int(np.flatnonzero(values[values.dims[1]].values == mark["head"])[0])
    axes.add_patch(
        matplotlib.patches.Rectangle(
            (column, row), 1, 1, fill=False, edgecolor="black", linewidth=1.4
        )
    )
    share = abs(mark["value"]) / (float(np.nanmax(np.abs(values.values))) or 1.0)
    dark = share > 0.55 if signed else share < 0.6  # RdBu is dark at its ends, viridis at zero
    text = f"{mark['layer']}.{mark['head']}"
    axes.text(
        column + 0.5,
        row + 0.5,
        text,
        ha="center",
        va="center",
        fontsize=7,
        color="white" if dark else "black",
    )


def _small_print(figure: Figure, note: str) -> None:
    if note:
        figure.supxlabel(note, fontsize=6.5, color="0.4", x=0.01, ha="left")


def note(dataset: xr.Dataset, n: int) -> str:
    """Model, revision, n and date of a result, for the small print."""
    source = json.loads(dataset.attrs["source"])
    return (
        f"{source['model']} ({source['revision']}, {source['dtype']}), n = {n},"
        f" {dataset.attrs['history'][:10]}"
    )


def pattern(
    values: xr.DataArray,
    tokens: list[str],
    *,
    title: str,
    queries: list[str] | None = None,
    targets: list[tuple[int, int]] | None = None,
    note: str = "",
) -> Figure:
    """One head's attention (query, key), with the tokens on both axes; of some `queries` alone, if
    they are given. `targets` (row, column) get a frame."""
    shown = tokens if queries is None else queries
    size = (
        min(14.8, max(4.8, 0.32 * len(tokens) + 2.6)),
        min(14, max(2.6, 0.32 * len(shown) + 1.8)),
    )
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    future = (
        np.triu(np.ones_like(values.values, bool), 1)
        if queries is None
        else np.isnan(values.values)
    )
    _heatmap(
        values.values,
        ax=axes,
        cmap="viridis",
        vmin=0.0,
        vmax=1.0,
        xticklabels=[_visible(token) for token in tokens],
        yticklabels=[_visible(token) for token in shown],
        square=True,
        mask=future,
        cbar_kws={"label": "attention [1]"},
    )
    for row, column in targets or []:
        axes.add_patch(
            matplotlib.patches.Rectangle(
                (column, row), 1, 1, fill=False, edgecolor="red", linewidth=1.4
            )
        )
    axes.set(xlabel="key", ylabel="query", title=title)
    axes.tick_params(axis="y", rotation=0)
    axes.tick_params(axis="x", rotation=90)
    _small_print(figure, note)
    return figure


def lines(table: xr.DataArray, *, title: str, note: str = "") -> Figure:
    """One value per layer."""
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.add_subplot()
    sns.lineplot(x=table[table.dims[0]].values, y=table.values, marker="o", ax=axes)
    axes.set(
        xlabel=str(table.dims[0]),
        ylabel=f"{table.attrs.get('long_name')} [{table.attrs.get('units')}]",
        title=title,
    )
    _small_print(figure, note)
    return figure


def curves(
    each: dict[str, tuple[xr.DataArray, xr.DataArray, xr.DataArray]],
    *,
    title: str,
    points: dict[str, tuple[float, float]] | None = None,
    log: bool = False,
    note: str = "",
) -> Figure:
    """Values over one dimension with their intervals (value, low, high), by name, single points
    beside them, and 0 and 1 as lines."""
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.add_subplot()
    for name, (values, low, high) in each.items():
        x = values[values.dims[0]]
        axes.fill_between(x.values, low.values, high.values, alpha=0.2, lw=0)
        sns.lineplot(x=x.values, y=values.values, marker="o", label=name, ax=axes)
    for colour, (text, (at, height)) in enumerate((points or {}).items(), len(each)):
        axes.plot(at, height, marker="D", ls="", color=f"C{colour}", label=text)
    for level in (0.0, 1.0):
        axes.axhline(level, color="0.7", lw=0.8, zorder=0)
    axes.set(
        xlabel=x.attrs.get("long_name", str(x.name)),
        ylabel=f"{values.attrs['long_name']} [{values.attrs['units']}]",
        title=title,
    )
    axes.set_xscale("log" if log else "linear")
    if x.dtype.kind == "i":
        axes.set_xticks(x.values[:: 1 + x.size // 20])
    axes.legend(fontsize=7)
    _small_print(figure, note)
    return figure


def against(
    estimated: xr.DataArray,
    exact: xr.DataArray,
    kinds: dict[str, xr.DataArray],
    rest: xr.DataArray,
    *,
    title: str,
    note: str = "",
) -> Figure:
    """Estimated and exact value of heads (layer, x): those of each kind (masks) by name, the rest
    as dots. On the line both are equal."""
    figure = Figure(figsize=(5.6, 4.6), layout="constrained")
    axes = figure.add_subplot()
    axes.scatter(
        estimated.values[rest.values], exact.values[rest.values], s=10, color="0.6", label="others"
    )
    for name, mask in kinds.items():
        own = np.argwhere(mask.values)
        own = own[np.argsort(estimated.values[mask.values])]
        points = [(estimated.values[tuple(one)], exact.values[tuple(one)]) for one in own]
        axes.scatter([x for x, _ in points], [y for _, y in points], s=22, label=name)
        for number, ((row, column), point) in enumerate(zip(own, points)):
            text = f"{exact['layer'].values[row]}.{exact[exact.dims[1]].values[column]}"
            above_and_below = (3, 4) if number % 2 else (3, -10)
            axes.annotate(
                text, point, xytext=above_and_below, textcoords="offset points", fontsize=7
            )
    axes.axline((0, 0), slope=1, color="0.7", lw=0.8, zorder=0)
    labels = [f"{one.attrs['long_name']} [{one.attrs['units']}]" for one in (estimated, exact)]
    axes.set(xlabel=labels[0], ylabel=labels[1], title=title)
    axes.legend(fontsize=7)
    _small_print(figure, note)
    return figure


def against_random(reduced: xr.Dataset, name: str, *, title: str, note: str = "") -> Figure:
    """`patching.knockout.curve` drawn: the list with its interval over prompts, every random list
    and their median, and the intact metric. Numbers of heads stand at even distances."""
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.add_subplot()
    values, ks = reduced[name], reduced["k"].values
    x = np.arange(len(ks))
    if "random_median" in reduced:
        axes.plot(x, reduced[f"random_{name}"].transpose("k", "draw"), color="0.7", lw=0.7)
        label = f"{reduced.sizes['draw']} random lists of the same layers, and their median"
        axes.plot(x, reduced["random_median"], color="0.3", ls="--", label=label)
    axes.fill_between(x, reduced[f"{name}_low"], reduced[f"{name}_high"], alpha=0.25, lw=0)
    axes.plot(x, values, marker="o", label="the list: mean and 95% interval over prompts")
    axes.axhline(
        float(reduced[f"base_{name}"]), color="0.6", lw=0.8, ls=":", zorder=0, label="intact"
    )
    axes.axhline(0, color="0.85", lw=0.8, zorder=0)  # in view, or a small loss looks like all of it
    axes.set_xticks(x, ks)
    quantity = f"{name.replace('_', ' ')} [{values.attrs['units']}]"
    axes.set(xlabel=str(reduced["k"].attrs["long_name"]), ylabel=quantity, title=title)
    axes.legend(fontsize=7)
    _small_print(figure, note)
    return figure


def emergence(values: xr.DataArray, *, title: str, top: int = 8, note: str = "") -> Figure:
    """(revision, layer, head): one line for each of the heads that are strongest at any revision."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    flat = values.stack(each=("layer", "head"))
    order = np.argsort(-flat.max("revision").values)[:top]
    for place in order:
        one = flat.isel(each=int(place))
        label = f"{int(one['layer'])}.{int(one['head'])}"
        sns.lineplot(
            x=[str(r) for r in values["revision"].values],
            y=one.values,
            marker="o",
            label=label,
            ax=axes,
        )
    axes.set(
        xlabel="revision",
        ylabel=f"{values.attrs.get('long_name')} [{values.attrs.get('units')}]",
        title=title,
    )
    axes.legend(title="head", fontsize=7)
    _small_print(figure, note)
    return figure


def accuracy(values: xr.DataArray, *, title: str, note: str = "") -> Figure:
    """Share of right answers (length, depth): depth from top to bottom as in the text, NaN (not
    asked) left blank.
    """
    rows, columns = values.sizes["depth"], values.sizes["length"]
    size = (min(16, max(4.6, 0.5 * columns + 2.6)), min(12, max(3.2, 0.32 * rows + 1.6)))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    _heatmap(
        values.transpose("depth", "length").values,
        ax=axes,
        cmap="viridis",
        vmin=0.0,
        vmax=1.0,
        xticklabels=values["length"].values,
        yticklabels=[f"{depth:.0%}" for depth in values["depth"].values],
        linewidths=0.3,
        cbar_kws={"label": f"{values.attrs['long_name']} [{values.attrs['units']}]"},
    )
    axes.set(xlabel="length [tokens]", ylabel="depth of the needle", title=title)
    axes.tick_params(axis="y", rotation=0)
    _small_print(figure, note)
    return figure


def types_map(
    types: dict[str, xr.DataArray], *, title: str = "Head types", note: str = ""
) -> Figure:
    """Several head types on one map (layer, head): NaN is not of the type; a cell is split between
    its types, each part as opaque as its score is high. Types without heads are left out."""
    first = next(iter(types.values()))
    rows, columns = first.shape
    size = (min(16, max(6.0, 0.5 * columns + 4)), min(16, max(3.4, 0.42 * rows + 1.4)))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    found = {name: values.values for name, values in types.items() if values.notnull().any()}
    colours = dict(
        zip(found, DISTINCT if len(found) <= len(DISTINCT) else sns.husl_palette(len(found)))
    )
    for layer, head in np.ndindex(rows, columns):
        own = {
            name: values[layer, head]
            for name, values in found.items()
            if not np.isnan(values[layer, head])
        }
        for place, (name, value) in enumerate(own.items()):
            left, shown = (
                head + place / len(own),
                {"color": colours[name], "alpha": 0.25 + 0.75 * np.clip(value, 0, 1)},
            )
            axes.add_patch(
                matplotlib.patches.Rectangle((left, layer), 1 / len(own), 1, lw=0, **shown)
            )
    axes.set(xlim=(0, columns), ylim=(rows, 0), xlabel="head", ylabel="layer", title=title)
    axes.set_xticks(np.arange(columns) + 0.5, first["head"].values)
    axes.set_yticks(np.arange(rows) + 0.5, first["layer"].values)
    axes.hlines(np.arange(rows + 1), 0, columns, color="0.85", lw=0.5)
    axes.vlines(np.arange(columns + 1), 0, rows, color="0.85", lw=0.5)
    handles = [matplotlib.patches.Patch(color=colours[name], label=name) for name in found]
    if handles:
        figure.legend(handles=handles, loc="outside right upper", fontsize=8)
    _small_print(figure, note)
    return figure

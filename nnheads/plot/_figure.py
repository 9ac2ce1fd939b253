"""What all pictures have in common: size, labels, small print, and the way into a file or notebook.

figure, axes = blank(6, 3.2)
axes.set(xlabel="layer", ylabel=quantity(values), title=title)
small_print(figure, note)
"""

from __future__ import annotations

import contextlib
import io
import json
import textwrap
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

if TYPE_CHECKING:
    from IPython.display import Image

LETTERS = 18  # of the small print, to an inch
LONGEST_LABEL = 30  # letters of a line in a legend
INSET = 0.08  # of a cell: dashes of two neighbours on one edge would look like a solid line
BLANK = "\u2423"  # an open box, which says that a token is nothing but blanks


def blank(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of so many inches, and its only axes. No window and no pyplot know of it."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def between(low: float, value: float, high: float) -> float:
    """Return a size that is neither too small to read nor too large for a page."""
    return min(high, max(low, value))


def quantity(values: xr.DataArray) -> str:
    """Return what values are and their unit, as the label of an axis."""
    return f"{values.attrs['long_name']} [{values.attrs['units']}]"


def frame(axes: Axes, row: int, column: int, colour: str, *, dashed: bool = False) -> None:
    """Draw a frame around a cell of a map; a dashed one lies a little inside."""
    line, inset = ("--", INSET) if dashed else ("-", 0.0)
    corner, side = (column + inset, row + inset), 1 - 2 * inset
    style: dict[str, Any] = {"fill": False, "edgecolor": colour, "lw": 1.4, "linestyle": line}
    axes.add_patch(Rectangle(corner, side, side, **style))


def small_print(figure: Figure, note: str, says: Iterable[str] = ()) -> None:
    """Write under a picture what its marks say, and below that a note."""
    letters = int(LETTERS * figure.get_figwidth())
    lines = [*(textwrap.fill(sentence, letters) for sentence in says), note]
    text = "\n".join(line for line in lines if line)
    if text:
        figure.supxlabel(text, fontsize=6.5, color="0.3", x=0.01, ha="left")


def legend_beside(axes: Axes, title: str | None = None) -> None:
    """Put the legend to the right of the axes, where no line runs; long names are wrapped."""
    handles, labels = axes.get_legend_handles_labels()
    wrapped = [textwrap.fill(label, LONGEST_LABEL) for label in labels]
    beside = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "borderaxespad": 0.0}
    axes.legend(handles, wrapped, title=title, fontsize=7, **beside)


def note(dataset: xr.Dataset, n: int) -> str:
    """Return model, revision, n and date of a result, for the small print."""
    source = json.loads(dataset.attrs["source"])
    return (
        f"{source['model']} ({source['revision']}, {source['dtype']}), n = {n},"
        f" {dataset.attrs['history'][:10]}"
    )


def visible(token: Any, longest: int = 24) -> str:
    """Return a token as a label.

    Line breaks become escapes, dollars themselves (two would start a formula), and blanks that are
    all of a token open boxes; it is not too long.
    """
    text = repr(str(token))[1:-1] if not str(token).isprintable() else str(token)
    if text and not text.strip(" "):
        text = BLANK * len(text)
    text = text if len(text) <= longest else text[: longest - 1] + "…"
    return text.replace("$", r"\$")


def show(figure: Figure) -> Image:
    """Return a figure as a notebook displays it: these figures belong to no window that would."""
    from IPython.display import Image

    with io.BytesIO() as file:
        render(figure, file)
        return Image(file.getvalue(), width=640)


def render(figure: Figure, path: str | Path | IO[bytes]) -> None:
    """Write a figure as PNG."""
    with boxes_for_missing_glyphs():
        figure.savefig(path, dpi=144, bbox_inches="tight")


@contextlib.contextmanager
def boxes_for_missing_glyphs() -> Iterator[None]:
    """Let what the font lacks be drawn as a box, without a warning for each.

    Tokens may be of any script.
    """
    message = "Glyph .* missing|Matplotlib currently does not support"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message, UserWarning)
        yield

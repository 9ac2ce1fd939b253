"""Datasets in, matplotlib figures out. Nothing is computed here.

    figure = plot.heatmap(heads["effect"], title="Heads", note=plot.note(heads, 100))
    plot.show(figure)            # in a notebook
    plot.render(figure, "a.png")  # into a file

Figures are drawn apart from pyplot, so that importing this changes no notebook's back end. What is
not known (NaN) is left blank.
"""

from __future__ import annotations

from nnheads.plot._against import against
from nnheads.plot._curves import against_random, curves, emergence, lines
from nnheads.plot._figure import note, render, show
from nnheads.plot._grids import accuracy, heatmap, pattern
from nnheads.plot._types import types_map

__all__ = [
    "accuracy",
    "against",
    "against_random",
    "curves",
    "emergence",
    "heatmap",
    "lines",
    "note",
    "pattern",
    "render",
    "show",
    "types_map",
]

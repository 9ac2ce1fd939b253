"""From values to colours: which colour map, between which limits, and what lies beyond them."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.colors import Colormap, LogNorm, Normalize

BEYOND = "crimson"  # no colour of the sequential map, and told from both ends of the signed one
USUAL = 98  # percentile of the sizes ...
FAR = 2.0  # ... times which a size has to be to lie beyond a robust scale
DIGITS = ".2g"


@dataclass(frozen=True)
class Scale:
    """How values become colours.

    beyond: mask of the values that the limits leave out, of the shape of the values.
    """

    colours: Colormap
    norm: Normalize
    beyond: np.ndarray

    def text_on(self, value: float) -> str:
        """Return the colour of a text that shows on the colour of a value."""
        if np.isnan(value):
            return "black"  # on the page
        red, green, blue, _ = self.colours(self.norm(value))
        return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"

    @property
    def extended(self) -> str:
        """Return which ends of the colour bar are open, as matplotlib names them."""
        if not self.beyond.any():
            return "neither"
        return "both" if (self.norm.vmin or 0) < 0 else "max"


def scale(values: np.ndarray, *, signed: bool, log: bool = False, robust: bool = False) -> Scale:
    """Return the colours of values, of which NaN are left blank.

    Args:
        signed: centred at zero; else from zero, or from the smallest positive value where `log`.
        log: the scale is logarithmic, where there is a positive value.
        robust: the scale ends before the few values that are far larger than all others.
    """
    sizes = np.abs(values[np.isfinite(values)])
    span = _span(sizes, robust)
    beyond = np.abs(values) > span  # NaN is not
    colours = matplotlib.colormaps["RdBu" if signed else "viridis"]
    if beyond.any():
        colours = colours.with_extremes(over=BEYOND, under=BEYOND if signed else None)
    positive = sizes[sizes > 0]
    if log and not signed and positive.size:
        low = min(float(positive.min()), span / 10)  # two ends, also where all are alike
        norm = LogNorm(low, span, clip=not beyond.any())  # 0 has the colour of the lowest
        return Scale(colours, norm, beyond)
    return Scale(colours, Normalize(-span if signed else 0.0, span), beyond)


def _span(sizes: np.ndarray, robust: bool) -> float:
    """Return the size at which the colours end."""
    largest = float(sizes.max(initial=0.0)) or 1.0
    if not robust or sizes.size == 0:
        return largest
    most = FAR * float(np.percentile(sizes, USUAL, method="lower"))
    return float(sizes[sizes <= most].max()) if most > 0 else largest

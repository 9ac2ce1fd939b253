"""The pictures of `nnheads function-vectors`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnheads.recipes._results import band

if TYPE_CHECKING:
    import xarray as xr

    from nnheads.plot._curves import Band
    from nnheads.runs.folder import Run

LINES = {
    "shown": "function vector",
    "shuffled": "of shuffled examples",
    "random": "of random heads",
    "before": "nothing added",
}
MARKED = 5  # heads with a frame


def draw(run: Run, heads: xr.Dataset, zero_shot: xr.Dataset, cases: int) -> None:
    """Draw the effect of every head, and what their sum does before each layer."""
    from nnheads import plot, stats

    effects = plot.heatmap(
        heads["aie"],
        title="Function-vector heads: average indirect effect",
        marked=stats.top_heads(heads, "aie", MARKED),
        framed=f"the {MARKED} highest",
        note=plot.note(heads, cases),
    )
    run.picture("heads", effects)
    curves = plot.curves(
        lines_of(zero_shot),
        title="Questions without examples, vector added before a layer",
        note=plot.note(zero_shot, zero_shot.sizes["question"]),
    )
    run.picture("zero_shot", curves)


def lines_of(zero_shot: xr.Dataset) -> dict[str, Band]:
    """Return the share of right answers over layers with its ends, for each sort of vector."""
    import xarray as xr

    shape = xr.zeros_like(zero_shot["accuracy_shown"])  # what is added nowhere has no layers
    about = {**shape.attrs, "long_name": "share of questions answered right"}
    lines: dict[str, Band] = {}
    for kind, text in LINES.items():
        value, low, high = (shape + end for end in band(zero_shot, f"accuracy_{kind}"))
        lines[text] = (value.assign_attrs(about), low, high)
    return lines

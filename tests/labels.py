"""Whether datasets say what they hold: the law of every file that a command writes."""

from __future__ import annotations

import xarray as xr


def unlabelled(dataset: xr.Dataset) -> list[str]:
    """Return which variables and coordinates lack `long_name`, or `units` where they are numbers.

    Texts have no unit.
    """
    lacking = []
    for name, variable in dataset.variables.items():
        needed = ["long_name", *["units"] * (variable.dtype.kind in "iufb")]
        missing = [what for what in needed if not variable.attrs.get(what)]
        lacking += [f"{name} {variable.dims} lacks {what}" for what in missing]
    return lacking

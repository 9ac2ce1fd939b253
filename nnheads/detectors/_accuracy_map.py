"""How often a model was right on needle prompts, by length and depth."""

from __future__ import annotations

import xarray as xr

MEANING = {
    "answered": "share of prompts answered",
    "first": "share of first answer tokens predicted",
    "accuracy": "share of answer tokens predicted",
}


def accuracy_map(scores: xr.Dataset) -> xr.DataArray | None:
    """Return the share of right answers by length and depth; None for other than needle prompts.

    The depth is the one that was asked for, where the prompts say so, since a needle stands at the
    end of a sentence near it.

    Args:
        scores: (batch), with the coordinates `length`, `depth` and `answered` or `accuracy`, and
            perhaps `right` (batch, step): the first token has to be found, others follow from it.

    Returns:
        (length, depth); NaN where no prompt has that length and depth.
    """
    if "right" in scores.coords and "answered" not in scores.coords:
        scores = scores.assign_coords(first=scores["right"].isel(step=0).reset_coords(drop=True))
    measured = next((name for name in MEANING if name in scores.coords), None)
    if measured is None or not {"length", "depth"} <= set(scores.coords):
        return None
    depth = "depth_asked" if "depth_asked" in scores.coords else "depth"
    table = scores.coords.to_dataset()[["length", depth, measured]].to_dataframe()
    cells = table.groupby(["length", depth])[measured].mean().to_xarray().astype("float32")
    named = cells.rename("accuracy").rename({depth: "depth"})
    return named.assign_attrs(long_name=MEANING[measured], units="1")

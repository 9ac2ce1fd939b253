"""How heads come about over the revisions of a model.

    for (model, type), curves in emergence(entries).items(): curves["onset"]

Revisions stand in the order of their training steps, if all of them name one (`step3000`), else as
they came.
"""

from __future__ import annotations

import re

import numpy as np
import xarray as xr

from nnheads.compare.entries import Entry, strength_of
from nnheads.runs.columns import CELL

DIGITS = re.compile(r"step[-_]?(\d{1,12})")


def step_of(revision: str) -> int | None:
    """Return the training step in a revision's name: `step3000`, `stage1-step1000-tokens5B`."""
    match = DIGITS.search(revision)
    return int(match.group(1)) if match else None


def emergence(entries: list[Entry]) -> dict[tuple[str, str], xr.Dataset]:
    """Return curves over revisions, (model, type) -> curves, where a model has several.

    Returns:
        (revision, layer, head): `score` and, where known, `flag`; (revision): `strongest`,
        `flagged`; (layer, head): `onset`, the first step, or number in the order, from which on a
        head is always flagged. Revisions stand in the order of their steps if all have one
        (`step`), else as they came.
    """
    groups: dict[tuple[str, str], list[Entry]] = {}
    for one in entries:
        groups.setdefault((one.model, one.type), []).append(one)
    alike = {key: _of_one_shape(group) for key, group in groups.items()}
    return {key: _curves(group) for key, group in alike.items() if len(group) > 1}


def _of_one_shape(group: list[Entry]) -> list[Entry]:
    """Return the entries that have the layers and heads of the first."""
    return [one for one in group if one.shape == group[0].shape]


def _curves(group: list[Entry]) -> xr.Dataset:
    """Join the revisions of one model and type, in order."""
    steps = [step_of(one.revision) for one in group]
    known = [step for step in steps if step is not None]
    stepped = len(known) == len(steps)
    numbers = np.array(known if stepped else range(len(group)))
    order = np.argsort(numbers, kind="stable")
    joined = _joined([group[number] for number in order])
    if stepped:
        joined = joined.assign_coords(step=("revision", numbers[order]))
    about = {**joined["score"].attrs, "long_name": "strongest head"}
    joined["strongest"] = strength_of(joined).max(CELL).assign_attrs(about)
    return joined.assign(_of_flags(joined, numbers[order])) if "flag" in joined else joined


def _joined(group: list[Entry]) -> xr.Dataset:
    """Return the scores of revisions, and their flags if all of them have flags."""
    tables = [one.heads for one in group]
    names = ["score", "flag"] if all("flag" in table for table in tables) else ["score"]
    along = xr.Variable("revision", [one.revision for one in group])
    return xr.concat([table[names] for table in tables], along, combine_attrs="drop_conflicts")


def _of_flags(joined: xr.Dataset, numbers: np.ndarray) -> dict[str, xr.DataArray]:
    """Return how many heads are flagged, and from which revision on each of them is."""
    flags = joined["flag"] == 1
    flagged = flags.sum(CELL).astype("int32").assign_attrs(long_name="heads flagged", units="1")
    later = flags[::-1].cumprod("revision")[::-1].astype(bool)  # flagged from here on
    first = xr.DataArray(numbers.astype(float), dims="revision")
    about = {"long_name": "first step from which on it is flagged", "units": "1"}
    onset = first.where(later).min("revision").astype("float32").assign_attrs(about)
    return {"flagged": flagged, "onset": onset}

"""Many runs side by side: what tuning changes, and which types share a head.

    changes(base, tuned)["difference"]  # (layer, head)
    roles(entries)["which"]             # (layer, head), the types that flag a head

Only entries of one shape are compared head by head. See `overlap` for how alike entries are, and
`emergence` for how heads come about.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from nnheads import stats
from nnheads.compare.entries import Entry
from nnheads.errors import BadInput
from nnheads.runs.columns import CELL, text

SUBSETS = ("contrast", "counts")  # attrs of scores whose headline is no plain mean over prompts


def changes(base: Entry, tuned: Entry) -> xr.Dataset:
    """Return what changes from one model to another of the same shape, head by head.

    Returns:
        (layer, head): `difference`, tuned minus base. Where both were asked the same prompts, also
        its interval (`_low`, `_high`), `p_value` (t test over prompts, paired), `q_value` and
        `flag`.

    Raises:
        BadInput: models of different shapes.
    """
    if base.shape != tuned.shape:
        raise BadInput(
            f"Models of different shapes cannot be compared head by head: {base.name} has"
            f" {base.shape} layers and heads, {tuned.name} {tuned.shape}. Use models of one shape."
        )
    about = {**base.heads["score"].attrs, "long_name": f"change of {base.kind}"}
    names = {"base": base.name, "tuned": tuned.name}
    pair = paired(base, tuned)
    if pair is None:
        difference = (tuned.heads["score"] - base.heads["score"]).rename("difference")
        return difference.assign_attrs(about).to_dataset().assign_attrs(**names, paired=0)
    reduced = stats.mean(pair.rename("difference").assign_attrs(about))
    p_value = stats.differs_from(pair.transpose("batch", *CELL).values.astype(float))
    tested = stats.discoveries(p_value, "p of no change", "changes")
    return reduced.assign(tested).assign_attrs(**names, paired=1)


def paired(base: Entry, tuned: Entry) -> xr.DataArray | None:
    """Return differences prompt by prompt (batch, layer, head).

    None unless both were asked the same prompts and rank by a mean over them.
    """
    if base.scores is None or tuned.scores is None or not _same_prompts(base.scores, tuned.scores):
        return None
    name = text(base.scores.attrs.get("headline"))
    if name not in base.scores or name not in tuned.scores:
        return None
    first, second = base.scores[name], tuned.scores[name]
    by_head = set(first.dims) == {"batch", *CELL}
    return second - first if by_head and first.sizes == second.sizes else None


def _same_prompts(first: xr.Dataset, second: xr.Dataset) -> bool:
    """Return whether two scores are of the same prompts, all of which count."""
    digest = first.attrs.get("prompts_sha256")
    partial = any(name in first.attrs for name in SUBSETS)
    return bool(digest) and digest == second.attrs.get("prompts_sha256") and not partial


def roles(entries: list[Entry]) -> xr.Dataset:
    """Return which types flag which heads, of one model at one revision.

    Returns:
        `flag` (type, layer, head), `count` (layer, head) of types that flag a head, and `which` of
        them, by name. A type that was asked twice counts once, and one that flags most heads (see
        `stats.is_selective`) not at all: attrs name these as `common`.

    Raises:
        BadInput: no score that flags heads.
    """
    flagging = [one for one in entries if "flag" in one.heads and one.shape == entries[0].shape]
    if not flagging:
        raise BadInput(
            f"No score of {entries[0].model} flags heads. Use scores of nnheads detect, or lists."
        )
    common = [one.type for one in flagging if not stats.is_selective(one.heads["flag"])]
    along = xr.Variable("type", [one.type for one in flagging])
    flag = xr.concat([one.heads["flag"] == 1 for one in flagging], along)
    selective = ~flag["type"].isin(common)
    kinds = flag.assign_coords(kind=("type", [one.kind for one in flagging]))
    count = (kinds & selective).groupby("kind").any().sum("kind").astype("int16")
    count = count.assign_attrs(long_name="types that flag a head", units="1")
    table = xr.Dataset({"flag": flag.astype("int8"), "count": count})
    table = table.drop_vars("depth", errors="ignore")
    names = _names_of_flags((flag & selective).values, along.values)
    table["which"] = (CELL, names, {"long_name": "types that flag the head, of those selective"})
    return table.assign_attrs(common=", ".join(common))


def _names_of_flags(flags: np.ndarray, types: np.ndarray) -> np.ndarray:
    """Return the types that flag each head [layer, head], joined by semicolons."""
    names = types.astype(object)
    by_head = np.moveaxis(flags, 0, -1)
    rows = [["; ".join(names[own]) for own in layer] for layer in by_head]
    return np.array(rows, dtype=object).astype(str)

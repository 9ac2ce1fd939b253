"""Which evidence makes which role in the indirect-object circuit.

    table["role"] = roles(table)

Attention is not doing. A role asks for what a head attends to *and* for an effect: on the logits
straight from the head (name movers, subject suppression, writers), through the queries of the
heads that write (S-inhibition), or at all (induction, duplicate and previous token heads). A head
with the pattern alone stays without a role, and so does one whose evidence is NaN. Effects, and
that a head does not look somewhere, are decided on whole intervals: not to be sure that it looks is
no proof that it does not.
Source: Wang et al. 2022, arXiv 2211.00593. The limits below are ours.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from nnheads.patching.head_sets import Head
from nnheads.patching.scores import SOURCE

ATTENDS = 0.25  # half of what the paper's S-inhibition heads (0.51) and name movers (0.59) show
EFFECT = 0.02  # of the logit difference: at most fifty heads can each carry that much
PART = 0.25  # of what a head does in all, from which a path is said to be how it acts
COPIES = 0.5  # between heads at large (below 0.2 in the paper) and name movers (above 0.95)
RATE = 0.05  # false discovery rate of copying beyond chance
LOOKS = {
    "name_mover": "END to IO",
    "subject": "END to S2",
    "duplicate": "S2 to S1",
    "induction": "S2 to the token after S1",
    "previous": "the token after S1 to S1",
    "before_end": "END to the token before",
}
# the same attention to the other name, which a head that attends to any name has as well
OTHER = "_other"
EFFECTS = {
    "total": (
        "share of the logit difference that changes with the head's output (below 0: it helps)"
    ),
    "direct": (
        "share of the logit difference that changes with what the head writes straight to the"
        " logits (below 0: it helps)"
    ),
    "queries": (
        "share of the logit difference that changes with what the head writes to queries of heads"
        " that write"
    ),
    "alone": "total once the heads that write are gone, minus total",
}
ROLES = {
    "name_mover": "looks from END at IO, copies what it looks at, and so raises IO directly",
    "negative_name_mover": (
        "looks from END at IO, writes the opposite of it, and so lowers IO directly"
    ),
    "subject_suppression": (
        "looks from END at S2, writes the opposite of it, and so raises IO directly"
    ),
    "s_inhibition": (
        "looks from END at S2, and a quarter or more of its effect goes through the queries of the"
        " heads that write"
    ),
    "induction": "looks from S2 at what followed S1, and matters",
    "duplicate_token": "looks from S2 at S1, and matters",
    "previous_token": (
        "looks from what follows S1 at S1 and from END at what stands before, and matters"
    ),
    "backup": (
        "looks from END at IO, does not write against it, and acts once the heads that write are"
        " gone"
    ),
    "writer": "raises IO directly, and is not known to look and copy as a name mover does",
}
# what is shown of a head of this role; the last decides the order
EVIDENCE = {
    "name_mover": ("name_mover", "copy", "direct"),
    "negative_name_mover": ("name_mover", "negative", "direct"),
    "subject_suppression": ("subject", "negative", "direct"),
    "s_inhibition": ("subject", "total", "queries"),
    "induction": ("induction", "total"),
    "duplicate_token": ("duplicate", "total"),
    "previous_token": ("previous", "before_end", "total"),
    "backup": ("name_mover", "direct", "alone"),
    "writer": ("name_mover", "copy", "total", "direct"),
}


def helps(table: xr.Dataset, effect: str) -> xr.DataArray:
    """Return whether the answer loses EFFECT or more by a change, with its whole interval."""
    return (table[effect] <= -EFFECT) & (table[f"{effect}_high"] <= -EFFECT)


def hurts(table: xr.Dataset, effect: str) -> xr.DataArray:
    """Return whether the answer gains EFFECT or more by a change, with its whole interval."""
    return (table[effect] >= EFFECT) & (table[f"{effect}_low"] >= EFFECT)


def looks(table: xr.Dataset, kind: str) -> xr.DataArray:
    """Return whether attention is beyond ATTENDS and beyond random targets."""
    return (table[kind] >= ATTENDS) & (table[f"{kind}_flag"] == 1)


def avoids(table: xr.Dataset, kind: str) -> xr.DataArray:
    """Return whether attention is surely below ATTENDS: its whole interval is."""
    return table[f"{kind}_high"] < ATTENDS


def undecided(table: xr.Dataset, kind: str) -> xr.DataArray:
    """Return whether the interval of attention lies on both sides of ATTENDS."""
    return (table[f"{kind}_low"] < ATTENDS) & ~avoids(table, kind)


def copies(table: xr.Dataset, score: str) -> xr.DataArray:
    """Return whether a copy score is beyond COPIES and beyond chance."""
    return (table[score] >= COPIES) & (table[f"{score}_q_value"] < RATE)


def writing(table: xr.Dataset) -> list[Head]:
    """Return the heads that write the answer.

    They are the name movers, the heads that suppress the subject, and all others that raise the
    answer directly and surely do not attend to S2.
    """
    others = helps(table, "direct") & avoids(table, "subject")
    chosen = _name_movers(table) | _suppressors(table) | others
    indices = np.argwhere(chosen.transpose("layer", "head").values)
    return [(int(layer), int(head)) for layer, head in indices]


def roles(table: xr.Dataset) -> xr.DataArray:
    """Return the first role of ROLES whose evidence is there (layer, head), from 1; 0 for none."""
    evidence = _evidence(table)
    role = xr.zeros_like(table["total"]).astype("int8")
    for number, name in reversed(list(enumerate(ROLES, 1))):
        role = xr.where(evidence[name], np.int8(number), role)
    return role.assign_attrs(
        long_name="role in the indirect-object circuit",
        units="1",
        source=SOURCE,
        flag_values=np.arange(len(ROLES) + 1, dtype=np.int8),
        flag_meanings=" ".join(["none", *ROLES]),
    )


def _name_movers(table: xr.Dataset) -> xr.DataArray:
    return looks(table, "name_mover") & helps(table, "direct") & copies(table, "copy")


def _suppressors(table: xr.Dataset) -> xr.DataArray:
    return looks(table, "subject") & helps(table, "direct") & copies(table, "negative")


def _evidence(table: xr.Dataset) -> dict[str, xr.DataArray]:
    """Return for each role whether its evidence is there (layer, head)."""
    matters = helps(table, "total") | hurts(table, "total")
    negative = hurts(table, "direct") & copies(table, "negative")
    return {
        "name_mover": _name_movers(table),
        "negative_name_mover": looks(table, "name_mover") & negative,
        "subject_suppression": _suppressors(table),
        "s_inhibition": looks(table, "subject")
        & helps(table, "queries")
        & (table["queries"] <= PART * table["total"]),
        "induction": looks(table, "induction") & matters,
        "duplicate_token": looks(table, "duplicate") & matters,
        "previous_token": looks(table, "previous") & looks(table, "before_end") & matters,
        "backup": looks(table, "name_mover")
        & helps(table, "alone")
        & (table["direct"] < EFFECT),  # what works against the answer does not stand in for it
        "writer": helps(table, "direct"),
    }

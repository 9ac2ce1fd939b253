"""The role table in words, for a terminal.

    for line in lines(role_table(model, prompts)): print(line)

Each role's heads with the evidence that it took, heads with an effect and no role, heads of which
more prompts would tell where they look, and heads that have the attention of a role without a sure
effect. A value that is NaN is shown as nan.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from nnheads.models.names import head_name, parse_head
from nnheads.patching.role_rules import (
    ATTENDS,
    EFFECT,
    EFFECTS,
    EVIDENCE,
    LOOKS,
    ROLES,
    helps,
    hurts,
    looks,
    undecided,
)
from nnheads.stats import ranked_heads

SHOWN_LOOKS = ("name_mover", "subject", "duplicate", "induction")
DECIDING = ("name_mover", "subject")  # looks that make heads that write, or rule them out
WRITING = {
    "name_mover": "name movers",
    "subject_suppression": "subject suppression",
}
WRITES = "raise IO directly, surely do not look at S2, and are no name movers"
SHOWN = 8  # heads without a role that are named
FEW = 16  # prompts: with fewer, intervals are wide


def lines(table: xr.Dataset) -> list[str]:
    """Return the lines that say who has which role, as `role_table` found it."""
    said = [_line_of_writers(table)]
    for number in range(1, len(ROLES) + 1):
        said += _lines_of_role(table, number)
    said += _lines_without_role(table)
    said += _lines_of_undecided(table)
    looking: list[str] = []
    for layer, head in np.argwhere((table["role"] == 0).values):
        looking += _line_of_unnamed(table.isel(layer=layer, head=head), head_name(layer, head))
    heading = f"the look of a role, but no effect surely beyond {EFFECT}"
    return [*said, heading, *looking] if looking else said


def _line_of_writers(table: xr.Dataset) -> str:
    """Return the heads that write, and by which kind of evidence."""
    listed: dict[str, list[str]] = {words: [] for words in [*WRITING.values(), WRITES]}
    for name in table.attrs["writers"].split():
        role = int(table["role"].sel(dict(zip(("layer", "head"), parse_head(name)))))
        listed[WRITING.get(["none", *ROLES][role], WRITES)].append(name)
    said = [f"{', '.join(heads)} ({words})" for words, heads in listed.items() if heads]
    return f"heads that write (queries and alone are of these): {'; '.join(said) or 'none'}"


def lines_of_others(table: xr.Dataset, listed: list[tuple[int, int]], said: list[str]) -> list[str]:
    """Return a line for each head of a list of which nothing was said, with its total effect."""
    others = [one for one in listed if not any(f"{head_name(*one)} " in line for line in said)]
    rows = {one: table.sel(layer=one[0], head=one[1]) for one in others}
    named = [f"  {head_name(*one):<7} {shown_value(row, 'total')}" for one, row in rows.items()]
    return ["neither a role nor a sure effect here", *named] if named else []


def _lines_without_role(table: xr.Dataset) -> list[str]:
    """Return the heads with a sure effect and no role, the largest first."""
    sure = (table["role"] == 0) & (helps(table, "total") | hurts(table, "total"))
    strongest = ranked_heads(abs(table["total"]).where(sure))
    if not strongest:
        return []
    said = ["an effect, and no role: what these do is not one of the jobs above"]
    for layer, head in strongest[:SHOWN]:
        row = table.sel(layer=layer, head=head)
        measured = [column for column in EFFECTS if column != "alone" and row[column].notnull()]
        shown = ", ".join(shown_value(row, column) for column in measured)
        said.append(f"  {head_name(layer, head):<7} {shown}")
    if len(strongest) > SHOWN:
        said.append(f"  and {len(strongest) - SHOWN} with less; roles.nc holds all")
    return said


def _lines_of_undecided(table: xr.Dataset) -> list[str]:
    """Return the heads with an effect of which it is not sure where they look."""
    matters = helps(table, "total") | hurts(table, "total") | helps(table, "direct")
    said = []
    for kind in DECIDING:
        for layer, head in np.argwhere((undecided(table, kind) & matters).values):
            row = table.isel(layer=layer, head=head)
            value, low, high = (float(row[kind + end]) for end in ("", "_low", "_high"))
            said.append(
                f"undecided: {head_name(layer, head)} {LOOKS[kind]} {value:.2f} [{low:.2f},"
                f" {high:.2f}], and {ATTENDS} decides"
            )
    cases = int(table.attrs["cases"])
    if said or cases < FEW:
        said.append(f"these are {cases} prompts; more (--limit) make intervals narrower")
    return said


def _lines_of_role(table: xr.Dataset, number: int) -> list[str]:
    """Return a role and its heads, the strongest evidence first; nothing of an empty role."""
    name = list(ROLES)[number - 1]
    strength = abs(table[EVIDENCE[name][-1]])
    strongest = ranked_heads(strength.where(table["role"] == number))
    if not strongest:
        return []
    said = [f"{name.replace('_', ' ')}: {ROLES[name]}"]
    writers = table.attrs["writers"].split()
    for layer, head in strongest:
        row, own = table.sel(layer=layer, head=head), head_name(layer, head)
        shown = ", ".join(shown_value(row, column) for column in EVIDENCE[name])
        note = ""
        if name == "writer" and own not in writers:
            note = f"; not counted above: END to S2 {float(row['subject']):.2f}"
        elif EVIDENCE[name][-1] == "total" and float(row["total"]) > 0:
            note = "; it works against the answer"
        said.append(f"  {own:<7} {shown}{note}")
    return said


def _line_of_unnamed(row: xr.Dataset, name: str) -> list[str]:
    """Return a line where a head has the attention of a role, but no sure effect."""
    seen = [kind for kind in SHOWN_LOOKS if bool(looks(row, kind))]
    if not seen or bool(helps(row, "total") | hurts(row, "total")):
        return []
    shown = ", ".join(shown_value(row, column) for column in (*seen, "total"))
    return [f"  {name:<7} {shown}"]


def shown_value(row: xr.Dataset, name: str) -> str:
    """Return one number of one head in words; effects with their interval."""
    value, low, high = (float(row[name + end]) for end in ("", "_low", "_high"))
    if name in EFFECTS:  # + 0.0: what rounds to zero has no sign
        shown = (f"{round(one, 2) + 0.0:+.2f}" for one in (value, low, high))
        return "{} {} [{}, {}]".format(name, *shown)
    return f"{LOOKS.get(name, f'{name} score')} {value:.2f}"

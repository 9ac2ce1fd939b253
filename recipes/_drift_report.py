"""What `nnheads drift` says on the terminal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from nnheads.recipes._terminal import say, say_files, with_interval

if TYPE_CHECKING:
    import xarray as xr

    from nnheads.runs.folder import Run


def said(identity: dict[str, str]) -> str:
    """Return a side in words."""
    return f"{identity['dtype']} ({identity['attention']})"


def sides_of(table: xr.Dataset) -> list[str]:
    """Return both sides of a comparison in words."""
    return [said(json.loads(table.attrs[name])) for name in ("source", "source_against")]


def report(run: Run) -> None:
    """Print a line for each type, and which heads gain or lose their flag."""
    table, top = run.load("drift"), run.arguments["top"]
    one, other = sides_of(table)
    say(f"{one} against {other}, {run.arguments['limit']} prompts a type")
    say(f"  {'':<19} rank correlation [95% interval]")
    ranks = f"{'of all heads':<24} {'of those flagged, or at the top':<33}"
    say(f"  {'type':<19} {ranks} top {top:<3} largest change  flags")
    for kind in table["type"].values:
        say_type(kind, table.sel(type=kind))
    say_files(run, "drift.nc", "drift.png")


def say_type(kind: str, one: xr.Dataset) -> None:
    """Print how alike the two sides rank the heads of a type."""
    import numpy as np

    if not np.isfinite(one["rank_correlation"]):
        say(f"  {kind:<19} no score to compare on one side, or all heads alike")
        return
    overlap, largest = float(one["overlap"]), float(one["largest"])
    flags = f"{int(one['flag'].sum())} -> {int(one['flag_against'].sum())}"
    everywhere = with_interval(one, "rank_correlation", ".4f")
    among = with_interval(one, "rank_correlation_named", ".4f")
    named = f"{among} {int(one['named'].sum()):>3} heads"
    ranks = f"{everywhere:<24} {named:<33}"
    say(f"  {kind:<19} {ranks} {overlap:>6.0%} {largest:>14.2g}  {flags}")
    say_flags("gained", one["flag_against"] > one["flag"])
    say_flags("lost", one["flag_against"] < one["flag"])


def say_flags(word: str, changed: xr.DataArray) -> None:
    """Print the heads whose flag came or went."""
    from nnheads.models.names import head_name

    names = [head_name(*head) for head, on in changed.to_series().items() if on]
    if names:
        say(f"  {'':<19} flag {word} by {', '.join(names)}")

"""Join what `nnheads detect` found at several revisions of a model: save, draw and print it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nnheads.recipes._detect_report import beside, note_of
from nnheads.recipes._terminal import say, shown

if TYPE_CHECKING:
    from nnheads.runs.folder import Run


def emergence(revisions: Mapping[str | None, Mapping[str, Run]]) -> None:
    """Join the revisions along a dimension of their own, and draw how heads come about."""
    for kind in next(iter(revisions.values())):
        runs = {str(revision): by_type[kind] for revision, by_type in revisions.items()}
        say_emergence(kind, runs)


def say_emergence(kind: str, runs: Mapping[str, Run]) -> None:
    """Save, draw and print one type along the revisions."""
    from nnheads import plot
    from nnheads.runs import store

    joined = along_revisions(runs)
    headline = joined[joined.attrs["headline"]]
    folder = folder_of_revisions(next(iter(runs.values())))
    store.save(folder / "heads.nc", joined)
    title = f"{kind} heads over revisions"
    figure = plot.emergence(headline, title=title, note=note_of(joined))
    store.write(folder / "emergence.png", partial(plot.render, figure))
    say(f"{kind}: strongest head by revision")
    say_strongest(runs, headline.max(["layer", "head"]).values)
    say(f"  {shown(folder)}")


def folder_of_revisions(run: Run) -> Path:
    """Return the folder, beside those of the revisions, for what joins them."""
    revision = beside(run)
    return revision.parent / "revisions" / run.folder.relative_to(revision)


def say_strongest(revisions: Iterable[str], values: Iterable[float]) -> None:
    """Print the highest value of each revision."""
    for name, value in zip(revisions, values):
        number = f"{float(value):.3f}" if value == value else "no value"
        say(f"  {name:<16} {number}")


def along_revisions(runs: Mapping[str, Run]):
    """Return the heads of one type (revision, layer, head), about which the last one says most."""
    import xarray as xr

    each = [run.load("heads") for run in runs.values()]
    revisions = xr.Variable("revision", list(runs))
    joined = xr.concat(each, revisions, combine_attrs="drop_conflicts")
    last = {key: each[-1].attrs[key] for key in ("source", "history", "headline", "arguments")}
    return joined.assign_attrs(last)

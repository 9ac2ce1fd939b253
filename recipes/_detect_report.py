"""Print and draw what `nnheads detect` found, for one revision or along several."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnheads.recipes._terminal import counted, line_of, say, say_values, shown

if TYPE_CHECKING:
    from nnheads.runs.folder import Run

FEW = 5  # prompts of a sort, below which a difference of two sorts says little


def beside(run: Run, *names: str) -> Path:
    """Return a path in the folder of the revision, of which each type has a folder."""
    folder = run.folder.parent.parent if run.arguments.get("spans") else run.folder.parent
    return folder.joinpath(*names)


def report(runs: Mapping[str, Run], top: int) -> None:
    """Print the strongest heads of each type; a star marks those beyond chance."""
    for kind, run in runs.items():
        say_type(kind, run, top)


def say_type(kind: str, run: Run, top: int) -> None:
    """Print the strongest heads of one type, and what was changed about its prompts."""
    from nnheads import stats
    from nnheads.detectors._ability import lines

    heads = run.load("heads")
    best = stats.top_heads(heads, heads.attrs["headline"], top)
    if not best:
        say(f"{kind}: {why_empty(heads)} (try other --lengths)")
        return
    say_best(kind, heads, best, lines(heads.attrs))
    changed = json.loads(heads.attrs.get("dropped", "{}"))
    if changed:
        say("  " + counted(changed, "{reason}: {count}"))
    say(f"  {shown(run.folder)}")


def say_best(kind: str, heads, best: list[dict], about_model: list[str]) -> None:
    """Print heads with their intervals, or without where one prompt gives none.

    about_model: whether it does what the prompts ask.
    """
    title, cases = title_of(kind, heads), cases_counted(heads)
    known = best[0]["low"] == best[0]["low"]
    say(f"{title} [{'95% interval' if known else 'no interval: one prompt'}]{cases}")
    for line in about_model:
        say(f"  {line}")
    if known:
        for head in best:
            say(f"  {line_of(flagged(heads, head), 'H')}")
    else:
        say_values(best)


def flagged(heads, head: dict) -> dict:
    """Return a head, and whether it is beyond chance and strong."""
    marks = [name for name in ("flag", "strong") if name in heads]
    own = heads[marks].sel(layer=head["layer"], head=head["head"])
    return {**head, **{name: bool(own[name]) for name in marks}}


def title_of(kind: str, heads) -> str:
    """Return how many heads are beyond chance, and by which statistic they are ranked."""
    flagged, total = int(heads["flag"].sum()), heads["flag"].size
    headline, tested = heads.attrs["headline"], heads["flag"].attrs.get("statistic")
    by = f", by {tested}" if tested and tested != headline else ""
    strong = ""
    if "strong" in heads and flagged:
        least = heads["strong"].attrs["least"]
        strong = f", {int(heads['strong'].sum())} strong (**, {headline} at least {least:g})"
    return f"{kind}: {flagged} of {total} heads beyond chance (*{by}){strong}; {headline}"


def cases_counted(heads) -> str:
    """Return how many prompts counted, or were of either sort, for types that ask for it."""
    about = heads.attrs
    if "cases_of_one" in about:
        return of_two_sorts(int(about["cases_of_one"]), int(about["cases"]), about["contrast"])
    number = about.get("cases_counted")
    return "" if number is None else f"; {number} of {about['cases']} prompts {about['counts']}"


def of_two_sorts(first: int, cases: int, sort: str) -> str:
    """Return how many prompts are of either sort, and whether that is too few to go by."""
    few = min(first, cases - first)
    little = f": an interval of {few} prompts says little (--limit)" if few < FEW else ""
    return f"; {first} prompts {sort}, {cases - first} not{little}"


def why_empty(heads) -> str:
    """Return why no head of a type has a value."""
    if heads.attrs.get("cases_counted") == 0:
        cases, counts = heads.attrs["cases"], heads.attrs["counts"]
        return f"none of {cases} prompts was {counts}, so no head has a score"
    return "nothing to compare; all prompts, or none, were answered"


def say_left_out(model: Any, names: Sequence[str], runs: Mapping[str, Run]) -> None:
    """Print which types were not measured, and what they need."""
    from nnheads.detectors._stimulus import left_out

    if set(names) <= set(runs):
        return
    for kind, why in left_out(model, names, runs).items():
        say(f"{kind}: left out; {why}")


def overview(runs: Mapping[str, Run]) -> None:
    """Draw one map of all types: a cell is split when a head has several."""
    from nnheads import plot, stats
    from nnheads.runs import store

    heads = {kind: run.load("heads") for kind, run in runs.items()}
    for kind in [one for one, each in heads.items() if not stats.is_selective(each["flag"])]:
        flag = heads.pop(kind)["flag"]
        count = f"{int(flag.sum())} of {flag.size}"
        say(f"{kind} is left out of the map of all types: it flags {count} heads")
    maps = {kind: map_of(each).where(each["flag"] == 1) for kind, each in heads.items()}
    if not maps:
        return
    note = note_of(next(iter(heads.values())))
    words = {"title": "Heads beyond chance, by type", "scored": "attention mass,\nor what ranks it"}
    figure = plot.types_map(maps, note=note, **words)
    path = next(iter(runs.values())).folder.parent / "all.png"
    store.write(path, partial(plot.render, figure))
    say(shown(path))


def note_of(heads) -> str:
    """Return the small print of a picture, with the number of prompts that were asked for."""
    from nnheads import plot

    return plot.note(heads, int(json.loads(heads.attrs["arguments"])["limit"]))


def map_of(heads):
    """Return what a type is drawn by (layer, head): attention mass, or its headline."""
    return heads["mass"] if "mass" in heads else heads[heads.attrs["headline"]]


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

"""Print and draw what `nnheads detect` found, for one revision or along several."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnheads.recipes._terminal import counted, line_of, say, say_values, shown

if TYPE_CHECKING:
    from nnheads.runs.folder import Run

# below which heads that always do it may not be flagged: a question is answered right or wrong,
# which says less than how much attention lies somewhere
ENOUGH = {"prompts": 8, "questions": 16}


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
    from nnheads.detectors._ability import lines

    heads, scores = run.load("heads"), run.load("scores")
    headline = heads[heads.attrs["headline"]]
    if not headline.notnull().any():
        say(f"{kind}: {why_empty(heads, scores)} (try other --lengths)")
        return
    say_best(kind, heads, best_heads(heads, top), lines(heads.attrs), cases_in(heads, scores))
    changed = json.loads(heads.attrs.get("dropped", "{}"))
    if changed:
        say("  " + counted(changed, "{reason}: {count}"))
    say(f"  {shown(run.folder)}")


def best_heads(heads, count: int) -> list[dict]:
    """Return the highest heads by the headline, without those that score exactly 0."""
    from nnheads import stats

    headline = heads.attrs["headline"]
    names = [headline, f"{headline}_low", f"{headline}_high"]
    return stats.top_heads(heads[names].where(heads[headline] != 0), headline, count)


def cases_in(heads, scores) -> dict[str, int]:
    """Return from how many prompts, or questions, the scores of a type's heads are.

    scores: (batch, layer, head) with its headline.
    """
    if "cases_counted" in heads.attrs:
        return {"prompts": int(heads.attrs["cases_counted"])}
    known = scores[scores.attrs["headline"]].notnull()
    cases = known.any([dim for dim in known.dims if dim != "batch"])
    if "question" in scores:
        return {"questions": len(set(scores["question"].values[cases.values].tolist()))}
    return {"prompts": int(cases.sum())}


def say_best(
    kind: str, heads, best: list[dict], about_model: list[str], cases: Mapping[str, int]
) -> None:
    """Print heads with their intervals, or without where one prompt gives none.

    about_model: whether it does what the prompts ask. cases: as `cases_in` returns them.
    """
    headline = heads.attrs["headline"]
    known = bool(heads[f"{headline}_low"].notnull().any())
    say(
        f"{title_of(kind, heads)} [{'95% interval' if known else 'no interval: one prompt'}]"
        f"{cases_counted(heads) or said_cases(cases)}{said_few(cases)}"
    )
    for line in about_model:
        say(f"  {line}")
    if not best:
        say("  0 for every head")
        return
    if known and not heads["flag"].any():
        say("  chance can explain every head, the highest too:")
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


def said_cases(cases: Mapping[str, int]) -> str:
    """Return how many prompts or questions there were; of one, the interval says it."""
    return "".join(f"; {number} {sort}" for sort, number in cases.items() if number > 1)


def said_few(cases: Mapping[str, int]) -> str:
    """Return a warning where even heads that do it all the time might not be flagged."""
    from nnheads.stats.calibration import FEWEST

    if any(number < FEWEST for number in cases.values()):
        return "; few: neither a flag nor its absence says much"
    few = any(number < ENOUGH[sort] for sort, number in cases.items())
    return "; few: absence of a flag says little" if few else ""


def cases_counted(heads) -> str:
    """Return how many prompts counted, or were of either sort, for types that ask for it."""
    about = heads.attrs
    if "cases_of_one" in about:
        return of_two_sorts(int(about["cases_of_one"]), int(about["cases"]), about["contrast"])
    number = about.get("cases_counted")
    return "" if number is None else f"; {number} of {about['cases']} prompts {about['counts']}"


def of_two_sorts(first: int, cases: int, sort: str) -> str:
    """Return how many prompts are of either sort, and whether that is too few to go by."""
    from nnheads.stats.calibration import FEWEST

    few = min(first, cases - first)
    little = f": no head is flagged from {few} prompts (--limit)" if few < FEWEST else ""
    return f"; {first} prompts {sort}, {cases - first} not{little}"


def why_empty(heads, scores) -> str:
    """Return why no head of a type has a value. scores: (batch, layer, head)."""
    if heads.attrs.get("cases_counted") == 0:
        cases, counts = heads.attrs["cases"], heads.attrs["counts"]
        return f"none of {cases} prompts was {counts}, so no head has a score"
    if "contrast" not in heads.attrs:
        return "no prompt gives any head a score"
    sort = heads.attrs["contrast"]
    first, cases = int((scores[sort] == 1).sum()), scores.sizes["batch"]
    return f"nothing to compare; {first} of {cases} prompts were {sort}"


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

    heads, common = {kind: run.load("heads") for kind, run in runs.items()}, {}
    for kind in [one for one, each in heads.items() if not stats.is_selective(each["flag"])]:
        flag = heads.pop(kind)["flag"]
        common[kind] = f"it flags {int(flag.sum())} of {flag.size} heads"
        say(f"{kind} is left out of the map of all types: {common[kind]}")
    headlines = {kind: each[each.attrs["headline"]] for kind, each in heads.items()}
    maps = {kind: one.where(heads[kind]["flag"] == 1) for kind, one in headlines.items()}
    if not maps:
        return
    present = {kind: str(headlines[kind].name) for kind in maps if maps[kind].notnull().any()}
    figure = plot.types_map(
        maps,
        title="Heads beyond chance, by type",
        scored="score that\nranks the type",
        says=about_map(present, common, [kind for kind in maps if kind not in present]),
        note=note_of(next(iter(heads.values()))),
    )
    path = next(iter(runs.values())).folder.parent / "all.png"
    store.write(path, partial(plot.render, figure))
    say(shown(path))


def note_of(heads) -> str:
    """Return the small print of a picture, with the number of prompts that were asked for."""
    from nnheads import plot

    return plot.note(heads, int(json.loads(heads.attrs["arguments"])["limit"]))


def about_map(
    headlines: Mapping[str, str], common: Mapping[str, str], without: Sequence[str] = ()
) -> list[str]:
    """Return by which statistic each type is coloured, and which types are left out and why.

    without: types of which no head is beyond chance.
    """
    by: dict[str, list[str]] = {}
    for kind, headline in headlines.items():
        by.setdefault(headline, []).append(kind)
    coloured = "; ".join(f"{name} of {', '.join(kinds)}" for name, kinds in by.items())
    out = [f"Left out: {kind}, since {why}." for kind, why in common.items()]
    out += [f"No head beyond chance: {', '.join(without)}."] * bool(without)
    return [f"Coloured by {coloured}."] * bool(by) + out

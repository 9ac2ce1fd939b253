"""Runs in, plain numbers and texts out: all that the page shows, and no HTML.

Numbers are rounded to four digits; the files keep all of them.
"""

from __future__ import annotations

from collections import Counter

import xarray as xr

from nnheads.page.compared import compared
from nnheads.page.grids import add_scores, page_of_model
from nnheads.page.one_run import about_run, add_others, other_files, owner_of
from nnheads.page.pictures import add_pictures
from nnheads.page.tables import tables_of
from nnheads.runs.columns import (
    CELL,
    SHARED_CELL,
    tables_in,
)
from nnheads.runs.find import Finished, kind_of


def payload(
    runs: list[Finished],
    *,
    title: str,
    made: dict,
    unfinished: list[str] | None = None,
    top: int = 8,
    draws: int = 20,
) -> dict:
    """Return everything on the page.

    Args:
        made: who made the page: command, commit and so on, as texts.
        unfinished: folders of runs that were left out, to be named.
        top: how many heads at the top are compared between scores.
        draws: pairs of samples of prompts for stability; 0 for none.

    Returns:
        `title`, `made`, `unfinished`; `runs`, each with its command, versions, commit and files;
        `models`, each with its sizes, `scores` (numbers by head, row by row), `roles`, `knockouts`,
        `texts` and `results` (small tables and pictures of a run); `overlap`, `stability` and
        `unstable`, of all scores.

    Raises:
        BadInput: a file that cannot be read, or files that disagree on the shape of one model.
    """
    models: dict[tuple, dict] = {}
    listed, headlines, more = [], [], []
    for number, run in enumerate(runs):
        about, found, rest = _add_run(models, run, number)
        listed.append(about)
        headlines += found
        more.append(rest)
    add_pictures([(run, drawn, found) for run, (_, drawn, found) in zip(runs, more)])
    for about, (key, _, found) in zip(listed, more):
        about["more"] = any(found[name] for name in ("tables", "pictures", "unseen"))
        if about["more"]:
            models.setdefault(key, {}).setdefault("results", []).append(found)
    each = [page_of_model(key, model) for key, model in models.items()]
    _name(each)
    places = [(list(models).index(key), place) for key, place in headlines]
    return {
        "title": title,
        "made": made,
        "unfinished": unfinished or [],
        "runs": listed,
        "models": each,
        **compared(runs, each, places, top=top, draws=draws),
    }


def _add_run(models: dict, run: Finished, number: int) -> tuple[dict, list, tuple]:
    """Add what a run says to its models.

    Returns:
        The run as the page lists it; where the headline of each of its tables stands; its model,
        the names of pictures that the page draws itself, and the rest of what it says.
    """
    whole = {name: run.dataset(name) for name in run.outcomes}
    tables, shared = (tables_in(whole, run.folder, cell) for cell in (CELL, SHARED_CELL))
    own = other_files(run)
    described = [*tables.values(), *shared.values(), *own.values(), *whole.values()]
    about = described[0] if described else xr.Dataset()
    headlines = []
    measured = [(CELL, *item) for item in tables.items()]
    measured += [(SHARED_CELL, *item) for item in shared.items()]
    for cell, file, dataset in measured:
        owner, kind = owner_of(run, dataset.attrs), kind_of(run, dataset, file)
        place = add_scores(models.setdefault(owner, {}), run, number, kind, dataset, cell)
        if cell == CELL and place is not None:
            headlines.append((owner, place))
    owner = owner_of(run, about.attrs)
    if own:
        add_others(models.setdefault(owner, {}), run, number, own)
    small, left = tables_of(whole)
    rest = {"run": number, "tables": small, "left": left, "pictures": [], "unseen": []}
    drawn = _drawn(whole, [*tables, *shared, *own])
    return about_run(run, about.attrs, {**shared, **tables}), headlines, (owner, drawn, rest)


def _drawn(whole: dict[str, xr.Dataset], files: list[str]) -> set[str]:
    """Return the names of pictures that the page draws itself."""
    cells = [set(CELL), set(SHARED_CELL)]
    scores = {
        str(name)
        for dataset in whole.values()
        for name, values in dataset.data_vars.items()
        if set(values.dims) in cells
    }
    return scores | {file.removesuffix(".nc") for file in files if file != "scores.nc"}


def _name(models: list[dict]) -> None:
    """Name the models to choose from: weights tell apart those that are called the same."""
    counts = Counter((model["name"], model["revision"]) for model in models)
    for model in models:
        apart = model["commit"][-7:] if counts[model["name"], model["revision"]] > 1 else ""
        model["shown"] = f"{model['name']} {model['revision']} {apart}".rstrip()

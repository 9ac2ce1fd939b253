"""Scores side by side, as the page takes them: which share heads, and which lists other prompts
would name again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from nnheads.compare.entries import Entry, entries_of, strength_of
from nnheads.compare.overlap import overlap
from nnheads.compare.stability import stable
from nnheads.errors import BadInput
from nnheads.page.rounding import numbers
from nnheads.runs.find import Finished
from nnheads.stats import ranked

ORDER = ("looks", "effects", "writes", "other")  # of scores, as everywhere on the page
MOST = 40  # scores of an overlap that can still be read as a table
PAIRS = (
    "jaccard_top",
    "jaccard_chance",
    "jaccard_flagged",
    "spearman",
    "profile",
    "profile_shifted",
    "shift",
)
BY_N = ("jaccard", "jaccard_low", "jaccard_high", "spearman", "spearman_low", "spearman_high")

Place = tuple[int, int]  # of a score on the page: its model, and its number there


def compared(
    runs: list[Finished], models: list[dict], places: Sequence[Place], *, top: int, draws: int
) -> dict:
    """Return `overlap` of all headlines, None of fewer than two; `stability` of each whose single
    prompts are known.

    Args:
        models: as the page shows them, with their `scores`.
        places: where the headline of each table stands there, in the order of
            `nnheads.compare.entries.entries_of`.
        draws: pairs of samples of prompts; 0 for no stability.

    Raises:
        BadInput: single prompts that cannot be read.
    """
    made = list(zip(places, entries_of(runs), strict=True)) if places else []
    made.sort(
        key=lambda one: (one[0][0], ORDER.index(models[one[0][0]]["scores"][one[0][1]]["group"]))
    )
    places, entries = [place for place, _ in made], [one for _, one in made]
    try:
        found, refused = stable(entries, top=top, draws=draws)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise BadInput(
            f"a scores.nc of these runs does not hold what nnheads detect writes ({error})"
        ) from None
    lists = []
    for place, one in made:
        own = found.get((one.model, one.revision, one.type))
        if own is not None:
            lists.append({**_score(place, one), **stability_of(own)})
    return {
        "overlap": overlap_of(entries[:MOST], places[:MOST], top, len(entries))
        if len(entries) > 1
        else None,
        "stability": lists,
        "unstable": [{"name": name, "reason": reason} for name, reason in refused.items()],
    }


def _score(place: Place, one: Entry) -> dict:
    return {"model": place[0], "score": place[1], "name": one.type}


def overlap_of(entries: list[Entry], places: Sequence[Place], top: int, total: int) -> dict:
    """Return `nnheads.compare.overlap.overlap` below its diagonal, row by row, and each score's
    heads in order as far as lists reach.
    """
    found = overlap(entries, top)
    orders = [_order(one, entries, top) for one in entries]
    return {
        "top": top,
        "total": total,
        "entries": [
            {**_score(place, one), "order": order}
            for place, one, order in zip(places, entries, orders)
        ],
        **{
            name: [numbers(found[name].values[row, :row]) for row in range(len(entries))]
            for name in PAIRS
        },
    }


def _order(entry: Entry, entries: list[Entry], top: int) -> list[list[int]]:
    """Return the first heads of a score, as (layer, head): enough for a list of `top` beside any
    score that lacks some.
    """
    values = strength_of(entry.heads).values.ravel()
    known = np.isfinite(values)
    order = ranked(np.where(known, values, np.nan))
    missing = [
        ~np.isfinite(one.heads["score"].values.ravel())
        for one in entries
        if one.shape == entry.shape
    ]
    reach = order[: top + int(np.any(missing, axis=0)[known].sum())]
    layers, heads = (entry.heads[name].values for name in ("layer", "head"))
    return [[int(layers[one // heads.size]), int(heads[one % heads.size])] for one in reach]


def stability_of(found: xr.Dataset) -> dict:
    """Return `nnheads.compare.stability.stability` as lists."""
    scalars = {
        name: numbers(found[name].values)[0]
        for name in ("reliability", "reliability_all", "jaccard_chance")
    }
    return {
        **{name: int(found.attrs[name]) for name in ("top", "prompts", "draws")},
        **scalars,
        "n": found["n"].values.tolist(),
        **{name: numbers(found[name].values) for name in BY_N},
        "target": found["target"].values.tolist(),
        "needed": numbers(found["needed_n"].values),
    }

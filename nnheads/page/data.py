"""Runs in, plain numbers and texts out: all that the page shows, and no HTML.

Numbers are rounded to four digits; the files keep all of them.
"""

from __future__ import annotations

import base64
from collections import Counter

import numpy as np
import xarray as xr

from nnheads.errors import BadInput
from nnheads.page.compared import compared
from nnheads.page.pictures import add_pictures
from nnheads.page.rounding import numbers
from nnheads.page.tables import tables_of
from nnheads.runs.columns import (
    CELL,
    SHARED_CELL,
    Column,
    columns,
    facts,
    label_of,
    roles_in,
    tables_in,
    text,
)
from nnheads.runs.find import Finished, kind_of

LONGEST_TEXT = 96  # tokens of a text whose attention is drawn
GROUPS = {
    "detect": "looks",
    "match": "looks",
    "ioi": "effects",
    "path": "effects",
    "attribute": "effects",
    "patch": "effects",
    "circuit": "effects",
    "knockout": "effects",
    "function-vectors": "effects",
    "writes": "writes",
}


def payload(
    runs: list[Finished],
    *,
    title: str,
    made: dict,
    unfinished: list[str] | None = None,
    top: int = 8,
    draws: int = 20,
) -> dict:
    """Everything on the page.

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
    each = [_finished(key, model) for key, model in models.items()]
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
    own = _others(run)
    about = next(
        iter([*tables.values(), *shared.values(), *own.values(), *whole.values()]), xr.Dataset()
    )
    headlines = []
    for cell, datasets in ((CELL, tables), (SHARED_CELL, shared)):
        for file, dataset in datasets.items():
            key, kind = _key(run, dataset.attrs), kind_of(run, dataset, file)
            place = _join(models.setdefault(key, {}), run, number, kind, dataset, cell)
            headlines += [(key, place)] if cell == CELL and place is not None else []
    key = _key(run, about.attrs)
    if own:
        _add_others(models.setdefault(key, {}), run, number, own)
    cells = [set(CELL), set(SHARED_CELL)]
    drawn = {
        str(name)
        for one in whole.values()
        for name in one.data_vars
        if set(one[name].dims) in cells
    }
    drawn |= {file.removesuffix(".nc") for file in (*tables, *shared, *own) if file != "scores.nc"}
    found, left = tables_of(whole)
    rest = {"run": number, "tables": found, "left": left, "pictures": [], "unseen": []}
    return _about_run(run, about.attrs, {**shared, **tables}), headlines, (key, drawn, rest)


def _name(models: list[dict]) -> None:
    """Names to choose from: weights tell apart models that are called the same."""
    counts = Counter((model["name"], model["revision"]) for model in models)
    for model in models:
        apart = model["commit"][-7:] if counts[model["name"], model["revision"]] > 1 else ""
        model["shown"] = f"{model['name']} {model['revision']} {apart}".rstrip()


def _key(run: Finished, attributes: dict) -> tuple[str, str, str]:
    """Whose heads these are: model, revision, weights."""
    source = facts(attributes.get("source"))
    name = (
        text(attributes.get("model"))
        or text(run.record["arguments"].get("model"))
        or "unnamed model"
    )
    return (
        name,
        text(attributes.get("revision")),
        text(source.get("commit") or run.record["arguments"].get("weights")),
    )


def _about_run(run: Finished, attributes: dict, tables: dict[str, xr.Dataset]) -> dict:
    """What it takes to repeat a run."""
    source, packages = (facts(attributes.get(name)) for name in ("source", "packages"))
    date, _, command = text(attributes.get("history")).partition(" ")
    kinds = [kind_of(run, dataset, file) for file, dataset in tables.items()]
    return {
        "recipe": run.recipe,
        "title": text(attributes.get("title")) or run.recipe,
        "kind": kinds[0] if kinds else run.recipe,
        "folder": run.shown,
        "command": text(run.record.get("command")) or command,
        "date": date,
        "model": text(source.get("model") or run.record["arguments"].get("model")),
        "weights": text(source.get("commit") or run.record["arguments"].get("weights")),
        **{name: text(source.get(name)) for name in ("revision", "dtype", "attention")},
        "packages": {text(name): text(version) for name, version in packages.items()},
        "code": text(attributes.get("git_commit")),
        "changed": text(attributes.get("git_dirty")) == "1",
        **{
            name: text(attributes.get(name))
            for name in ("seed", "references", "prompts_sha256", "tokenizer_sha256")
        },
        "count": _count(run, attributes),
        "files": [text(name) for name in run.named],
        "shown": bool(tables),
        "more": False,
    }


def _count(run: Finished, attributes: dict) -> str:
    """How many prompts a run counted."""
    arguments = {**facts(attributes.get("arguments")), **run.record["arguments"]}
    given = (
        run.record.get("kept"),
        run.record.get("cases"),
        attributes.get("kept"),
        arguments.get("limit"),
    )
    return next((text(one) for one in given if one is not None), "") or ", ".join(run.samples())


def _join(
    model: dict, run: Finished, number: int, kind: str, dataset: xr.Dataset, cell: tuple[str, str]
) -> int | None:
    """Add the scores of a table to its model; where its headline stands there."""
    shape = (int(dataset[cell[0]].max()) + 1, int(dataset[cell[1]].max()) + 1)
    sizes = model.setdefault("shape", {})
    sizes[cell[1]] = tuple(map(max, sizes.get(cell[1], shape), shape))
    scores = model.setdefault("scores", [])
    place, made = len(scores), columns(dataset, run.recipe, cell)
    for column in made:
        scores.append((number, kind, GROUPS.get(run.recipe, "other"), column, cell))
    for head, role in roles_in(dataset).items():
        model.setdefault("roles", []).append({"head": list(head), "role": role, "run": number})
    return place if made else None


def _finished(key: tuple[str, str, str], model: dict) -> dict:
    """A model as the page takes it.

    Scores fill the whole grid; what a run did not measure is null.
    """
    sizes = model.get("shape", {})
    layers = max((layers for layers, _ in sizes.values()), default=0)
    heads, shared = (sizes.get(cell[1], (0, 0))[1] for cell in (CELL, SHARED_CELL))
    width = {"head": heads, "kv_head": shared}
    scores = [_score(one, (layers, width[one[-1][1]])) for one in model.get("scores", [])]
    return {
        "name": key[0],
        "revision": key[1],
        "commit": key[2],
        "layers": layers,
        "heads": heads,
        "kv_heads": shared,
        "scores": scores,
        **{name: model.get(name, []) for name in ("roles", "knockouts", "texts", "results")},
    }


def _score(found: tuple[int, str, str, Column, tuple[str, str]], shape: tuple[int, int]) -> dict:
    number, kind, group, column, cell = found
    meaning, units = label_of(column.values)
    values = on_grid(column.values, shape, cell)
    parts = {"low": column.low, "high": column.high, "null": column.null, "q": column.q_value}
    return {
        "run": number,
        "kind": kind,
        "group": group,
        "name": column.name,
        "meaning": meaning,
        "units": units,
        "unit": cell[1],
        "headline": column.headline,
        "signed": bool(np.nanmin(values, initial=0.0) < 0),
        "values": numbers(values),
        **{
            name: None if part is None else numbers(on_grid(part, shape, cell))
            for name, part in parts.items()
        },
        "flag": None
        if column.flag is None
        else [int(one == 1) for one in on_grid(column.flag, shape, cell)],
    }


def on_grid(
    values: xr.DataArray, shape: tuple[int, int], cell: tuple[str, str] = CELL
) -> np.ndarray:
    """Values of all heads, row by row; NaN for heads that are not there."""
    whole = np.full(shape, np.nan)
    whole[np.ix_(*(values[name].values for name in cell))] = values.transpose(*cell).values
    return whole.ravel()


def _others(run: Finished) -> dict[str, xr.Dataset]:
    """Files that say something else than a number for each head: how far a list of heads matters,
    one attention.
    """
    wanted = {"knockout": ("curve.nc", "interactions.nc"), "inspect": ("scores.nc",)}.get(
        run.recipe, ()
    )
    return {name: run.dataset(name) for name in wanted if name in run.files}


def _add_others(model: dict, run: Finished, number: int, own: dict[str, xr.Dataset]) -> None:
    try:
        if run.recipe == "knockout":
            model.setdefault("knockouts", []).append({"run": number, **knockout_of(own)})
        elif "attention" in own["scores.nc"]:
            model.setdefault("texts", []).append(_inspected(own["scores.nc"], run))
    except (KeyError, ValueError, TypeError) as error:
        raise BadInput(
            f"{run.folder} does not hold what nnheads {run.recipe} writes ({error}); run it again"
        ) from None


def knockout_of(own: dict[str, xr.Dataset]) -> dict:
    """A knock-out: what the metric is without the first K heads, and each head's part of it."""
    curve, parts = own["curve.nc"], own["interactions.nc"]
    metric = text(curve.attrs["metric"])
    lines = {
        "value": metric,
        "low": f"{metric}_low",
        "high": f"{metric}_high",
        "random": "random_median",
        "random_low": "random_lowest",
        "random_high": "random_highest",
        "p": "p_value",
    }
    members = [str(one) for one in parts["member"].values]
    return {
        "behaviour": text(curve.attrs.get("behaviour")),
        "metric": metric.replace("_", " "),
        "units": label_of(curve[metric])[1],
        "ablation": text(curve.attrs.get("ablation")),
        "origin": text(curve.attrs.get("origin")),
        "warning": text(parts.attrs.get("warning")),
        "base": _triple(curve, f"base_{metric}"),
        "k": [int(one) for one in curve["k"].values],
        "lines": {key: numbers(curve[name].values) for key, name in lines.items() if name in curve},
        "joint": _triple(parts, "joint"),
        "sum": _triple(parts, "sum_of_parts"),
        "members": members,
        **{
            key: [_triple(parts.isel(member=i), key) for i in range(len(members))]
            for key in ("alone", "last")
        },
    }


def _triple(dataset: xr.Dataset, name: str) -> list[float | None]:
    """A value with its interval."""
    ends = [
        float(dataset[f"{name}{end}"]) if f"{name}{end}" in dataset else np.nan
        for end in ("", "_low", "_high")
    ]
    return numbers(np.array(ends))


def _inspected(dataset: xr.Dataset, run: Finished) -> dict:
    """One head's attention on one text, as `nnheads inspect --head` saved it."""
    from nnheads.models.names import parse_head

    layer, head = parse_head(text(run.record["arguments"]["head"]))
    tokens = [text(token) for token in dataset["token_text"].values]
    if len(tokens) > LONGEST_TEXT:
        tokens = tokens[:LONGEST_TEXT]
    attention = dataset["attention"].values[: len(tokens), : len(tokens)]
    return {
        "title": "inspect",
        "tokens": tokens,
        "patterns": {f"{layer}.{head}": packed(attention)},
    }


def packed(pattern: np.ndarray) -> str:
    """A causal pattern [query, key] as base64: the lower triangle row by row, a byte for each
    number, 255 for one.
    """
    below = pattern[np.tril_indices(len(pattern))]
    below = (
        below
        if below.dtype == np.uint8
        else np.rint(np.nan_to_num(below).clip(0, 1) * 255).astype(np.uint8)
    )
    return base64.b64encode(below.tobytes()).decode()

"""Runs in, plain numbers and texts out: all that the page shows, and no HTML.

Numbers are rounded to four digits, which is more than any interval here can tell apart; the files keep all of them.
"""

from __future__ import annotations

import base64
import math
from collections import Counter

import numpy as np
import xarray as xr

from nnheads.errors import BadInput
from nnheads.runs import CELL, Column, Finished, columns, facts, kind_of, label_of, roles_in, text

DIGITS = 4
LONGEST_TEXT = 96  # tokens of a text whose attention is drawn
GROUPS = {
    "detect": "looks", "match": "looks", "ioi": "effects", "path": "effects", "attribute": "effects",
    "patch": "effects", "circuit": "effects", "knockout": "effects", "function-vectors": "effects", "writes": "writes",
}  # fmt: skip


def payload(runs: list[Finished], *, title: str, made: dict, unfinished: list[str] | None = None) -> dict:
    """Everything on the page.

    Args:
        made: who made the page: command, commit and so on, as texts.
        unfinished: folders of runs that were left out, to be named.

    Returns:
        `title`, `made`, `unfinished`; `runs`, each with its command, versions, commit and files; `models`, each with
        its sizes, `scores` (numbers by head, row by row), `roles`, `knockouts` and `texts`.

    Raises:
        BadInput: a file that cannot be read, or files that disagree on the shape of one model.
    """
    models: dict[tuple, dict] = {}
    listed = []
    for number, run in enumerate(runs):
        tables = run.tables()
        own = _others(run)
        about = next(iter([*tables.values(), *own.values()]), None)
        about = _any(run) if about is None else about
        listed.append(_about_run(run, about.attrs, tables))
        for dataset in tables.values():
            model = models.setdefault(_key(run, dataset.attrs), {})
            _join(model, run, number, dataset)
        if own:
            model = models.setdefault(_key(run, about.attrs), {})
            _add_others(model, run, number, own)
    found = [_finished(key, model) for key, model in models.items()]
    counts = Counter((model["name"], model["revision"]) for model in found)
    for model in found:
        apart = model["commit"][-7:] if counts[model["name"], model["revision"]] > 1 else ""  # other weights, same name
        model["shown"] = f"{model['name']} {model['revision']} {apart}".rstrip()
    return {"title": title, "made": made, "unfinished": unfinished or [], "runs": listed, "models": found}


def _any(run: Finished) -> xr.Dataset:
    """A file of a run that says nothing of single heads; it still says who made it."""
    return next((run.dataset(name) for name in run.files if name.endswith(".nc")), xr.Dataset())


def _key(run: Finished, attributes: dict) -> tuple[str, str, str]:
    """Whose heads these are: model, revision, weights."""
    source = facts(attributes.get("source"))
    name = text(attributes.get("model")) or text(run.record["arguments"].get("model")) or "unnamed model"
    return name, text(attributes.get("revision")), text(source.get("commit"))


def _about_run(run: Finished, attributes: dict, tables: dict) -> dict:
    """What it takes to repeat a run."""
    source, packages = (facts(attributes.get(name)) for name in ("source", "packages"))
    date, _, command = text(attributes.get("history")).partition(" ")
    kinds = [kind_of(run, dataset) for dataset in tables.values()]
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
        **{name: text(attributes.get(name)) for name in ("seed", "references", "prompts_sha256", "tokenizer_sha256")},
        "count": _count(run, attributes),
        "files": run.files,
        "shown": bool(tables),
    }


def _count(run: Finished, attributes: dict) -> str:
    """How many prompts a run counted."""
    arguments = {**facts(attributes.get("arguments")), **run.record["arguments"]}
    given = (run.record.get("kept"), run.record.get("cases"), attributes.get("kept"), arguments.get("limit"))
    return next((text(one) for one in given if one is not None), "")


def _join(model: dict, run: Finished, number: int, dataset: xr.Dataset) -> None:
    """Add the scores of a table to its model."""
    shape = (int(dataset["layer"].max()) + 1, int(dataset["head"].max()) + 1)
    model["shape"] = tuple(map(max, model.get("shape", shape), shape))
    kind = kind_of(run, dataset)
    for column in columns(dataset, run.recipe):
        model.setdefault("scores", []).append((number, kind, GROUPS.get(run.recipe, "other"), column))
    for head, role in roles_in(dataset).items():
        model.setdefault("roles", []).append({"head": list(head), "role": role, "run": number})


def _finished(key: tuple[str, str, str], model: dict) -> dict:
    """A model as the page takes it. Scores fill the whole grid; what a run did not measure is null."""
    layers, heads = model.get("shape", (0, 0))
    scores = [_score(one, (layers, heads)) for one in model.get("scores", [])]
    return {
        "name": key[0], "revision": key[1], "commit": key[2], "layers": layers, "heads": heads,
        "scores": scores, "roles": model.get("roles", []), "knockouts": model.get("knockouts", []),
        "texts": model.get("texts", []),
    }  # fmt: skip


def _score(found: tuple[int, str, str, Column], shape: tuple[int, int]) -> dict:
    number, kind, group, column = found
    meaning, units = label_of(column.values)
    values = on_grid(column.values, shape)
    parts = {"low": column.low, "high": column.high, "null": column.null, "q": column.q_value}
    return {
        "run": number, "kind": kind, "group": group, "name": column.name, "meaning": meaning, "units": units,
        "headline": column.headline, "signed": bool(np.nanmin(values, initial=0.0) < 0), "values": numbers(values),
        **{name: None if part is None else numbers(on_grid(part, shape)) for name, part in parts.items()},
        "flag": None if column.flag is None else [int(one == 1) for one in on_grid(column.flag, shape)],
    }  # fmt: skip


def on_grid(values: xr.DataArray, shape: tuple[int, int]) -> np.ndarray:
    """Values of all heads, row by row; NaN for heads that are not there."""
    whole = np.full(shape, np.nan)
    whole[np.ix_(values["layer"].values, values["head"].values)] = values.transpose(*CELL).values
    return whole.ravel()


def numbers(values: np.ndarray) -> list[float | None]:
    """Numbers as JSON knows them: four digits, and nothing for what is none."""
    return [None if not math.isfinite(one) else shortest(one) for one in values.tolist()]


def shortest(value: float) -> float | int:
    rounded = float(f"{value:.{DIGITS}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e6 else rounded


def _others(run: Finished) -> dict[str, xr.Dataset]:
    """Files that say something else than a number for each head: how far a list of heads matters, one attention."""
    wanted = {"knockout": ("curve.nc", "interactions.nc"), "inspect": ("scores.nc",)}.get(run.recipe, ())
    return {name: run.dataset(name) for name in wanted if name in run.files}


def _add_others(model: dict, run: Finished, number: int, own: dict[str, xr.Dataset]) -> None:
    try:
        if run.recipe == "knockout":
            model.setdefault("knockouts", []).append({"run": number, **knockout_of(own)})
        elif "attention" in own["scores.nc"]:
            model.setdefault("texts", []).append(_inspected(own["scores.nc"], run))
    except (KeyError, ValueError, TypeError) as error:
        raise BadInput(f"{run.folder} does not hold what nnheads {run.recipe} writes ({error}); run it again") from None


def knockout_of(own: dict[str, xr.Dataset]) -> dict:
    """A knock-out: what the metric is without the first K heads, and each head's part of it."""
    curve, parts = own["curve.nc"], own["interactions.nc"]
    metric = text(curve.attrs["metric"])
    lines = {"value": metric, "low": f"{metric}_low", "high": f"{metric}_high", "random": "random_median",
             "random_low": "random_lowest", "random_high": "random_highest", "p": "p_value"}  # fmt: skip
    members = [str(one) for one in parts["member"].values]
    return {
        "behaviour": text(curve.attrs.get("behaviour")), "metric": metric.replace("_", " "),
        "units": label_of(curve[metric])[1], "ablation": text(curve.attrs.get("ablation")),
        "origin": text(curve.attrs.get("origin")), "warning": text(parts.attrs.get("warning")),
        "base": _triple(curve, f"base_{metric}"), "k": [int(one) for one in curve["k"].values],
        "lines": {key: numbers(curve[name].values) for key, name in lines.items() if name in curve},
        "joint": _triple(parts, "joint"), "sum": _triple(parts, "sum_of_parts"), "members": members,
        **{key: [_triple(parts.isel(member=i), key) for i in range(len(members))] for key in ("alone", "last")},
    }  # fmt: skip


def _triple(dataset: xr.Dataset, name: str) -> list[float | None]:
    """A value with its interval."""
    ends = [float(dataset[f"{name}{end}"]) if f"{name}{end}" in dataset else np.nan for end in ("", "_low", "_high")]
    return numbers(np.array(ends))


def _inspected(dataset: xr.Dataset, run: Finished) -> dict:
    """One head's attention on one text, as `nnheads inspect --head` saved it."""
    from nnheads.stats import parse_head

    layer, head = parse_head(text(run.record["arguments"]["head"]))
    tokens = [text(token) for token in dataset["token_text"].values]
    if len(tokens) > LONGEST_TEXT:
        tokens = tokens[:LONGEST_TEXT]
    attention = dataset["attention"].values[: len(tokens), : len(tokens)]
    return {"title": "inspect", "tokens": tokens, "patterns": {f"{layer}.{head}": packed(attention)}}


def packed(pattern: np.ndarray) -> str:
    """A causal pattern [query, key] as base64: the lower triangle row by row, a byte for each number, 255 for one."""
    below = pattern[np.tril_indices(len(pattern))]
    below = below if below.dtype == np.uint8 else np.rint(np.nan_to_num(below).clip(0, 1) * 255).astype(np.uint8)
    return base64.b64encode(below.tobytes()).decode()

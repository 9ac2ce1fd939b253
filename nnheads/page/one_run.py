"""One run as the page takes it: what repeats it, whose heads it is about, and what else it says.

A file that does not hold what its recipe writes is BadInput.
"""

from __future__ import annotations

import xarray as xr

from nnheads.errors import BadInput
from nnheads.page.grids import LONGEST_TEXT, packed, with_ends
from nnheads.page.rounding import numbers
from nnheads.runs.columns import (
    facts,
    label_of,
    text,
)
from nnheads.runs.find import Finished, kind_of


def owner_of(run: Finished, attributes: dict) -> tuple[str, str, str]:
    """Return whose heads these are: model, revision, weights."""
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


def about_run(run: Finished, attributes: dict, tables: dict[str, xr.Dataset]) -> dict:
    """Return what it takes to repeat a run."""
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
    """Return how many prompts a run counted."""
    arguments = {**facts(attributes.get("arguments")), **run.record["arguments"]}
    given = (
        run.record.get("kept"),
        run.record.get("cases"),
        attributes.get("kept"),
        arguments.get("limit"),
    )
    return next((text(one) for one in given if one is not None), "") or ", ".join(run.samples())


def other_files(run: Finished) -> dict[str, xr.Dataset]:
    """Return the files that say something else than a number for each head."""
    wanted = {"knockout": ("curve.nc", "interactions.nc"), "inspect": ("scores.nc",)}.get(
        run.recipe, ()
    )
    return {name: run.dataset(name) for name in wanted if name in run.files}


def add_others(model: dict, run: Finished, number: int, own: dict[str, xr.Dataset]) -> None:
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
    """Return what the metric is without the first K heads, and each head's part of it."""
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
        "base": with_ends(curve, f"base_{metric}"),
        "k": [int(one) for one in curve["k"].values],
        "lines": {key: numbers(curve[name].values) for key, name in lines.items() if name in curve},
        "joint": with_ends(parts, "joint"),
        "sum": with_ends(parts, "sum_of_parts"),
        "members": members,
        **{
            key: [with_ends(parts.isel(member=i), key) for i in range(len(members))]
            for key in ("alone", "last")
        },
    }


def _inspected(dataset: xr.Dataset, run: Finished) -> dict:
    """Return one head's attention on one text, as `nnheads inspect --head` saved it."""
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

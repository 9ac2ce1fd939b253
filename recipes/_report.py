"""What `nnheads report` adds to its page from a model, and what it says of one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnheads.recipes._terminal import say

from nnheads.errors import BadInput

if TYPE_CHECKING:
    from nnheads.recipes._study import Study

LARGEST = 5_000_000  # bytes above which a page is slow to open and to send
HEAD = 4096  # bytes of a file that show whether a page of ours would be replaced
WANTED = 10  # heads of each headline whose attention is shown


def is_page(path: Path) -> bool:
    """Return whether a file is a page that this command wrote."""
    from nnheads.page.html import GENERATOR

    with path.open("rb") as file:
        return GENERATOR.encode() in file.read(HEAD)


def add_attention(page: dict, study: Study, name: str) -> None:
    """Load a model and add its heads' attention to the model of the same name and weights on the
    page.
    """
    from nnheads.recipes._load import load

    from nnheads.page.patterns import drawn_texts, own_texts, texts_for

    folder = folder_of(page, name)
    lines = None if study.texts is None else lines_of(study.texts)
    loaded = load(study.arguments, model=name, attention=None)  # `--attention` names models
    models = of_weights(page, folder, loaded, name)
    drawn = drawn_texts(loaded, study.seed) if lines is None else own_texts(loaded, lines)
    for model in models:
        model["texts"] = [*model["texts"], *texts_for(loaded, drawn, strongest(model))]


def folder_of(page: dict, name: str) -> str:
    """Return the name by which the page knows a model."""
    from nnheads.runs.provenance import model_folder

    known = {model["name"] for model in page["models"]}
    folder = name if name in known else model_folder(name)
    if folder not in known:
        there = ", ".join(sorted(known)) or "none"
        raise BadInput(f"--attention {name}: no run is of that model; there are {there}")
    return folder


def lines_of(path: Path) -> list[str]:
    """Return the texts of a file, one a line."""
    from nnheads.spans.lines import numbered_lines

    return [line for _, line in numbered_lines(path, "one text a line")]


def of_weights(page: dict, folder: str, loaded: Any, name: str) -> list[dict]:
    """Return the models on the page that have the name and the weights of a loaded one."""
    from nnheads.runs.provenance import model_identity

    commit = model_identity(loaded, name)["commit"]
    same = [one for one in page["models"] if one["name"] == folder and one["commit"] == commit]
    if not same:
        raise BadInput(
            f"--attention {name}: its weights ({commit or 'unknown'}) are not those of the runs"
        )
    return same


def strongest(model: dict) -> list[tuple[int, int]]:
    """Return flagged heads and the highest of each headline: whose attention is wanted most."""
    found: dict[int, None] = {}
    for score in model["scores"]:
        if score["headline"] and score["unit"] == "head":
            found |= dict.fromkeys(wanted(score))
    return [divmod(index, model["heads"]) for index in found]


def wanted(score: dict) -> list[int]:
    """Return the highest heads of a score, then the flagged ones, counted over all layers."""
    import numpy as np

    from nnheads import stats
    from nnheads.runs.columns import strength

    values, flag = score["values"], score["flag"]
    flagged = [index for index, one in enumerate(flag or []) if one and values[index] is not None]
    order = stats.ranked(strength(np.array(values, float), score["first"]))
    return order[:WANTED].tolist() + flagged


def say_model(model: dict, runs: list[dict]) -> None:
    """Say what the page holds of a model, and what of its runs is left out."""
    size = f"{model['layers']} x {model['heads']} heads, " if model["layers"] else ""
    say(
        f"  {model['name']} {model['revision']}: {size}"
        f"{len(model['scores'])} scores, {len(model['texts'])} texts"
    )
    for result in model["results"]:
        for reason in result["unseen"]:
            say(f"  left out of {runs[result['run']]['folder']}: {reason}")

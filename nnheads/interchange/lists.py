"""Plain lists of heads: JSON, YAML, arrays and tensors.

retrieval_head   {"L-H": [scores of single trials]}                     Retrieval_Head, HeadKV,
Head_interpret scores           {"L-H": score}
Head_interpret records          [{"layer": L, "head": H, "score": s}]
Head_interpret qrhead           [["L-H", score], ...], best first                      QRHead, as
its detection writes it
qrhead_config    attn_head_set: "L-H,L-H,...", best first (YAML)        QRHead, as its retriever
    reads it
function_vectors [[L, H, score], ...], best first                       function_vectors: the tuples
of its top heads array            .npy, float rows (layer, head, score), best first
Head_interpret, iteration heads fold             .npy, whole-number rows (layer, head), best first
honest_llama and Head_interpret, truthfulness tensor           .pt, [layers, heads]
Head_interpret indirect_effect  .pt, [trials, layers, heads(, token classes)]
function_vectors; the last class is END

Nothing in a file is executed: tensors are loaded as weights only, arrays without pickles.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import xarray as xr

from nnheads.interchange.table import (
    check_place,
    grid,
    labelled,
    listed,
    number,
    shortest,
    whole_number,
    with_trials,
)

CONFIG = re.compile(r"^\s*attn_head_set\s*:\s*[\"']?([\d\s,-]*)", re.MULTILINE)


def strict(text: str):
    """JSON in which no name comes twice: of two scores for a head, one would be dropped without a
    word.
    """

    def unique(pairs):
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            raise ValueError(
                f"{next(name for name in names if names.count(name) > 1)!r} is in it twice"
            )
        return dict(pairs)

    return json.loads(text, object_pairs_hook=unique)


def place_of(name) -> tuple[int, int]:
    """`16-19` -> (16, 19)."""
    match = re.fullmatch(r"\s*(\d{1,9})-(\d{1,9})\s*", str(name), re.ASCII)
    if match is None:
        raise ValueError(f"{name!r} is not layer-head")
    return int(match[1]), int(match[2])


def from_mapping(content: dict) -> tuple[str, xr.Dataset]:
    """{"L-H": score} or {"L-H": [scores]}."""
    if not content:
        raise ValueError("no heads in it")
    entries = {place_of(name): value for name, value in content.items()}
    if len(entries) < len(content):
        raise ValueError("a head is in it twice")
    if not any(isinstance(value, list) for value in entries.values()):
        return "scores", grid({place: number(value) for place, value in entries.items()})
    lists = {
        place: np.array([number(one) for one in (value if isinstance(value, list) else [value])])
        for place, value in entries.items()
    }
    found = grid(
        {place: float(values.mean()) if values.size else np.nan for place, values in lists.items()}
    )
    return "retrieval_head", with_trials(found, lists)


def from_sequence(content: list) -> tuple[str, xr.Dataset]:
    """[{layer, head, score}], [["L-H", score]] or [[layer, head, score]]."""
    if not content:
        raise ValueError("no heads in it")
    if all(isinstance(one, dict) for one in content):
        heads = [(whole_number(one["layer"]), whole_number(one["head"])) for one in content]
        return "records", listed(heads, [number(one["score"]) for one in content]).drop_vars("rank")
    if not all(isinstance(one, list) and len(one) in (2, 3) for one in content):
        raise ValueError("expected entries of layer, head and score")
    if all(len(one) == 2 and isinstance(one[0], str) for one in content):
        return "qrhead", listed(
            [place_of(one[0]) for one in content], [number(one[1]) for one in content]
        )
    heads = [(whole_number(one[0]), whole_number(one[1])) for one in content]
    scores = [number(one[2]) for one in content] if all(len(one) == 3 for one in content) else None
    if scores is None and any(len(one) == 3 for one in content):
        raise ValueError("some heads have a score and some have none")
    return "function_vectors", listed(heads, scores)


def from_config(text: str) -> tuple[str, xr.Dataset] | None:
    """The heads of a QRHead configuration, or None for another text."""
    match = CONFIG.search(text)
    if match is None:
        return None
    return "qrhead_config", listed([place_of(name) for name in match[1].split(",") if name.strip()])


def from_array(rows: np.ndarray) -> tuple[str, xr.Dataset]:
    """Rows of (layer, head[, score])."""
    if rows.ndim != 2 or rows.shape[1] not in (2, 3) or rows.dtype.kind not in "iuf":
        raise ValueError(
            f"expected rows of (layer, head[, score]), got {rows.dtype} of shape {rows.shape}"
        )
    heads = [(whole_number(row[0]), whole_number(row[1])) for row in rows.tolist()]
    if any(min(place) < 0 for place in heads):
        raise ValueError("negative layer or head")
    if rows.shape[1] == 2:
        return "fold", listed(heads)
    return "array", listed(heads, [float(row[2]) for row in rows])


def from_tensor(tensor) -> tuple[str, xr.Dataset]:
    """[layers, heads], or [trials, layers, heads(, token classes)]."""
    import torch

    if not isinstance(tensor, torch.Tensor) or tensor.dim() not in (2, 3, 4) or tensor.is_complex():
        raise ValueError("expected one tensor [layers, heads] or [trials, layers, heads]")
    values = tensor.detach().float().numpy()
    if values.ndim == 2:
        return "tensor", labelled(values)
    values = values[..., -1] if values.ndim == 4 else values
    for size in values.shape[1:]:
        check_place(size - 1)
    found = labelled(values.mean(0)) if len(values) else labelled(values.sum(0) * np.nan)
    places = {place: values[(slice(None), *place)] for place in np.ndindex(values.shape[1:])}
    return "indirect_effect", with_trials(found, places)


def ordered(heads: xr.Dataset) -> list[tuple[int, int]]:
    """The heads that a list names, in its order or by score; without a rank, a head is named if it
    has a score.
    """
    from nnheads.interchange.table import ranking

    return ranking(heads)


def write_list(heads: xr.Dataset, path: Path, kind: str) -> None:
    """Write one of the formats above, but for tables."""
    scores = heads["score"]
    entries = [(place, shortest(scores.values[place])) for place in ordered(heads)]
    if kind in ("array", "fold"):
        rows = [[*place] if kind == "fold" else [*place, score] for place, score in entries]
        with path.open("wb") as file:
            np.save(
                file,
                np.array(rows, dtype=np.int64 if kind == "fold" else np.float64),
                allow_pickle=False,
            )
        return
    if kind == "qrhead_config":
        names = ",".join(f"{layer}-{head}" for (layer, head), _ in entries)
        path.write_text(f'attn_head_set: "{names}"\n', encoding="utf-8")
        return
    forms = {
        "scores": lambda: {f"{layer}-{head}": score for (layer, head), score in entries},
        "retrieval_head": lambda: trial_lists(heads),
        "records": lambda: [{"layer": a, "head": b, "score": score} for (a, b), score in entries],
        "qrhead": lambda: [[f"{layer}-{head}", score] for (layer, head), score in entries],
        "function_vectors": lambda: [[*place, score] for place, score in entries],
    }
    path.write_text(json.dumps(forms[kind]()) + "\n", encoding="utf-8")


def trial_lists(heads: xr.Dataset) -> dict[str, list[float]]:
    """{"L-H": [scores]}: the single ones where they are known, else a list of the one score."""
    scores, found = heads["score"].values, {}
    for layer, head in np.ndindex(scores.shape):
        if "trials" in heads:
            own = heads["trial_score"].values[
                layer, head, : int(heads["trials"].values[layer, head])
            ]
        else:
            own = scores[layer, head, None]
            if np.isnan(own).all():
                continue
        found[f"{layer}-{head}"] = [shortest(value) for value in own]
    return found


def write_tensor(heads: xr.Dataset, path: Path, kind: str) -> None:
    """A table of scores, or of single trials, for torch.load."""
    import torch

    if kind == "indirect_effect" and "trial_score" in heads:
        values = heads["trial_score"].transpose("trial", "layer", "head").values
    else:
        values = heads["score"].values[None] if kind == "indirect_effect" else heads["score"].values
    torch.save(torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)), path)

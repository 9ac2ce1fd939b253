"""Write plain lists of heads; `lists` describes their formats and reads them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import xarray as xr

from nnheads.interchange.table import Head, ranking, shortest

Entries = list[tuple[Head, float]]
ARRAYS = {"array": np.float64, "fold": np.int64}


def write_list(heads: xr.Dataset, path: Path, format: str) -> None:
    """Write a list of `lists` that is no tensor.

    Args:
        heads: `score` (layer, head), with `rank` or the trials where they are known.
        format: its name there.
    """
    scores = heads["score"].values
    entries = [(head, shortest(scores[head])) for head in ranking(heads)]
    if format in ARRAYS:
        _write_array(entries, path, format)
    elif format == "qrhead_config":
        names = ",".join(_pair(head) for head, _ in entries)
        path.write_text(f'attn_head_set: "{names}"\n', encoding="utf-8")
    elif format == "retrieval_head":
        path.write_text(json.dumps(trial_lists(heads)) + "\n", encoding="utf-8")
    else:
        path.write_text(json.dumps(_as_json(entries, format)) + "\n", encoding="utf-8")


def _pair(head: Head) -> str:
    return f"{head[0]}-{head[1]}"


def _as_json(entries: Entries, format: str) -> dict | list:
    """Return the heads and their scores as a format lays them out."""
    if format == "scores":
        return {_pair(head): score for head, score in entries}
    if format == "records":
        return [{"layer": head[0], "head": head[1], "score": score} for head, score in entries]
    if format == "qrhead":
        return [[_pair(head), score] for head, score in entries]
    return [[*head, score] for head, score in entries]


def _write_array(entries: Entries, path: Path, format: str) -> None:
    rows = [[*head] if format == "fold" else [*head, score] for head, score in entries]
    with path.open("wb") as file:
        np.save(file, np.array(rows, dtype=ARRAYS[format]), allow_pickle=False)


def trial_lists(heads: xr.Dataset) -> dict[str, list[float]]:
    """Return {"L-H": [scores]}: the single ones where they are known, else the one score."""
    scores, lists = heads["score"].values, {}
    for head in np.ndindex(scores.shape):
        if "trials" in heads:
            count = int(heads["trials"].values[head])
            own = heads["trial_score"].values[(*head, slice(count))]
        elif np.isnan(scores[head]):
            continue
        else:
            own = scores[head][None]
        lists[_pair(head)] = [shortest(value) for value in own]
    return lists


def write_tensor(heads: xr.Dataset, path: Path, format: str) -> None:
    """Write a table of scores, or of single trials, for torch.load."""
    import torch

    values = heads["score"].values
    if format == "indirect_effect":
        values = values[None]
        if "trial_score" in heads:
            values = heads["trial_score"].transpose("trial", "layer", "head").values
    torch.save(torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)), path)

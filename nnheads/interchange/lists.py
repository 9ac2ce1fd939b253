"""Read plain lists of heads: JSON, YAML, arrays and tensors. `list_files` writes them.

format            in the file                                       whose it is
retrieval_head    {"L-H": [scores of single trials]}                Retrieval_Head, HeadKV,
                                                                    Head_interpret
scores            {"L-H": score}                                    Head_interpret
records           [{"layer": L, "head": H, "score": s}]             Head_interpret
qrhead            [["L-H", score], ...], best first                 QRHead's detection
qrhead_config     attn_head_set: "L-H,L-H,...", best first (YAML)   QRHead's retriever
function_vectors  [[L, H, score], ...], best first                  function_vectors, its top heads
array             .npy, float rows (layer, head, score), best first Head_interpret, iteration heads
fold              .npy, whole-number rows (layer, head), best first honest_llama, Head_interpret
tensor            .pt, [layers, heads]                              Head_interpret
indirect_effect   .pt, [trials, layers, heads(, token classes)];    function_vectors
                  the last class is END

Nothing in a file is executed: tensors are loaded as weights only, arrays without pickles. Broken
contents raise ValueError.
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import xarray as xr

from nnheads.interchange.table import (
    Head,
    check_index,
    grid,
    head_from,
    labelled,
    listed,
    number,
    repeated,
    with_trials,
)

CONFIG = re.compile(r"^\s*attn_head_set\s*:\s*[\"']?([\d\s,-]*)", re.MULTILINE)


def strict(text: str) -> Any:
    """Return JSON in which no name comes twice: of two scores, one would be dropped silently."""
    return json.loads(text, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = repeated([name for name, _ in pairs])
    if twice is not None:
        raise ValueError(f"{twice!r} is in it twice")
    return dict(pairs)


def parse_pair(name: object) -> Head:
    """Return layer and head of a name such as `16-19`."""
    match = re.fullmatch(r"\s*(\d{1,9})-(\d{1,9})\s*", str(name), re.ASCII)
    if match is None:
        raise ValueError(f"{name!r} is not layer-head")
    return int(match[1]), int(match[2])


def from_mapping(content: dict) -> tuple[str, xr.Dataset]:
    """Return the heads of {"L-H": score} or {"L-H": [scores]}."""
    if not content:
        raise ValueError("no heads in it")
    entries = {parse_pair(name): value for name, value in content.items()}
    if len(entries) < len(content):
        raise ValueError("a head is in it twice")
    if not any(isinstance(value, list) for value in entries.values()):
        return "scores", grid({head: number(value) for head, value in entries.items()})
    trials = {head: _trials(value) for head, value in entries.items()}
    means = {head: float(one.mean()) if one.size else np.nan for head, one in trials.items()}
    return "retrieval_head", with_trials(grid(means), trials)


def _trials(value: object) -> np.ndarray:
    """Return the single scores of a head, [trial]."""
    return np.array([number(one) for one in (value if isinstance(value, list) else [value])])


def from_sequence(content: list) -> tuple[str, xr.Dataset]:
    """Return the heads of [{layer, head, score}], [["L-H", score]] or [[layer, head, score]]."""
    if not content:
        raise ValueError("no heads in it")
    if all(isinstance(entry, dict) for entry in content):
        return "records", _from_records(content)
    if not all(isinstance(entry, list) and len(entry) in (2, 3) for entry in content):
        raise ValueError("expected entries of layer, head and score")
    if all(len(entry) == 2 and isinstance(entry[0], str) for entry in content):
        heads = [parse_pair(name) for name, _ in content]
        return "qrhead", listed(heads, [number(score) for _, score in content])
    return "function_vectors", _from_rows(content)


def _from_records(content: list[dict]) -> xr.Dataset:
    heads = [head_from(entry["layer"], entry["head"]) for entry in content]
    return listed(heads, [number(entry["score"]) for entry in content]).drop_vars("rank")


def _from_rows(content: list[list]) -> xr.Dataset:
    """Return rows of (layer, head), all of them or none with a score."""
    heads = [head_from(*row[:2]) for row in content]
    lengths = {len(row) for row in content}
    if lengths == {2, 3}:
        raise ValueError("some heads have a score and some have none")
    return listed(heads, [number(row[2]) for row in content] if lengths == {3} else None)


def from_config(text: str) -> tuple[str, xr.Dataset] | None:
    """Return the heads of a QRHead configuration, or None for another text."""
    match = CONFIG.search(text)
    if match is None:
        return None
    names = [name for name in match[1].split(",") if name.strip()]
    return "qrhead_config", listed([parse_pair(name) for name in names])


def from_array(rows: np.ndarray) -> tuple[str, xr.Dataset]:
    """Return the heads of rows of (layer, head[, score])."""
    if rows.ndim != 2 or rows.shape[1] not in (2, 3) or rows.dtype.kind not in "iuf":
        raise ValueError(
            f"expected rows of (layer, head[, score]), got {rows.dtype} of shape {rows.shape}"
        )
    heads = [head_from(*row[:2]) for row in rows.tolist()]
    if any(min(head) < 0 for head in heads):
        raise ValueError("negative layer or head")
    if rows.shape[1] == 2:
        return "fold", listed(heads)
    return "array", listed(heads, [float(row[2]) for row in rows])


def from_tensor(tensor: object) -> tuple[str, xr.Dataset]:
    """Return the heads of [layers, heads], or of [trials, layers, heads(, token classes)]."""
    import torch

    if not isinstance(tensor, torch.Tensor) or tensor.dim() not in (2, 3, 4) or tensor.is_complex():
        raise ValueError("expected one tensor [layers, heads] or [trials, layers, heads]")
    values = tensor.detach().float().numpy()
    if values.ndim == 2:
        return "tensor", labelled(values)
    return "indirect_effect", _from_trials(values[..., -1] if values.ndim == 4 else values)


def _from_trials(values: np.ndarray) -> xr.Dataset:
    """Return the means of single scores [trial, layer, head], and these beside them."""
    for size in values.shape[1:]:
        check_index(size - 1)
    means = values.mean(0) if len(values) else values.sum(0) * np.nan
    trials = {head: values[(slice(None), *head)] for head in np.ndindex(values.shape[1:])}
    return with_trials(labelled(means), trials)

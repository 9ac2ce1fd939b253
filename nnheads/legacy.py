"""Read head scores that other tools left on disk, for comparison with ours.

Nothing in such a file is executed: tensors are loaded as weights only, arrays without pickles.
Formats: Retrieval_Head and Head_interpret JSON ({"L-H": score or list of scores}, or a list of {layer, head,
score}); Head_interpret tensors (.pt, [layers, heads]), iteration arrays (.npy, rows layer, head, score) and
truthfulness arrays (.npy, rows layer, head).
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import xarray as xr

from nnheads.errors import BadInput


def read_scores(path: str | Path) -> xr.Dataset:
    """Scores of another tool as a dataset (layer, head); heads that the file does not name are NaN.

    Returns:
        `score` (layer, head), float32, and `trials` where the file has several scores a head. A list of heads
        without scores becomes 1 for those in it and 0 for the others.

    Raises:
        BadInput: missing file, unknown ending, or contents that are no head scores.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"no file {str(path)!r}; expected .json, .pt or .npy")
    readers = {".json": _json, ".pt": _tensor, ".npy": _array}
    if path.suffix not in readers:
        raise BadInput(f"{path} ends in {path.suffix!r}; expected {', '.join(readers)}")
    try:
        scores = readers[path.suffix](path)
    except Exception as error:  # what reading a broken file raises is up to three libraries
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(f"{path} does not hold head scores: {reason}") from None
    scores["score"].attrs.update(long_name="score of another tool", units="1", source=path.name)
    return scores


def _json(path: Path) -> xr.Dataset:
    content = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(content, list):
        entries = {(int(one["layer"]), int(one["head"])): one["score"] for one in content}
    else:
        entries = {}
        for name, value in dict(content).items():
            match = re.fullmatch(r"(\d+)-(\d+)", name)
            if match is None:
                raise ValueError(f"{name!r} is not layer-head")
            entries[int(match[1]), int(match[2])] = value
    lists = {place: np.atleast_1d(np.asarray(value, float)) for place, value in entries.items()}
    scores = _grid({place: float(values.mean()) for place, values in lists.items() if values.size})
    if any(values.size > 1 for values in lists.values()):
        trials = _grid({place: float(values.size) for place, values in lists.items()})["score"]
        scores["trials"] = trials.fillna(0).astype("int32").assign_attrs(long_name="trials", units="1")
    return scores


def _tensor(path: Path) -> xr.Dataset:
    import torch

    tensor = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(tensor, torch.Tensor) or tensor.dim() != 2:
        raise ValueError("expected one tensor [layers, heads]")
    return _labelled(tensor.float().numpy())


def _array(path: Path) -> xr.Dataset:
    rows = np.load(path, allow_pickle=False)
    if rows.ndim != 2 or rows.shape[1] not in (2, 3):
        raise ValueError(f"expected rows of (layer, head[, score]), got shape {rows.shape}")
    scored = rows.shape[1] == 3
    scores = _grid({(int(row[0]), int(row[1])): float(row[2]) if scored else 1.0 for row in rows})
    return scores if scored else scores.fillna(0.0)


def _grid(entries: dict[tuple[int, int], float]) -> xr.Dataset:
    if not entries:
        raise ValueError("no heads in it")
    if min(min(place) for place in entries) < 0:
        raise ValueError("negative layer or head")
    shape = [max(place[axis] for place in entries) + 1 for axis in (0, 1)]
    values = np.full(shape, np.nan)
    for place, value in entries.items():
        values[place] = value
    return _labelled(values)


def _labelled(values: np.ndarray) -> xr.Dataset:
    data = xr.DataArray(values.astype("float32"), dims=("layer", "head"))
    layers, heads = values.shape
    return xr.Dataset({"score": data}, {"layer": range(layers), "head": range(heads)})

"""Is a repeated result the same, and if not, what was different when it was made?

Every variable of two datasets is compared, bit by bit and then by how far its numbers moved; and
everything that a result records about how it was made, so that a difference has a reason or is said
to have none that is recorded.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import xarray as xr

from nnheads.runs.folder import INCIDENTAL
from nnheads.stats import spearman

EXACT, DRIFT, DIFFERENT, MISSING, NEW = "exact", "drift", "different", "missing", "new"
SAME = (EXACT, DRIFT)
# the largest change, over the largest value of a variable, that rounding explains; by what was
# computed in
TOLERANCES = {"float32": 1e-4, "float64": 1e-4}
COARSE = 2e-2  # bfloat16, float16, weights in fewer bits
SETTINGS = {
    "model": "model",
    "revision": "revision",
    "commit": "weights",
    "dtype": "dtype",
    "attention": "attention",
}
DRAWN = {
    "device": "device",
    "tokenizer_sha256": "tokenizer",
    "prompts_sha256": "prompts",
    "seed": "seed",
}
# of no use to explain a number: when, by which command, with what label
VOLATILE = (
    "history",
    "source",
    "source_against",
    "packages",
    "arguments",
    "git_commit",
    "git_dirty",
    "submitted",
)


@dataclass(frozen=True)
class Change:
    """One variable in both results. largest: of all absolute differences; relative: that over the
    largest value;
    cells: how many differ, of `size`; rank_correlation: Spearman over all cells, NaN where it says
        nothing."""

    name: str
    verdict: str
    largest: float = 0.0
    relative: float = 0.0
    cells: int = 0
    size: int = 0
    rank_correlation: float = float("nan")

    @property
    def same(self) -> bool:
        return self.verdict in SAME


def tolerance_of(dataset: xr.Dataset) -> float:
    """What rounding explains, for what a result was computed in."""
    dtype = str(identity(dataset).get("dtype", "float32"))
    return TOLERANCES.get(dtype, COARSE)


def identity(dataset: xr.Dataset) -> dict:
    """The model of a result, as `provenance.model_identity` wrote it."""
    return _json(dataset.attrs.get("source"))


def arguments_of(dataset: xr.Dataset) -> dict:
    """The arguments of the command that made a result."""
    return _json(dataset.attrs.get("arguments"))


def compare(
    first: xr.Dataset, second: xr.Dataset, *, tolerance: float | None = None
) -> list[Change]:
    """Each variable and coordinate of a result and of its repetition.

    Args:
        tolerance: the largest change, over the largest value of a variable, that is called drift;
            default: what rounding explains in the coarser of the two dtypes.
    """
    limit = max(map(tolerance_of, (first, second))) if tolerance is None else tolerance
    names = [str(name) for name in (*first.data_vars, *first.coords)]
    more = [str(name) for name in (*second.data_vars, *second.coords) if str(name) not in names]
    found = [
        compared(name, first[name].values, second[name].values, limit)
        if name in second.variables
        else Change(name, MISSING)
        for name in names
    ]
    return found + [Change(name, NEW) for name in more]


def compared(name: str, first: np.ndarray, second: np.ndarray, limit: float) -> Change:
    """One variable, which is drift only if it is made of real numbers."""
    if first.shape != second.shape:
        return Change(name, DIFFERENT, float("nan"), float("nan"), first.size, first.size)
    if first.dtype.kind not in "fiub" or second.dtype.kind not in "fiub":
        unequal = int((first.astype(str) != second.astype(str)).sum())
        return Change(
            name, DIFFERENT if unequal else EXACT, float("nan"), float("nan"), unequal, first.size
        )
    a, b = first.astype(float), second.astype(float)
    unequal = (a != b) & ~(np.isnan(a) & np.isnan(b))
    if not unequal.any():
        return Change(name, EXACT, size=a.size)
    both = np.isfinite(a) & np.isfinite(b)
    largest = float(np.abs(a - b)[both].max()) if both.any() else float("nan")
    scale = float(np.abs(a[both]).max()) if both.any() else 0.0
    relative = largest / scale if scale else float("inf")
    real = first.dtype.kind == "f" and second.dtype.kind == "f"
    drifted = real and not bool((unequal & ~both).any()) and relative <= limit
    rank = float(spearman(a[both].ravel(), b[both].ravel()))
    return Change(
        name, DRIFT if drifted else DIFFERENT, largest, relative, int(unequal.sum()), a.size, rank
    )


def circumstances(first: xr.Dataset, second: xr.Dataset) -> list[str]:
    """What is recorded of how the two were made, and differs: a line for each, what can change
    numbers first.
    """
    lines = []
    old, new = identity(first), identity(second)
    for key, name in SETTINGS.items():
        lines += _line(name, old.get(key), new.get(key))
    for key, name in DRAWN.items():
        lines += _line(name, first.attrs.get(key), second.attrs.get(key))
    old, new = arguments_of(first), arguments_of(second)
    told = {
        *INCIDENTAL,
        "dtype",
        "revision",
        "model",
        "weights",
        "prompts_sha256",
        "seed",
        "attention",
    }
    for key in sorted({*old, *new} - told):
        lines += _line(f"argument {key}", old.get(key), new.get(key))
    old, new = (_json(one.attrs.get("packages")) for one in (first, second))
    for key in sorted({*old, *new}):
        lines += _line(f"version of {key}", old.get(key), new.get(key))
    lines += _line(
        "commit of nnheads", first.attrs.get("git_commit"), second.attrs.get("git_commit")
    )
    if any(int(one.attrs.get("git_dirty") or 0) for one in (first, second)):
        lines.append("nnheads had changes that were not committed, here or there")
    rest = {*first.attrs, *second.attrs} - {*VOLATILE, *DRAWN, "model", "revision"}
    for key in sorted(name for name in rest if not name.startswith("remote_")):
        lines += _line(key, first.attrs.get(key), second.attrs.get(key))
    return lines


def _line(name: str, old, new) -> list[str]:
    if json.dumps(_plain(old)) == json.dumps(_plain(new)):
        return []
    return [f"{name}: {_short(old)} -> {_short(new)}"]


def _plain(value):
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def _short(value) -> str:
    text = "not recorded" if value in (None, "") else str(_plain(value))
    text = " ".join(text.split())
    hashed = text.removeprefix("sha256:")
    if len(hashed) in (40, 64) and set(hashed) <= set("0123456789abcdef"):
        return hashed[:12]
    return text if len(text) <= 60 else f"{text[:57]}..."


def _json(text) -> dict:
    """A JSON object in an attribute; empty where there is none."""
    try:
        found = json.loads(text)
    except (TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}

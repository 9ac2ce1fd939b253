"""Is a repeated result the same, and if not, what was different when it was made?

    for change in compare(old, new): print(change.name, change.verdict)
    circumstances(old, new)  # a line for each thing that differed

Every variable of two datasets is compared, bit by bit and then by how far its numbers moved; and
everything that a result records about how it was made, so that a difference has a reason or is said
to have none that is recorded. What one result lacks is a verdict of its own, no error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from nnheads.runs.earlier import INCIDENTAL
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
# arguments that other lines tell
TOLD = {
    *INCIDENTAL,
    *("dtype", "revision", "model", "weights", "prompts_sha256", "seed", "attention"),
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
    """One variable in both results.

    largest: of all absolute differences. relative: that over the largest value.
    cells: how many differ, of `size`.
    rank_correlation: Spearman over all cells, NaN where it says nothing.
    """

    name: str
    verdict: str
    largest: float = 0.0
    relative: float = 0.0
    cells: int = 0
    size: int = 0
    rank_correlation: float = float("nan")

    @property
    def same(self) -> bool:
        """Return whether rounding explains the change, if there is any."""
        return self.verdict in SAME


def tolerance_of(dataset: xr.Dataset) -> float:
    """Return what rounding explains, for what a result was computed in."""
    dtype = str(identity(dataset).get("dtype", "float32"))
    return TOLERANCES.get(dtype, COARSE)


def identity(dataset: xr.Dataset) -> dict:
    """Return the model of a result, as `provenance.model_identity` wrote it."""
    return _json(dataset.attrs.get("source"))


def arguments_of(dataset: xr.Dataset) -> dict:
    """Return the arguments of the command that made a result."""
    return _json(dataset.attrs.get("arguments"))


def compare(
    first: xr.Dataset, second: xr.Dataset, *, tolerance: float | None = None
) -> list[Change]:
    """Return how each variable and coordinate of a result differs from its repetition.

    Args:
        tolerance: the largest change, over the largest value of a variable, that is called drift;
            default: what rounding explains in the coarser of the two dtypes.
    """
    limit = max(map(tolerance_of, (first, second))) if tolerance is None else tolerance
    names, others = _names(first), _names(second)
    pairs = {name: (first[name].values, second[name].values) for name in names if name in others}
    changes = [
        compared(name, *pairs[name], limit) if name in pairs else Change(name, MISSING)
        for name in names
    ]
    return changes + [Change(name, NEW) for name in others if name not in names]


def _names(dataset: xr.Dataset) -> list[str]:
    return [str(name) for name in (*dataset.data_vars, *dataset.coords)]


def compared(name: str, first: np.ndarray, second: np.ndarray, limit: float) -> Change:
    """Return how one variable differs; it drifts only if it is made of real numbers."""
    unknown = float("nan")
    if first.shape != second.shape:
        return Change(name, DIFFERENT, unknown, unknown, first.size, first.size)
    if first.dtype.kind in "fiub" and second.dtype.kind in "fiub":
        return _numbers_compared(name, first, second, limit)
    unequal = int((first.astype(str) != second.astype(str)).sum())
    verdict = DIFFERENT if unequal else EXACT
    return Change(name, verdict, unknown, unknown, unequal, first.size)


def _numbers_compared(name: str, first: np.ndarray, second: np.ndarray, limit: float) -> Change:
    """Return how far the numbers of one variable moved."""
    a, b = first.astype(float), second.astype(float)
    unequal = (a != b) & ~(np.isnan(a) & np.isnan(b))
    if not unequal.any():
        return Change(name, EXACT, size=a.size)
    both = np.isfinite(a) & np.isfinite(b)
    largest, relative = _moved(a[both], b[both])
    real = first.dtype.kind == "f" and second.dtype.kind == "f"
    drifted = real and not bool((unequal & ~both).any()) and relative <= limit
    verdict, rank = DRIFT if drifted else DIFFERENT, float(spearman(a[both], b[both]))
    return Change(name, verdict, largest, relative, int(unequal.sum()), a.size, rank)


def _moved(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Return the largest difference of known numbers, and over the largest of them."""
    if not first.size:
        return float("nan"), float("inf")
    largest, scale = float(np.abs(first - second).max()), float(np.abs(first).max())
    return largest, largest / scale if scale else float("inf")


def circumstances(first: xr.Dataset, second: xr.Dataset) -> list[str]:
    """Return what is recorded of how the two were made, and differs.

    A line for each thing, what can change numbers first.
    """
    old, new = first.attrs, second.attrs
    arguments = [arguments_of(one) for one in (first, second)]
    packages = [_json(attrs.get("packages")) for attrs in (old, new)]
    rest = {*old, *new} - {*VOLATILE, *DRAWN, "model", "revision"}
    return [
        *_lines(SETTINGS, identity(first), identity(second)),
        *_lines(DRAWN, old, new),
        *_lines(_titles("argument ", {*arguments[0], *arguments[1]} - TOLD), *arguments),
        *_lines(_titles("version of ", {*packages[0], *packages[1]}), *packages),
        *_lines({"git_commit": "commit of nnheads"}, old, new),
        *_dirty(old, new),
        *_lines(_titles("", {key for key in rest if not key.startswith("remote_")}), old, new),
    ]


def _titles(before: str, keys: set[str]) -> dict[str, str]:
    """Return what each key is called in a line, in the order of the keys."""
    return {key: f"{before}{key}" for key in sorted(keys)}


def _lines(titles: Mapping[str, str], old: Mapping, new: Mapping) -> list[str]:
    """Return a line for each key whose values differ."""
    return [
        f"{title}: {_short(old.get(key))} -> {_short(new.get(key))}"
        for key, title in titles.items()
        if _text(old.get(key)) != _text(new.get(key))
    ]


def _text(value) -> str:
    """Return a value as text that tells any two apart."""
    return json.dumps(_plain(value))


def _dirty(old: Mapping, new: Mapping) -> list[str]:
    """Say so where either was made with changes that are in no commit."""
    dirty = any(int(attrs.get("git_dirty") or 0) for attrs in (old, new))
    return ["nnheads had changes that were not committed, here or there"] if dirty else []


def _plain(value):
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def _short(value) -> str:
    """Return a value in at most 60 characters; digests in twelve."""
    text = "not recorded" if value in (None, "") else str(_plain(value))
    text = " ".join(text.split())
    digest = text.removeprefix("sha256:")
    if len(digest) in (40, 64) and set(digest) <= set("0123456789abcdef"):
        return digest[:12]
    return text if len(text) <= 60 else f"{text[:57]}..."


def _json(text) -> dict:
    """Return a JSON object in an attribute; empty where there is none."""
    try:
        parsed = json.loads(text)
    except (TypeError, ValueError):
        return {}
    return parsed if isinstance(parsed, dict) else {}

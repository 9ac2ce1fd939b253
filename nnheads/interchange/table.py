"""The one table that every list of heads becomes, however the file that held it was written.

    heads = listed([(9, 6), (9, 9)], [0.9, 0.8])    # score, rank (layer, head)
    heads = fitted(heads, layers=12, units=12)      # the table of a whole model

Broken contents raise ValueError, which `read_heads` turns into BadInput with the file's name.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import xarray as xr
from jaxtyping import Float

from nnheads.errors import BadInput
from nnheads.stats import ranked_heads

Head = tuple[int, int]
T = TypeVar("T", bound=Hashable)
# layers, and heads of a layer; a file that names more is broken, and would fill the memory
LARGEST = 1024
KV = "kv_head"
PART = "part of a list"  # what attrs say of a file that names some heads and not how many there are
WHOLE = "every head"
RANK = {"long_name": "place in the list, 0 is the first", "units": "1"}


def unit_of(heads: xr.Dataset) -> str:
    """Return the dimension that a table has beside layer: head or kv_head."""
    return KV if KV in heads.dims else "head"


def check_index(index: int) -> int:
    """Return a layer's or head's number; raise ValueError for one that no model has."""
    if index >= LARGEST:
        raise ValueError(f"layer or head {index} is more than any model has ({LARGEST})")
    return index


def size_of(value: object) -> int:
    """Return a number of layers or heads as a file has it; no model has more than LARGEST."""
    return check_index(whole_number(value) - 1) + 1


def whole_number(value: object) -> int:
    """Return a layer or a head as a file has it: 3, or 3.0 where all of a row are floats."""
    flag = isinstance(value, (bool, np.bool_))
    if flag or not isinstance(value, (int, float, np.number)) or value != int(value):
        raise ValueError(f"{value!r} is no layer or head")
    return int(value)


def head_from(layer: object, head: object) -> Head:
    """Return a head as a file has it."""
    return whole_number(layer), whole_number(head)


def repeated(items: Sequence[T]) -> T | None:
    """Return the first item that comes twice, or None."""
    seen: set[T] = set()
    for item in items:
        if item in seen:
            return item
        seen.add(item)
    return None


def number(value: object) -> float:
    """Return a score as a file has it."""
    if isinstance(value, (bool, np.bool_, str)) or value is None:
        raise ValueError(f"{value!r} is no score")
    return float(value)  # type: ignore[arg-type]  # what else is no number raises here


def shortest(value: float | np.floating) -> float:
    """Return a float32 as the shortest decimal that is read back as it."""
    return float(str(np.float32(value)))


def grid(entries: Mapping[Head, float], *, whole: bool = False) -> xr.Dataset:
    """Return scores (layer, head) of some heads, NaN for the others, in the smallest table.

    Raises:
        ValueError: no heads, heads that no model has, scores that are no finite numbers.
    """
    if not entries:
        raise ValueError("no heads in it")
    largest = [max(head[axis] for head in entries) for axis in (0, 1)]
    values = np.full([check_index(index) + 1 for index in largest], np.nan)
    for head, value in entries.items():
        if min(head) < 0:
            raise ValueError("negative layer or head")
        values[head] = value
    return labelled(values, whole=whole)


def labelled(
    values: Float[np.ndarray, "layer unit"], *, whole: bool = True, unit: str = "head"
) -> xr.Dataset:
    """Return a table of scores as a dataset, `score` (layer, unit).

    Raises:
        ValueError: no table, infinite scores, a table that is larger than any model's.
    """
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"expected scores [layers, heads], got shape {values.shape}")
    for size in values.shape:
        check_index(size - 1)
    with np.errstate(over="ignore"):
        single = values.astype("float32")
    if np.isinf(single).any():  # too large for single precision is infinite too
        raise ValueError("infinite scores")
    attrs = {"long_name": "score of another tool", "units": "1"}
    score = xr.DataArray(single, dims=("layer", unit), attrs=attrs)
    layers, units = values.shape
    table = xr.Dataset({"score": score}, {"layer": range(layers), unit: range(units)})
    return table.assign_attrs(headline="score", covers=WHOLE if whole else PART)


def listed(heads: Sequence[Head], scores: Iterable[float] | None = None) -> xr.Dataset:
    """Return heads in an order that means something: `rank` (0 is the first) and `score`.

    Without scores, heads of the list have 1 and all others 0.
    """
    named = list(heads)
    twice = repeated(named)
    if twice is not None:
        raise ValueError(f"head {twice[0]}-{twice[1]} is in it twice")
    values = [1.0] * len(named) if scores is None else list(scores)
    table = grid(dict(zip(named, values)))
    if scores is None:
        members = table["score"].fillna(0.0)
        table["score"] = members.assign_attrs(long_name="1 for the heads of the list")
    rank = grid({head: float(place) for place, head in enumerate(named)})["score"]
    table["rank"] = rank.assign_attrs(RANK)
    return table


def with_trials(
    heads: xr.Dataset, trials: Mapping[Head, Float[np.ndarray, " trial"]]
) -> xr.Dataset:
    """Add the single scores that a head's mean is of.

    Returns:
        Also `trials` (layer, head), how many there are, and `trial_score` (layer, head, trial).
    """
    most = max(values.size for values in trials.values())
    count = np.zeros(heads["score"].shape, "int32")
    each = np.full((*count.shape, most), np.nan, "float32")
    for head, values in trials.items():
        count[head] = values.size
        each[(*head, slice(values.size))] = values
    about_count = {"long_name": "scores of a head", "units": "1"}
    about_each = {"long_name": "single scores of a head", "units": "1"}
    heads["trials"] = (("layer", "head"), count, about_count)
    heads["trial_score"] = (("layer", "head", "trial"), each, about_each)
    return heads


def ranking(heads: xr.Dataset, statistic: str | None = None) -> list[Head]:
    """Return (layer, head) in the order of the list or, without one, the highest score first.

    Heads without a score are left out; equal ones stay in the order of layers and heads.

    Raises:
        BadInput: key/value heads, which are no query heads; no such statistic; no head with a
            score.
    """
    name = statistic or str(heads.attrs.get("headline", "score"))
    if name not in heads or set(heads[name].dims) != {"layer", "head"}:
        missing = f"there is no {name!r} by layer and head"
        why = "these are key/value heads" if KV in heads.dims else missing
        raise BadInput(f"{why}; expected scores of query heads")
    by_rank = statistic is None and "rank" in heads
    order = ranked_heads(heads["rank" if by_rank else name], lowest=by_rank)
    if not order:
        raise BadInput(f"{name!r} is not a number for any head, so it ranks none")
    return order


def by_layer(heads: Iterable[Head]) -> dict[int, list[int]]:
    """Return the heads of each layer, both in the order in which they come."""
    layers: dict[int, list[int]] = {}
    for layer, head in heads:
        layers.setdefault(layer, []).append(head)
    return layers


def fitted(heads: xr.Dataset, layers: int, units: int, *, fill: float | None = None) -> xr.Dataset:
    """Return the same heads in the table of a model with so many layers and heads.

    Args:
        heads: `score` (layer, head) or (layer, kv_head).
        fill: the score of heads that the file does not score; default: NaN.

    Raises:
        BadInput: a list that names heads which such a model does not have.
    """
    _check_fits(heads, layers, units)
    table = heads.reindex({"layer": range(layers), unit_of(heads): range(units)})
    for name in ("trials", "in_circuit"):
        if name in table:
            table[name] = table[name].fillna(0).astype(heads[name].dtype)
    if fill is not None or _is_membership(heads):
        table["score"] = table["score"].fillna(0.0 if fill is None else fill)
    return table.assign_attrs(heads.attrs, covers=WHOLE)


def _check_fits(heads: xr.Dataset, layers: int, units: int) -> None:
    """Refuse a table that is larger than the model or, where it is whole, of another size."""
    size = heads.sizes["layer"], heads.sizes[unit_of(heads)]
    whole = heads.attrs.get("covers", WHOLE) == WHOLE
    if size[0] > layers or size[1] > units or (whole and size != (layers, units)):
        what = "key/value heads" if unit_of(heads) == KV else "heads"
        raise BadInput(
            f"the list is of {size[0]} layers of {size[1]} {what}; the model has {layers} of"
            f" {units}"
        )


def _is_membership(heads: xr.Dataset) -> bool:
    """Return whether the scores of an ordered list only say which heads are in it."""
    score = heads["score"]
    return "rank" in heads and not bool((score > 1).any()) and bool((score == 0).any())


def check_whole(heads: xr.Dataset, what: str) -> None:
    """Refuse to write a whole table from part of one: what is not named is not zero."""
    if heads.attrs.get("covers", WHOLE) != WHOLE:
        raise BadInput(
            f"{what} has a score for every head of a model, and this list does not say how many"
            " there are; give --model or --shape"
        )
    missing = int(heads["score"].isnull().sum())
    if missing:
        raise BadInput(
            f"{missing} heads have no score, and {what} needs one for every head; say which with"
            " --fill"
        )

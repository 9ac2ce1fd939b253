"""What every list of heads becomes: a dataset by layer and head, however the file that held it was
written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import xarray as xr

from nnheads.errors import BadInput

Head = tuple[int, int]
# layers, and heads of a layer; a file that names more is broken, and would fill the memory
LARGEST = 1024
KV = "kv_head"
PART = "part of a list"  # what attrs say of a file that names some heads and not how many there are
WHOLE = "every head"


def grid(entries: Mapping[Head, float], *, whole: bool = False) -> xr.Dataset:
    """Scores (layer, head) of some heads; the others are NaN. The table is as large as the heads in
    it need.

    Raises:
        ValueError: no heads, places that no model has, scores that are no finite numbers.
    """
    if not entries:
        raise ValueError("no heads in it")
    shape = [max(place[axis] for place in entries) + 1 for axis in (0, 1)]
    values = np.full([check_place(size - 1) + 1 for size in shape], np.nan)
    for place, value in entries.items():
        if min(place) < 0:
            raise ValueError("negative layer or head")
        values[place] = value
    return labelled(values, whole=whole)


def check_place(number: int) -> int:
    """Refuse a layer or head that no model has."""
    if number >= LARGEST:
        raise ValueError(f"layer or head {number} is more than any model has ({LARGEST})")
    return number


def whole_number(value) -> int:
    """A layer or a head as a file has it: 3, or 3.0 where all of a row are floats."""
    if (
        isinstance(value, (bool, np.bool_))
        or not isinstance(value, (int, float, np.number))
        or value != int(value)
    ):
        raise ValueError(f"{value!r} is no layer or head")
    return int(value)


def number(value) -> float:
    """A score as a file has it."""
    if isinstance(value, (bool, np.bool_, str)) or value is None:
        raise ValueError(f"{value!r} is no score")
    return float(value)


def labelled(values: np.ndarray, *, whole: bool = True, unit: str = "head") -> xr.Dataset:
    """A table as a dataset.

    Raises ValueError for infinite scores, and for tables larger than any model.
    """
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"expected scores [layers, heads], got shape {values.shape}")
    for size in values.shape:
        check_place(size - 1)
    if np.isinf(values).any():
        raise ValueError("infinite scores")
    about = {"long_name": "score of another tool", "units": "1"}
    with np.errstate(over="ignore"):
        data = xr.DataArray(values.astype("float32"), dims=("layer", unit), attrs=about)
    layers, units = values.shape
    found = xr.Dataset({"score": data}, {"layer": range(layers), unit: range(units)})
    return found.assign_attrs(headline="score", covers=WHOLE if whole else PART)


def listed(heads: Sequence[Head], scores: Iterable[float] | None = None) -> xr.Dataset:
    """Heads in an order that means something: `rank` (0 is the first), and their scores, or 1 for
    those in the list and 0 for all others."""
    places = list(heads)
    if len(set(places)) < len(places):
        twice = next(place for place in places if places.count(place) > 1)
        raise ValueError(f"head {twice[0]}-{twice[1]} is in it twice")
    given = [1.0] * len(places) if scores is None else list(scores)
    found = grid(dict(zip(places, given)))
    if scores is None:
        found["score"] = (
            found["score"].fillna(0.0).assign_attrs(long_name="1 for the heads of the list")
        )
    rank = grid({place: float(order) for order, place in enumerate(places)})["score"]
    found["rank"] = rank.assign_attrs(long_name="place in the list, 0 is the first", units="1")
    return found


def with_trials(found: xr.Dataset, lists: Mapping[Head, np.ndarray]) -> xr.Dataset:
    """The single scores that a head's mean is of: `trials`, how many, and `trial_score` (layer,
    head, trial).
    """
    most = max(values.size for values in lists.values())
    count = np.zeros(found["score"].shape, "int32")
    each = np.full((*count.shape, most), np.nan, "float32")
    for place, values in lists.items():
        count[place] = values.size
        each[(*place, slice(values.size))] = values
    about = {"long_name": "scores of a head", "units": "1"}
    found["trials"] = (("layer", "head"), count, about)
    found["trial_score"] = (
        ("layer", "head", "trial"),
        each,
        {**about, "long_name": "single scores of a head"},
    )
    return found


def ranking(heads: xr.Dataset, statistic: str | None = None) -> list[Head]:
    """(layer, head) in the order of the list, or by score, the strongest first; heads without a
    score are left out.

    Raises:
        BadInput: key/value heads, which are no query heads; no such statistic; no head with a
            score.
    """
    name = statistic or str(heads.attrs.get("headline", "score"))
    if name not in heads or set(heads[name].dims) != {"layer", "head"}:
        why = (
            "these are key/value heads"
            if KV in heads.dims
            else f"there is no {name!r} by layer and head"
        )
        raise BadInput(f"{why}; expected scores of query heads")
    by_place = statistic is None and "rank" in heads
    values = heads["rank" if by_place else name].transpose("layer", "head").to_series().dropna()
    if values.empty:
        raise BadInput(f"{name!r} is not a number for any head, so it ranks none")
    order = values.sort_values(ascending=by_place, kind="stable")
    return [(int(layer), int(head)) for layer, head in order.index]


def fitted(heads: xr.Dataset, layers: int, units: int, *, fill: float | None = None) -> xr.Dataset:
    """The same heads in the table of a model with so many layers and heads.

    Args:
        fill: the score of heads that the file does not score; default: NaN.

    Raises:
        BadInput: a list that names heads which such a model does not have.
    """
    unit = KV if KV in heads.dims else "head"
    had = heads.sizes["layer"], heads.sizes[unit]
    covers = heads.attrs.get("covers", WHOLE)
    if had[0] > layers or had[1] > units or (covers == WHOLE and had != (layers, units)):
        what = "key/value heads" if unit == KV else "heads"
        raise BadInput(
            f"the list is of {had[0]} layers of {had[1]} {what}; the model has {layers} of {units}"
        )
    found = heads.reindex({"layer": range(layers), unit: range(units)})
    plain = (
        "rank" in heads
        and not bool((heads["score"] > 1).any())
        and bool((heads["score"] == 0).any())
    )
    for name in ("trials", "in_circuit"):
        if name in found:
            found[name] = found[name].fillna(0).astype(heads[name].dtype)
    if fill is not None or plain:
        found["score"] = found["score"].fillna(0.0 if fill is None else fill)
    return found.assign_attrs(heads.attrs, covers=WHOLE)


def check_whole(heads: xr.Dataset, what: str) -> None:
    """Refuse to write a whole table from part of one: what is not named has no score, and is not
    zero.
    """
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


def shortest(value) -> float:
    """A float32 as the shortest decimal that is read back as it."""
    return float(str(np.float32(value)))

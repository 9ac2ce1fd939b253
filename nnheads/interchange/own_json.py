"""The JSON of nnheads itself: scores, order and origin of a list of heads in one file.

It holds `format`, `version`, `unit` (head or kv_head), `layers`, `heads` (how many of each),
`covers`, `scores` [[layer, head, score], ...], `order` [[layer, head], ...] and `attributes`.
"""

from __future__ import annotations

import json

import numpy as np
import xarray as xr
from jaxtyping import Float

from nnheads.interchange.origin import attributes, plain
from nnheads.interchange.table import (
    KV,
    RANK,
    WHOLE,
    Head,
    grid,
    head_from,
    labelled,
    number,
    ranking,
    shortest,
    size_of,
    unit_of,
)

FORMAT, VERSION = "nnheads heads", 1


def is_own(content: dict) -> bool:
    """Return whether the object in a file is this format."""
    return content.get("format") == FORMAT


def from_own(content: dict) -> xr.Dataset:
    """Return heads with scores in their order, and what is known of them."""
    if content.get("version") != VERSION:
        raise ValueError(
            f"version {content.get('version')!r} is not known; this nnheads reads {VERSION}"
        )
    unit = content["unit"]
    if unit not in ("head", KV):
        raise ValueError(f"unit {unit!r} is not known; expected head or {KV}")
    sizes = size_of(content["layers"]), size_of(content["heads"])
    table = labelled(_scores(content["scores"], sizes), unit=unit)
    if content.get("order"):
        table["rank"] = (("layer", unit), _rank(content["order"], sizes), RANK)
    covers = str(content.get("covers", WHOLE))
    return table.assign_attrs(
        {**plain(content["attributes"]), "headline": "score", "covers": covers}
    )


def _scores(rows: list, sizes: tuple[int, int]) -> Float[np.ndarray, "layer unit"]:
    entries: dict[Head, float] = {}
    for layer, head, score in rows:
        entries[head_from(layer, head)] = number(score)
    if len(entries) < len(rows):
        raise ValueError("a head is in it twice")
    layers, units = sizes
    small = grid(entries)
    if small.sizes["layer"] > layers or small.sizes["head"] > units:
        raise ValueError(f"it names heads beyond its {layers} layers of {units}")
    return small["score"].reindex(layer=range(layers), head=range(units)).values


def _rank(order: list, sizes: tuple[int, int]) -> Float[np.ndarray, "layer unit"]:
    """Return the place of each head in the list, NaN for heads that are not in it."""
    rank = np.full(sizes, np.nan, "float32")
    for place, head in enumerate(order):
        rank[head_from(*head)] = place
    return rank


def own_text(heads: xr.Dataset) -> str:
    """Return the text of a file that holds these heads."""
    unit = unit_of(heads)
    values = heads["score"].transpose("layer", unit).values
    known = [(int(layer), int(head)) for layer, head in zip(*np.nonzero(~np.isnan(values)))]
    record = {
        "format": FORMAT,
        "version": VERSION,
        "unit": unit,
        "layers": values.shape[0],
        "heads": values.shape[1],
        "covers": heads.attrs.get("covers"),
        "scores": [[*head, shortest(values[head])] for head in known],
        "order": [list(head) for head in ranking(heads)] if "rank" in heads else [],
        "attributes": attributes(heads),
    }
    return json.dumps(record) + "\n"

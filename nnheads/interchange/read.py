"""Read any list of heads: what a file holds decides how it is read, not how it is called.

Besides the formats of `lists`, `circuits`, `masks` and `pyvene` these are netCDF files and folders
of our own runs, and `nnheads`, our own JSON, which keeps scores, order and provenance in one file.
What says where a list is from travels in attrs; for formats without room for it, in a file beside
it (`<name>.provenance.json`).
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from pathlib import Path

import numpy as np
import xarray as xr

from nnheads.errors import BadInput, first_line
from nnheads.interchange import circuits, lists, masks, pyvene
from nnheads.interchange import saved_edits as edits
from nnheads.interchange.table import (
    KV,
    WHOLE,
    check_place,
    grid,
    labelled,
    number,
    whole_number,
    with_trials,
)
from nnheads.runs import store

FORMAT, VERSION = "nnheads heads", 1
PROVENANCE = "nnheads provenance"
LISTS = (
    "retrieval_head",
    "scores",
    "records",
    "qrhead",
    "qrhead_config",
    "function_vectors",
    "array",
    "fold",
)
FORMATS = (
    *LISTS,
    "tensor",
    "indirect_effect",
    "duo_attention",
    "pyvene",
    "mib",
    "intervention",
    "nnheads",
    "netcdf",
)
FOLDERS = (masks.TABLE, "heads.nc", edits.NAME, pyvene.CONFIG)
TUPLES = re.compile(r"\s*\[\s*\((?:[\s\d.,eE+-]|\(|\)|\n)*\)\s*,?\s*\]\s*", re.ASCII)
OWN = ("covers", "headline", "read_as")  # attrs that describe the table, not its origin


def read_heads(
    path: str | Path, *, heads: int | None = None, statistic: str | None = None
) -> xr.Dataset:
    """A list of heads, or their scores, as a dataset.

    Args:
        path: a file, a run's folder, or a folder of pyvene or DuoAttention.
        heads: how many heads a layer has, where pyvene's files do not say it.
        statistic: of a run, which of its statistics; default: its headline.

    Returns:
        `score` (layer, head), or (layer, kv_head) for gates of key/value heads; NaN for heads
        without one, and 0 for those that a list without scores leaves out. `rank` where the file
        has an order; `trials` and `trial_score` where it has single scores; `in_circuit`, nodes and
        edges of a circuit. attrs: `source_format`, `source_file`, `source_sha256`, `covers`,
            `lineage` (the files before it), and what is known of its origin, such as `licence`.

    Raises:
        BadInput: one line: missing file, or contents that are no list of heads. Nothing in a file
            is executed.
    """
    path = Path(path)
    if not path.exists():
        raise BadInput(f"no file {str(path)!r}; expected a list of heads or a run's folder")
    if path.is_dir():
        inside = next((path / name for name in FOLDERS if (path / name).is_file()), None)
        if inside is None:
            raise BadInput(
                f"{path} is a folder without any of {', '.join(FOLDERS)}; expected a list of heads"
            )
        path = inside
    try:
        content = path.read_bytes()
        kind, found = parsed(path, content, heads, statistic)
    except BadInput:
        raise
    except Exception as error:  # what reading a broken file raises is up to five libraries
        raise BadInput(f"{path} holds no list of heads: {reason(error)}") from None
    origin = {
        "source_format": kind,
        "source_file": path.name,
        "source_sha256": hashlib.sha256(content).hexdigest(),
    }
    known = {**beside(path, origin["source_sha256"]), **found.attrs}
    known["lineage"] = lineage(known.get("lineage"), origin)
    found["score"] = found["score"].assign_attrs(
        source=found["score"].attrs.get("source", path.name)
    )
    return found.assign_attrs({**known, **origin})


def lineage(before, origin: dict) -> str:
    """The files that a list has gone through, the first one first, as JSON."""
    try:
        chain = json.loads(before or "[]")
    except (TypeError, ValueError):
        chain = []
    chain = chain if isinstance(chain, list) else []
    return json.dumps(
        [*chain, {key.removeprefix("source_"): value for key, value in origin.items()}]
    )


def reason(error: BaseException) -> str:
    """What was wrong, in words that fit behind a colon."""
    if isinstance(error, KeyError):
        return f"{error} is missing"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "it is neither text in UTF-8 nor a format that is known"
    return first_line(error)[:200]


def parsed(
    path: Path, content: bytes, heads: int | None, statistic: str | None
) -> tuple[str, xr.Dataset]:
    """The format of a file's contents, and the heads in it."""
    if content.startswith((b"\x89HDF", b"CDF")):
        return "netcdf", with_cases(from_run(store.load(path), path, statistic), path)
    if statistic is not None:
        raise BadInput(f"--statistic is for runs of nnheads; {path.name} is no such file")
    if content.startswith(b"\x93NUMPY"):
        return lists.from_array(np.load(path, allow_pickle=False))
    if content.startswith((b"PK\x03\x04", b"\x80")):
        return from_torch(path)
    text = content.decode("utf-8").lstrip("\ufeff")
    if not text.strip():
        raise ValueError("it is empty")
    return from_text(path, text, heads)


def from_text(path: Path, text: str, heads: int | None) -> tuple[str, xr.Dataset]:
    """JSON, tuples as Python prints them, a QRHead configuration, or a table of gates."""
    if TUPLES.fullmatch(text):
        text = re.sub(r",\s*\]", "]", text.translate(str.maketrans("()", "[]")))
    if text.lstrip()[:1] in ("{", "["):
        return from_json(path, lists.strict(text), heads)
    found = lists.from_config(text)
    if found is not None:
        return found
    if re.fullmatch(r"[\s\d.eE+\-nainf]+", text, re.ASCII) and len(text.split()) > 1:
        config = path.with_name(masks.CONFIG)
        told = config.is_file() and path.name != masks.CONFIG
        about = lists.strict(config.read_text(encoding="utf-8")) if told else None
        return masks.from_table(text, about if isinstance(about, dict) else None)
    raise ValueError(f"its format is not known; expected one of {', '.join(FORMATS)}")


def from_json(path: Path, content, heads: int | None) -> tuple[str, xr.Dataset]:
    if isinstance(content, list):
        return lists.from_sequence(content)
    if content.get("format") == FORMAT:
        return "nnheads", from_own(content)
    if path.name == edits.NAME and "edits" in content:
        return edits.from_intervention(path.parent)
    if circuits.is_circuit(content):
        return circuits.from_circuit(content)
    if pyvene.is_config(content):
        return pyvene.from_folder(path.parent, content, heads)
    return lists.from_mapping(content)


def from_torch(path: Path) -> tuple[str, xr.Dataset]:
    """Tensors alone; anything else in the file is refused before it is built."""
    import pickle

    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # what torch thinks of another program's pickle says nothing to a reader
            content = torch.load(path, map_location="cpu", weights_only=True)
        return (
            circuits.from_graph(content)
            if isinstance(content, dict)
            else lists.from_tensor(content)
        )
    except pickle.UnpicklingError:
        raise ValueError("it holds something else than a tensor, which is not run") from None


def from_run(table: xr.Dataset, path: Path, statistic: str | None) -> xr.Dataset:
    """One statistic of a run's heads.nc."""
    name = statistic or str(table.attrs.get("headline", "effect"))
    unit = KV if KV in table.dims else "head"
    if name not in table or set(table[name].dims) != {"layer", unit}:
        usable = [
            str(one)
            for one, values in table.data_vars.items()
            if set(values.dims) == {"layer", unit}
        ]
        shown = (
            ", ".join(one for one in usable if not one.endswith(("_low", "_high")))
            or "nothing by layer and head"
        )
        raise BadInput(
            f"{path} has no {name!r} by layer and head; it has {shown} (see --statistic)"
        )
    places = np.array(table["layer"]), np.array(table[unit])
    values = table[name].transpose("layer", unit).values
    if any(not np.array_equal(own, np.arange(own.size)) for own in places):
        shape = [check_place(int(own.max())) + 1 for own in places]
        larger = np.full(shape, np.nan)
        larger[np.ix_(*places)] = values
        values = larger
    found = labelled(values, unit=unit)
    found["score"].attrs.update(
        {
            key: table[name].attrs[key]
            for key in ("long_name", "units", "source")
            if key in table[name].attrs
        }
    )
    for other in (
        "rank",
        "in_circuit",
        "trials",
        "trial_score",
    ):  # of a list that was kept as netCDF
        if other in table and statistic is None and table[other].dims[:2] == ("layer", unit):
            found[other] = table[other]
    for kind in ("node", "edge"):
        if kind in table.dims and f"{kind}_score" in table:
            found = found.merge(table[[f"{kind}_score", f"{kind}_in_circuit"]])
    return found.assign_attrs(
        {
            **table.attrs,
            "headline": "score",
            "statistic": name,
            "covers": table.attrs.get("covers", WHOLE),
        }
    )


def with_cases(found: xr.Dataset, path: Path) -> xr.Dataset:
    """The single prompts of a run as trials, where its scores are means over them."""
    beside, name = path.with_name("scores.nc"), found.attrs["statistic"]
    if path.name != "heads.nc" or not beside.is_file() or KV in found.dims or "trials" in found:
        return found
    cases = store.load(beside)
    if name not in cases or set(cases[name].dims) != {"batch", "layer", "head"}:
        return found
    if cases.attrs.get("counts") in cases.coords:
        cases = cases.isel(batch=cases[cases.attrs["counts"]].values == 1)
    each = cases[name].transpose("batch", "layer", "head")
    if each.shape[1:] != found["score"].shape or not np.allclose(
        each.mean("batch"), found["score"], atol=1e-5
    ):
        return found  # a ratio or a contrast is no mean of single prompts
    values = {place: each.values[:, *place] for place in np.ndindex(*found["score"].shape)}
    return with_trials(found, {place: own[~np.isnan(own)] for place, own in values.items()})


def from_own(content: dict) -> xr.Dataset:
    """Our own JSON: heads with scores in their order, and what is known of them."""
    if content.get("version") != VERSION:
        raise ValueError(
            f"version {content.get('version')!r} is not known; this nnheads reads {VERSION}"
        )
    unit = content["unit"]
    if unit not in ("head", KV):
        raise ValueError(f"unit {unit!r} is not known; expected head or {KV}")
    layers, units = (
        check_place(whole_number(content[name]) - 1) + 1 for name in ("layers", "heads")
    )
    entries = {}
    for row in content["scores"]:
        layer, head, score = row
        entries[whole_number(layer), whole_number(head)] = number(score)
    if len(entries) < len(content["scores"]):
        raise ValueError("a head is in it twice")
    small = grid(entries)
    if small.sizes["layer"] > layers or small.sizes["head"] > units:
        raise ValueError(f"it names heads beyond its {layers} layers of {units}")
    values = small["score"].reindex(layer=range(layers), head=range(units)).values
    found = labelled(values, unit=unit)
    if content.get("order"):
        rank = np.full((layers, units), np.nan, "float32")
        for order, (layer, head) in enumerate(content["order"]):
            rank[whole_number(layer), whole_number(head)] = order
        found["rank"] = (
            ("layer", unit),
            rank,
            {"long_name": "place in the list, 0 is the first", "units": "1"},
        )
    about = {
        str(key): value
        for key, value in content["attributes"].items()
        if isinstance(value, (str, int, float))
    }
    return found.assign_attrs(
        {**about, "headline": "score", "covers": str(content.get("covers", WHOLE))}
    )


def beside(path: Path, digest: str) -> dict:
    """Provenance in a file of its own, if it is of this very file."""
    place = path.with_name(f"{path.name}.provenance.json")
    if not place.is_file():
        return {}
    try:
        record = json.loads(place.read_text(encoding="utf-8"))
        if record["format"] != PROVENANCE or record["sha256"] != digest:
            return {
                "provenance_note": (
                    f"{place.name} is of another version of this file and was left aside"
                )
            }
        attributes = record["attributes"]
        return {
            str(key): value
            for key, value in attributes.items()
            if isinstance(value, (str, int, float)) and key not in OWN
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {"provenance_note": f"{place.name} is no record of provenance and was left aside"}

"""Write lists of heads in other tools' formats, each with where it came from."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import xarray as xr

from nnheads.errors import BadInput
from nnheads.interchange import circuits, lists, masks, pyvene
from nnheads.interchange import saved_edits as edits
from nnheads.interchange.read import FORMAT, FORMATS, LISTS, OWN, PROVENANCE, VERSION
from nnheads.interchange.table import KV, check_whole, ranking, shortest
from nnheads.runs import store

ENDINGS = {
    **dict.fromkeys(
        ("retrieval_head", "scores", "records", "qrhead", "function_vectors", "mib", "nnheads"),
        ".json",
    ),
    "qrhead_config": ".yaml",
    "array": ".npy",
    "fold": ".npy",
    "tensor": ".pt",
    "indirect_effect": ".pt",
    "duo_attention": ".tsv",
    "netcdf": ".nc",
}
QUERY_HEADS = tuple(name for name in FORMATS if name not in ("duo_attention", "nnheads", "netcdf"))


def write_heads(heads: xr.Dataset, path: str | Path, *, format: str) -> Path:
    """Write a list of heads.

    Args:
        heads: as `read_heads` returns them, e.g. by way of `interchange.table.fitted` or
            `interchange.masks.kv_mask`.
        path: a file; for `pyvene` and `intervention` a folder, for `duo_attention` a folder or a
            .tsv.
        format: one of FORMATS. Formats that know no order, no scores or no missing heads drop what
            they cannot hold.

    Returns:
        The path. Formats without room for it get their provenance in `<name>.provenance.json`
        beside them.

    Raises:
        BadInput: an unknown format or a wrong ending; query heads where key/value heads are needed,
            or the reverse; scores that are missing. RunError: a place that cannot be written.
    """
    path = Path(path)
    check(heads, path, format)
    if format == "netcdf":
        return store.save(path, heads)
    if format == "nnheads":
        return store.write(
            path, lambda target: target.write_text(own_text(heads), encoding="utf-8")
        )
    if format in ("pyvene", "intervention") or (
        format == "duo_attention" and path.suffix != ENDINGS[format]
    ):
        return write_folder(heads, path, format)
    store.write(path, lambda target: write_file(heads, target, format))
    note(heads, path, format)
    return path


def check(heads: xr.Dataset, path: Path, format: str) -> None:
    """Refuse what cannot be written before anything is."""
    if format not in FORMATS:
        raise BadInput(f"format {format!r} is not known; use one of {', '.join(FORMATS)}")
    if format in QUERY_HEADS and KV in heads.dims:
        raise BadInput(
            f"{format} lists query heads, and these are key/value heads; use duo_attention or"
            " nnheads"
        )
    if format == "duo_attention" and KV not in heads.dims:
        raise BadInput(
            "duo_attention has a gate for every key/value head; give --kv-heads or --model"
        )
    ending = ENDINGS.get(format)
    if (
        ending is not None
        and path.suffix != ending
        and not (format == "duo_attention" and not path.suffix)
    ):
        raise BadInput(f"{path} does not end in {ending}, as files of {format} do")


def write_file(heads: xr.Dataset, path: Path, format: str) -> None:
    if format in LISTS:
        lists.write_list(heads, path, format)
    elif format in ("tensor", "indirect_effect"):
        check_whole(heads, format)
        lists.write_tensor(heads, path, format)
    elif format == "mib":
        circuits.write_circuit(heads, path)
    else:
        masks.write_table(heads, path)


def write_folder(heads: xr.Dataset, folder: Path, format: str) -> Path:
    """A folder, whole or not at all. One that exists is not touched."""
    if folder.exists():
        raise BadInput(f"{folder} exists; name another folder, or remove it")
    with store.writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as name:
            made = Path(name) / folder.name
            made.mkdir()
            if format == "pyvene":
                for file, text in pyvene.texts(ranked(heads), heads.attrs.get("head_dim")).items():
                    (made / file).write_text(text, encoding="utf-8")
                note(heads, made / pyvene.CONFIG, format)
            elif format == "intervention":
                edits.write_intervention(ranked(heads), made, str(heads.attrs.get("model", "")))
                note(heads, made / edits.NAME, format)
            else:
                masks.write_table(heads, made / masks.TABLE)
                (made / masks.CONFIG).write_text(masks.config_of(heads), encoding="utf-8")
                note(heads, made / masks.TABLE, format)
            shutil.move(made, folder)
    return folder


def ranked(heads: xr.Dataset) -> list[tuple[int, int]]:
    """The heads of a list: those with a rank or, without, those whose score is above zero."""
    order = ranking(heads)
    found = [place for place in order if "rank" in heads or heads["score"].values[place] > 0]
    if not found:
        raise BadInput("no head of this list has a score above zero, so none would be edited")
    return found


def own_text(heads: xr.Dataset) -> str:
    """Our own JSON."""
    unit = KV if KV in heads.dims else "head"
    values = heads["score"].transpose("layer", unit).values
    rows = [
        [*map(int, place), shortest(values[place])] for place in zip(*np.nonzero(~np.isnan(values)))
    ]
    record = {
        "format": FORMAT,
        "version": VERSION,
        "unit": unit,
        "layers": values.shape[0],
        "heads": values.shape[1],
        "covers": heads.attrs.get("covers"),
        "scores": rows,
        "order": [list(place) for place in ranking(heads)] if "rank" in heads else [],
        "attributes": attributes(heads),
    }
    return json.dumps(record) + "\n"


def attributes(heads: xr.Dataset) -> dict:
    """What is known of a list's origin, as JSON takes it."""
    plain = {
        str(key): store.netcdf_value(value) for key, value in heads.attrs.items() if key not in OWN
    }
    return {
        key: value.item() if isinstance(value, np.generic) else value
        for key, value in plain.items()
    }


def note(heads: xr.Dataset, path: Path, format: str) -> None:
    """Provenance beside a file whose format has no room for it."""
    record = {
        "format": PROVENANCE,
        "of": path.name,
        "list_format": format,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "attributes": attributes(heads),
    }
    place = path.with_name(f"{path.name}.provenance.json")
    text = json.dumps(record, indent=1, default=str) + "\n"
    store.write(place, lambda target: target.write_text(text, encoding="utf-8"))

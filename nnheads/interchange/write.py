"""Write lists of heads in other tools' formats, each with where it came from.

    write_heads(heads, "heads.json", format="qrhead")

What a format cannot hold is dropped, or refused where the file would say something else; nothing is
left half-written.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import xarray as xr

from nnheads.errors import BadInput
from nnheads.interchange import circuit_files, list_files, masks, own_json, pyvene
from nnheads.interchange import saved_edits as edits
from nnheads.interchange.formats import (
    ANY_UNIT,
    ENDINGS,
    FOLDERS,
    FORMATS,
    GATES,
    LISTS,
    TENSORS,
)
from nnheads.interchange.origin import write_beside
from nnheads.interchange.table import KV, Head, check_whole, ranking
from nnheads.runs import store


def write_heads(heads: xr.Dataset, path: str | Path, *, format: str) -> Path:
    """Write a list of heads in one of the formats that `read_heads` reads.

    Args:
        heads: `score` (layer, head) or (layer, kv_head), and what else `read_heads` returns; see
            also `interchange.table.fitted` and `interchange.masks.kv_mask`.
        path: a file; for `pyvene` and `intervention` a folder, for `duo_attention` a folder or a
            .tsv.
        format: one of `interchange.formats.FORMATS`. Formats that know no order, no scores or no
            missing heads drop what they cannot hold.

    Returns:
        The path. Formats without room for it get their origin in `<name>.provenance.json` beside
        them.

    Raises:
        BadInput: an unknown format or a wrong ending; query heads where key/value heads are needed,
            or the reverse; scores that are missing.
        RunError: a place that cannot be written.

    Source: each format's own, see `nnheads.interchange.lists` and the modules beside it.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from nnheads.interchange.table import listed
        >>> heads = listed([(9, 6), (9, 9)], [0.75, 0.5])
        >>> path = Path(tempfile.mkdtemp()) / "heads.json"
        >>> nnheads.write_heads(heads, path, format="qrhead").read_text()
        '[["9-6", 0.75], ["9-9", 0.5]]\\n'
    """
    path = Path(path)
    _check(heads, path, format)
    if format == "netcdf":
        return store.save(path, heads)
    if format == "nnheads":
        text = own_json.own_text(heads)
        return store.write(path, lambda target: target.write_text(text, encoding="utf-8"))
    if format in FOLDERS or (format == GATES and path.suffix != ENDINGS[GATES]):
        return _write_folder(heads, path, format)
    store.write(path, lambda target: _write_file(heads, target, format))
    write_beside(heads, path, format)
    return path


def _check(heads: xr.Dataset, path: Path, format: str) -> None:
    """Refuse what cannot be written before anything is."""
    if format not in FORMATS:
        raise BadInput(f"format {format!r} is not known; use one of {', '.join(FORMATS)}")
    if format not in ANY_UNIT and KV in heads.dims:
        raise BadInput(
            f"{format} lists query heads, and these are key/value heads; use duo_attention or"
            " nnheads"
        )
    if format == GATES and KV not in heads.dims:
        raise BadInput(
            "duo_attention has a gate for every key/value head; give --kv-heads or --model"
        )
    ending = ENDINGS.get(format, path.suffix)
    folder = format == GATES and not path.suffix
    if path.suffix != ending and not folder:
        raise BadInput(f"{path} does not end in {ending}, as files of {format} do")


def _write_file(heads: xr.Dataset, path: Path, format: str) -> None:
    if format in LISTS:
        list_files.write_list(heads, path, format)
    elif format in TENSORS:
        check_whole(heads, format)
        list_files.write_tensor(heads, path, format)
    elif format == "mib":
        circuit_files.write_circuit(heads, path)
    else:
        masks.write_table(heads, path)


def _write_folder(heads: xr.Dataset, folder: Path, format: str) -> Path:
    """Write a folder, whole or not at all. One that exists is not touched."""
    if folder.exists():
        raise BadInput(f"{folder} exists; name another folder, or remove it")
    with store.writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as name:
            made = Path(name) / folder.name
            made.mkdir()
            write_beside(heads, made / _fill(heads, made, format), format)
            shutil.move(made, folder)
    return folder


def _fill(heads: xr.Dataset, folder: Path, format: str) -> str:
    """Write the files of a folder; return the name of the one that is read again."""
    if format == "pyvene":
        for name, text in pyvene.texts(_edited(heads), heads.attrs.get("head_dim")).items():
            (folder / name).write_text(text, encoding="utf-8")
        return pyvene.CONFIG
    if format == "intervention":
        edits.write_intervention(_edited(heads), folder, str(heads.attrs.get("model", "")))
        return edits.NAME
    masks.write_table(heads, folder / masks.TABLE)
    (folder / masks.CONFIG).write_text(masks.config_of(heads), encoding="utf-8")
    return masks.TABLE


def _edited(heads: xr.Dataset) -> list[Head]:
    """Return the heads of a list: those with a rank or, without, with a score above zero."""
    scores = heads["score"].values
    chosen = [head for head in ranking(heads) if "rank" in heads or scores[head] > 0]
    if not chosen:
        raise BadInput("no head of this list has a score above zero, so none would be edited")
    return chosen

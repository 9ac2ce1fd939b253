"""Read any list of heads: what a file holds decides how it is read, not how it is called.

    heads = read_heads("head_score/Llama-2-7b-80k.json")    # Retrieval_Head's own file
    heads["score"].sel(layer=16, head=19)

The formats are described in `lists`, `circuits`, `masks`, `pyvene` and `own_json`; results folders
and netCDF files of nnheads are lists too. Nothing in a file is executed, and a file that holds no
list of heads is BadInput, one line.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from nnheads.errors import BadInput, first_line
from nnheads.interchange import circuits, lists, masks, own_json, pyvene, run_tables
from nnheads.interchange import saved_edits as edits
from nnheads.interchange.formats import FORMATS
from nnheads.interchange.origin import with_origin

FILES = (masks.TABLE, "heads.nc", edits.NAME, pyvene.CONFIG)  # what is read of a folder
NETCDF = (b"\x89HDF", b"CDF")
NUMPY = b"\x93NUMPY"
TORCH = (b"PK\x03\x04", b"\x80")
TUPLES = re.compile(r"\s*\[\s*\((?:[\s\d.,eE+-]|\(|\)|\n)*\)\s*,?\s*\]\s*", re.ASCII)
NUMBERS = re.compile(r"[\s\d.eE+\-nainf]+", re.ASCII)
Parsed = tuple[str, xr.Dataset]  # the format, and the heads


def read_heads(
    path: str | Path, *, heads: int | None = None, statistic: str | None = None
) -> xr.Dataset:
    """Return a list of heads, or their scores, in any format that nnheads knows.

    Args:
        path: a file, a results folder, or a folder of pyvene or DuoAttention.
        heads: how many heads a layer has, where pyvene's files do not say it.
        statistic: of a results folder, which of its statistics; default: its headline.

    Returns:
        `score` (layer, head), or (layer, kv_head) for gates of key/value heads; NaN for heads
        without one, and 0 for those that a list without scores leaves out. `rank` (layer, head),
        0 for the first, where the file has an order; `trials` (layer, head) and `trial_score`
        (layer, head, trial) where it has single scores; `in_circuit` (layer, head), nodes and edges
        of a circuit. attrs: `source_format`, `source_file`, `source_sha256`, `covers`, `lineage`
        (the files before it), and what is known of its origin, such as `licence`.

    Raises:
        BadInput: no such file, or contents that are no list of heads.

    Source: each format's own, see `nnheads.interchange.lists` and the modules beside it.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> folder = Path(tempfile.mkdtemp())
        >>> written = (folder / "heads.json").write_text('{"9-6": 0.75, "9-9": 0.5}')
        >>> heads = nnheads.read_heads(folder / "heads.json")
        >>> heads.attrs["source_format"], float(heads["score"].sel(layer=9, head=6))
        ('scores', 0.75)
    """
    file = _file_of(Path(path))
    try:
        content = file.read_bytes()
        format, table = _parsed(file, content, heads, statistic)
    except BadInput:
        raise
    except Exception as error:  # what reading a broken file raises is up to five libraries
        raise BadInput(f"{file} holds no list of heads: {_reason(error)}") from None
    return with_origin(table, file, content, format)


def _file_of(path: Path) -> Path:
    """Return the file that is read: of a folder, the first of FILES."""
    if not path.exists():
        raise BadInput(f"no file {str(path)!r}; expected a list of heads or a run's folder")
    return _inside(path) if path.is_dir() else path


def _inside(folder: Path) -> Path:
    for name in FILES:
        if (folder / name).is_file():
            return folder / name
    raise BadInput(
        f"{folder} is a folder without any of {', '.join(FILES)}; expected a list of heads"
    )


def _reason(error: BaseException) -> str:
    """Return what was wrong, in words that fit behind a colon."""
    if isinstance(error, KeyError):
        return f"{error} is missing"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "it is neither text in UTF-8 nor a format that is known"
    return first_line(error)[:200]


def _parsed(path: Path, content: bytes, heads: int | None, statistic: str | None) -> Parsed:
    """Return the format of a file's contents, and the heads in it."""
    if content.startswith(NETCDF):
        return run_tables.from_netcdf(path, statistic)
    if statistic is not None:
        raise BadInput(f"--statistic is for runs of nnheads; {path.name} is no such file")
    if content.startswith(NUMPY):
        return lists.from_array(np.load(path, allow_pickle=False))
    if content.startswith(TORCH):
        return _from_torch(path)
    text = content.decode("utf-8").lstrip("\ufeff")
    if not text.strip():
        raise ValueError("it is empty")
    return _from_text(path, text, heads)


def _from_text(path: Path, text: str, heads: int | None) -> Parsed:
    """Read JSON, tuples as Python prints them, a QRHead configuration, or a table of gates."""
    if TUPLES.fullmatch(text):
        text = re.sub(r",\s*\]", "]", text.translate(str.maketrans("()", "[]")))
    if text.lstrip()[:1] in ("{", "["):
        return _from_json(path, lists.strict(text), heads)
    config = lists.from_config(text)
    if config is not None:
        return config
    if NUMBERS.fullmatch(text) and len(text.split()) > 1:
        return masks.from_table(text, _config_beside(path))
    raise ValueError(f"its format is not known; expected one of {', '.join(FORMATS)}")


def _config_beside(path: Path) -> dict | None:
    """Return DuoAttention's config.json beside a table of gates, if it is there."""
    config = path.with_name(masks.CONFIG)
    if path.name == masks.CONFIG or not config.is_file():
        return None
    content = lists.strict(config.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else None


def _from_json(path: Path, content: Any, heads: int | None) -> Parsed:
    if isinstance(content, list):
        return lists.from_sequence(content)
    if own_json.is_own(content):
        return "nnheads", own_json.from_own(content)
    if path.name == edits.NAME and "edits" in content:
        return edits.from_intervention(path.parent)
    if circuits.is_circuit(content):
        return circuits.from_circuit(content)
    if pyvene.is_config(content):
        return pyvene.from_folder(path.parent, content, heads)
    return lists.from_mapping(content)


def _from_torch(path: Path) -> Parsed:
    """Read tensors alone; anything else in the file is refused before it is built."""
    import pickle

    import torch

    try:
        with warnings.catch_warnings():
            # what torch thinks of another program's pickle says nothing to a reader
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError("it holds something else than a tensor, which is not run") from None
    return circuits.from_graph(content) if isinstance(content, dict) else lists.from_tensor(content)

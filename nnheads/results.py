"""One folder per run: labelled data, pictures, and enough about both to repeat and to trust them.

Files appear whole or not at all: each is written under a temporary name and renamed. `run.json` names the
command and its arguments; while `complete` is false the folder holds finished parts, and the same command
takes them up again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import xarray as xr

from nnheads import ledger
from nnheads.errors import BadInput, RunError, first_line
from nnheads.provenance import command, model_folder, plain

# Arguments that say where and how fast, but change no number.
INCIDENTAL = {"output", "overwrite", "quiet", "traceback", "batch_size", "submit"}
LONGEST_NAME = 60  # of the words in a folder's name; file systems end at 255


class Run:
    """A results folder: `results/<recipe>/<org--model>/<revision>[/<item>]`.

    Opening it decides what happens to what is there: a run of the same command is taken up where it stopped,
    one of another command is refused, and `overwrite` starts afresh.
    """

    def __init__(
        self, root: str | Path, recipe: str, model: str, revision: str, arguments: dict, *, item="", overwrite=False
    ):
        self.folder = Path(root) / recipe / model_folder(model) / revision.replace("/", "--") / item
        self.arguments = plain({key: value for key, value in sorted(arguments.items()) if key not in INCIDENTAL})
        self.recipe = recipe
        self.files: list[str] = []
        ledger.open_book()
        with writing(self.folder):
            if overwrite and self.folder.exists():
                shutil.rmtree(self.folder)
            self.folder.mkdir(parents=True, exist_ok=True)
            self._take_up()
        if not self.complete:
            ledger.open_book(self.parts, self.folder)

    def _take_up(self) -> None:
        record = self._record()
        if record is None:
            self._write_record(complete=False)
            return
        old, new = record["arguments"], self.arguments
        changed = ", ".join(
            f"{key} {old.get(key)!r} there, {new.get(key)!r} here"
            for key in sorted({*old, *new})
            if json.dumps(old.get(key)) != json.dumps(new.get(key))
        )
        if changed:
            raise BadInput(f"{self.folder} holds another run ({changed}); use --overwrite, or another --output")

    def _record(self) -> dict | None:
        path = self.folder / "run.json"
        if not path.exists():
            return None
        try:
            record = json.loads(path.read_bytes())
            sound = isinstance(record["arguments"], dict) and "complete" in record
        except (ValueError, KeyError, TypeError):
            sound = False
        if not sound:
            raise BadInput(f"{path} is not a record of a run; use --overwrite to start afresh")
        return record

    def _write_record(self, *, complete: bool, **more) -> None:
        record = {
            "recipe": self.recipe,
            "command": command(),
            "arguments": self.arguments,
            "complete": complete,
            **more,
        }
        text = json.dumps(record, indent=2, sort_keys=True) + "\n"
        write(self.folder / "run.json", lambda path: path.write_text(text))

    @property
    def complete(self) -> bool:
        """Whether the run was finished and all that it wrote is still there."""
        record = self._record()
        if record is None or not record["complete"]:
            return False
        return all((self.folder / name).is_file() for name in record.get("files", []))

    @property
    def parts(self) -> Path:
        """Where finished batches wait until the run is complete."""
        return self.folder / "parts"

    def save(self, **datasets: xr.Dataset) -> list[Path]:
        """Write each dataset to `<name>.nc`."""
        self.files += [f"{name}.nc" for name in datasets]
        sent = {f"remote_{name}": count for name, count in self.sent.items()}
        return [
            save(self.folder / f"{name}.nc", dataset.assign_attrs({**dataset.attrs, **sent}))
            for name, dataset in datasets.items()
        ]

    @property
    def sent(self) -> dict[str, int]:
        """Jobs that servers did for this run, and bytes to and fro; empty if there were none."""
        totals = ledger.book().totals
        return totals if totals["jobs"] else {}

    def picture(self, name: str, figure) -> Path:
        """Write a matplotlib figure to `<name>.png`."""
        self.files.append(f"{name}.png")
        from nnheads.plot import render

        return write(self.folder / f"{name}.png", lambda path: render(figure, path))

    def finish(self, **more) -> None:
        """Mark the run complete and drop its parts."""
        sent = {"remote": self.sent} if self.sent else {}
        self._write_record(complete=True, files=sorted(self.files), **more, **sent)
        shutil.rmtree(self.parts, ignore_errors=True)

    def load(self, name: str) -> xr.Dataset:
        return load(self.folder / f"{name}.nc")


def item_of(*texts: str) -> str:
    """A folder name for one text among many: its first words and a hash of all."""
    words = "-".join(re.findall(r"[a-z0-9]+", texts[0].lower())[:5])[:LONGEST_NAME]
    return f"{words}-{hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:6]}".lstrip("-")


def save(path: str | Path, dataset: xr.Dataset) -> Path:
    """Write a dataset as netCDF, whole or not at all."""
    copy = dataset.copy()
    copy.attrs = {key: netcdf_value(value) for key, value in dataset.attrs.items()}
    for name in copy.variables:
        if dataset[name].dtype == np.float16:
            copy[name] = copy[name].astype(np.float32)
        copy[name].attrs = {key: netcdf_value(value) for key, value in dataset[name].attrs.items()}
    encoding = {
        name: {"zlib": True} for name, values in copy.data_vars.items() if values.dtype.kind in "fiu" and values.ndim
    }
    return write(Path(path), lambda target: copy.to_netcdf(target, engine="netcdf4", encoding=encoding))


def load(path: str | Path) -> xr.Dataset:
    """Read a dataset into memory. Raises BadInput for a file that is missing or no netCDF."""
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"no file {str(path)!r}")
    try:
        with xr.open_dataset(path, engine="netcdf4") as dataset:
            return dataset.load()
    except (OSError, ValueError, RuntimeError) as error:
        raise BadInput(f"{path} cannot be read as netCDF: {first_line(error)}") from None


def netcdf_value(value):
    """netCDF knows strings, numbers of up to 64 bits and arrays of them: booleans become 0/1, the rest JSON."""
    if isinstance(value, (bool, np.bool_)):
        return int(value)
    if isinstance(value, np.float16):
        return float(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.ndarray):
        stored = {"b": np.int8, "e": np.float32}.get(value.dtype.char if value.dtype.kind == "f" else value.dtype.kind)
        value = value if stored is None else value.astype(stored)
        return value if value.dtype.kind in "iuf" else json.dumps(value.tolist(), default=str)
    if isinstance(value, (str, float, np.number)) or (isinstance(value, int) and -(2**63) <= value < 2**63):
        return value
    return json.dumps(value, default=str)


def write(path: Path, writer: Callable[[Path], object]) -> Path:
    """Call `writer` on a temporary name beside `path`, then rename. Nothing half-written is left."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        try:
            writer(Path(name))
            Path(name).chmod(0o666 & ~_umask())
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one line why something could not be written."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if isinstance(error, (BadInput, RunError)):
            raise
        reason = getattr(error, "strerror", None) or first_line(error)
        raise RunError(f"cannot write {path}: {reason}; what was finished before is kept") from error

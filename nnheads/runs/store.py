"""Write files whole or not at all, and read datasets back.

    save("heads.nc", heads)
    heads = load("heads.nc")

Each file is written under a temporary name beside its own and renamed. What cannot be written is a
RunError, what cannot be read is BadInput.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import xarray as xr

from nnheads.errors import BadInput, RunError, first_line, no_file
from nnheads.runs.coordinates import labelled

PART = "nnheads_part"  # the attribute that says of which work a part is the result
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PACKED = 1 << 12  # bytes of a variable from which packing saves more than its own tables take
PROBE = 1 << 20  # bytes
LARGE = 1 << 30  # bytes in memory from which a file is looked at twice
MOST_PACKED = 1000  # times as large in memory as on the disk


def save(path: str | Path, dataset: xr.Dataset) -> Path:
    """Write a dataset as netCDF, whole or not at all; its coordinates say what they are."""
    return write(Path(path), netcdf_writer(labelled(dataset)))


def netcdf_writer(dataset: xr.Dataset) -> Callable[[Path], None]:
    """Return what writes a dataset into a file, in forms that netCDF has."""
    copy = dataset.copy()
    copy.attrs = {key: netcdf_value(value) for key, value in dataset.attrs.items()}
    for name in copy.variables:
        if dataset[name].dtype == np.float16:
            copy[name] = copy[name].astype(np.float32)
        copy[name].attrs = {key: netcdf_value(value) for key, value in dataset[name].attrs.items()}
    encoding = {
        name: {"zlib": True}
        for name, values in copy.data_vars.items()
        if values.dtype.kind in "fiu" and values.nbytes >= PACKED
    }

    def writer(target: Path) -> None:
        copy.to_netcdf(target, engine="netcdf4", encoding=encoding)

    return writer


def keep(path: Path, dataset: xr.Dataset, key: str) -> None:
    """Write a part of a run, and beside it of which work it is the result, with a hash.

    Where the part is, its hash is: that is written first.
    """
    writer = netcdf_writer(dataset.assign_attrs({**dataset.attrs, PART: key}))

    def with_hash(target: Path) -> None:
        writer(target)
        text = json.dumps({"key": key, "sha256": file_hash(target)})
        write(_beside(path), lambda place: place.write_text(text))

    write(path, with_hash)


def kept(path: Path, key: str) -> xr.Dataset | None:
    """Return a part of a run; None where there is none, or it is not what was written for `key`."""
    try:
        record = json.loads(_beside(path).read_bytes())
        sound = record["key"] == key and record["sha256"] == file_hash(path)
        found = load(path) if sound else None
        return found if found is not None and found.attrs.pop(PART, "") == key else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError, BadInput):
        return None


def _beside(path: Path) -> Path:
    return path.with_suffix(".json")


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load(path: str | Path) -> xr.Dataset:
    """Read a dataset into memory. Raises BadInput for a file that is missing or no netCDF."""
    path = Path(path)
    if not path.is_file():
        raise BadInput(no_file(path))
    try:
        with xr.open_dataset(path, engine="netcdf4") as dataset:
            _check_size(path, dataset.nbytes)
            return dataset.load()
    except (OSError, ValueError, RuntimeError) as error:
        raise BadInput(f"{path} cannot be read as netCDF: {first_line(error)}") from None


def _check_size(path: Path, size: int) -> None:
    """Refuse a file that would fill the memory: a few kilobytes may claim to be gigabytes."""
    if size > LARGE and size > MOST_PACKED * path.stat().st_size:
        raise BadInput(
            f"{path} of {path.stat().st_size:,} bytes would take {size / 2**30:.1f} GiB of memory;"
            " no run writes such files"
        )


def netcdf_value(value):
    """Return what netCDF can hold of a value: strings, numbers of up to 64 bits and arrays of them;
    booleans become 0/1, the rest JSON.
    """
    if isinstance(value, (bool, np.bool_)):
        return int(value)
    if isinstance(value, np.float16):
        return float(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.ndarray):
        stored = {"b": np.int8, "e": np.float32}.get(
            value.dtype.char if value.dtype.kind == "f" else value.dtype.kind
        )
        value = value if stored is None else value.astype(stored)
        return value if value.dtype.kind in "iuf" else json.dumps(value.tolist(), default=str)
    if isinstance(value, (str, float, np.number)) or (
        isinstance(value, int) and -(2**63) <= value < 2**63
    ):
        return value
    return json.dumps(value, default=str)


def write(path: Path, writer: Callable[[Path], object]) -> Path:
    """Call `writer` on a temporary name beside `path`, then rename.

    Nothing half-written is left.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent
        )
        os.close(handle)
        try:
            writer(Path(name))
            Path(name).chmod(0o666 & ~_umask())
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)
    return path


def _full(path: Path) -> str:
    """Return why nothing more can be written beside a path; "" if something can.

    netCDF says "HDF error" or "Permission denied" of a full disk.
    """
    folder = next((one for one in path.parents if one.is_dir()), None)
    if folder is None:
        return ""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(PROBE))
            file.flush()
    except OSError as error:
        return os.strerror(error.errno or 0) if error.errno in FULL else ""
    return ""


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def check_writable(folder: Path) -> None:
    """Raise OSError where nothing can be written, before anything is computed; leave no trace."""
    new = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    finally:
        for one in new:
            with contextlib.suppress(OSError):  # somebody else has written there meanwhile
                one.rmdir()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one line why something could not be written."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if isinstance(error, (BadInput, RunError)):
            raise
        reason = _full(path) or getattr(error, "strerror", None) or first_line(error)
        raise RunError(
            f"cannot write {path}: {reason}; what was finished before is kept"
        ) from error

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
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np
import xarray as xr

from nnheads.errors import BadInput, RunError

PACKAGES = ("nnheads", "nnsight", "torch", "transformers", "xarray", "numpy", "scipy")
# Arguments that say where and how fast, but change no number.
INCIDENTAL = {"output", "overwrite", "quiet", "traceback", "batch_size"}


class Run:
    """A results folder: `results/<recipe>/<org--model>/<revision>[/<item>]`.

    Opening it decides what happens to what is there: a run of the same command is taken up where it stopped,
    one of another command is refused, and `overwrite` starts afresh.
    """

    def __init__(
        self, root: str | Path, recipe: str, model: str, revision: str, arguments: dict, *, item="", overwrite=False
    ):
        self.folder = Path(root) / recipe / model_folder(model) / revision.replace("/", "--") / item
        self.arguments = {key: value for key, value in sorted(arguments.items()) if key not in INCIDENTAL}
        self.recipe = recipe
        with writing(self.folder):
            if overwrite and self.folder.exists():
                shutil.rmtree(self.folder)
            self.folder.mkdir(parents=True, exist_ok=True)
            self._take_up()

    def _take_up(self) -> None:
        record = self._record()
        if record is not None and record["arguments"] != json.loads(json.dumps(self.arguments)):
            old, new = record["arguments"], self.arguments
            changed = ", ".join(
                f"{key} {old.get(key)!r} there, {new.get(key)!r} here"
                for key in sorted({*old, *new})
                if old.get(key) != json.loads(json.dumps(new.get(key)))
            )
            raise BadInput(f"{self.folder} holds another run ({changed}); use --overwrite, or another --output")
        if record is None:
            self._write_record(complete=False)

    def _record(self) -> dict | None:
        path = self.folder / "run.json"
        if not path.exists():
            return None
        try:
            record = json.loads(path.read_text())
            record["arguments"], record["complete"]
        except (json.JSONDecodeError, KeyError, TypeError):
            raise BadInput(f"{path} is not a record of a run; use --overwrite to start afresh") from None
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
        record = self._record()
        return bool(record and record["complete"])

    @property
    def parts(self) -> Path:
        """Where finished batches wait until the run is complete."""
        return self.folder / "parts"

    def save(self, **datasets: xr.Dataset) -> list[Path]:
        """Write each dataset to `<name>.nc`."""
        return [save(self.folder / f"{name}.nc", dataset) for name, dataset in datasets.items()]

    def picture(self, name: str, figure) -> Path:
        """Write a matplotlib figure to `<name>.png`."""
        return write(self.folder / f"{name}.png", lambda path: figure.savefig(path, dpi=144, bbox_inches="tight"))

    def finish(self, **more) -> None:
        """Mark the run complete and drop its parts."""
        self._write_record(complete=True, **more)
        shutil.rmtree(self.parts, ignore_errors=True)

    def load(self, name: str) -> xr.Dataset:
        return load(self.folder / f"{name}.nc")


def model_folder(model: str) -> str:
    """`owner/name` -> `owner--name`; a local folder -> its name."""
    path = Path(model).expanduser()
    return path.resolve().name if path.is_dir() else model.replace("/", "--")


def item_of(*texts: str) -> str:
    """A folder name for one text among many: its first words and a hash of all."""
    words = "-".join(re.findall(r"[a-z0-9]+", texts[0].lower())[:5])
    return f"{words}-{hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:6]}".lstrip("-")


def save(path: str | Path, dataset: xr.Dataset) -> Path:
    """Write a dataset as netCDF, whole or not at all."""
    plain = dataset.copy()
    plain.attrs = {key: netcdf_value(value) for key, value in dataset.attrs.items()}
    for name in plain.variables:
        plain[name].attrs = {key: netcdf_value(value) for key, value in dataset[name].attrs.items()}
    encoding = {
        name: {"zlib": True} for name, values in plain.data_vars.items() if values.dtype.kind in "fiu" and values.ndim
    }
    return write(Path(path), lambda target: plain.to_netcdf(target, engine="netcdf4", encoding=encoding))


def load(path: str | Path) -> xr.Dataset:
    """Read a dataset into memory. Raises BadInput for a file that is missing or no netCDF."""
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"no file {str(path)!r}")
    try:
        with xr.open_dataset(path, engine="netcdf4") as dataset:
            return dataset.load()
    except (OSError, ValueError, RuntimeError) as error:
        raise BadInput(f"{path} cannot be read as netCDF: {error}") from None


def netcdf_value(value):
    """netCDF knows strings, numbers and arrays of them: booleans become 0/1, the rest JSON."""
    if isinstance(value, (bool, np.bool_)):
        return int(value)
    if isinstance(value, (str, int, float, np.number, np.ndarray)):
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
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise RunError(f"cannot write {path}: {reason}; what was finished before is kept") from error


def provenance(
    *, title: str, model, name: str, prompts: xr.Dataset, arguments: dict, references: str, sample_dims="batch"
) -> dict:
    """Global attributes that let a reader repeat a result: who, what, with which weights, when and how."""
    identity = model_identity(model, name)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    commit, dirty = git_state()
    return {
        "Conventions": "CF-1.11",
        "title": title,
        "source": json.dumps(identity),
        "model": identity["model"],
        "revision": identity["revision"],
        "references": references,
        "history": f"{now} {command()}",
        "arguments": json.dumps(arguments, default=str, sort_keys=True),
        "packages": json.dumps(versions()),
        "tokenizer_sha256": tokenizer_hash(model.tokenizer),
        "prompts_sha256": prompts_hash(prompts),
        "seed": int(arguments.get("seed") or 0),
        "git_commit": commit,
        "git_dirty": dirty,
        "sample_dims": sample_dims,
    }


def model_identity(model, name: str) -> dict:
    """Model id, commit or fingerprint of a local folder, dtype and attention implementation."""
    from nnheads.model import REFERENCE

    config = model.config
    folder = Path(getattr(model, "repo_id", None) or "")
    local = folder.is_dir() and str(folder) != "."
    return {
        "model": name if name == REFERENCE else model_folder(name),
        "revision": revision_of(model, name),
        "commit": getattr(config, "_commit_hash", None) or (folder_fingerprint(folder) if local else ""),
        "dtype": str(getattr(config, "dtype", "")).replace("torch.", ""),
        "attention": getattr(config, "_attn_implementation", ""),
    }


def revision_of(model, name: str) -> str:
    """What stands for the revision in a results path: the one asked for, `main`, or `local` for a folder."""
    from nnheads.model import REFERENCE

    if name == REFERENCE:
        return "shipped"
    return getattr(model, "revision", None) or ("local" if Path(name).expanduser().is_dir() else "main")


def folder_fingerprint(folder: Path) -> str:
    """sha256 over the config and the size and ends of each weight file: cheap, and different weights differ."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in {".json", ".safetensors", ".bin"} and path.is_file():
            digest.update(f"{path.name} {path.stat().st_size}".encode())
            with path.open("rb") as file:
                digest.update(file.read(1 << 20))
                file.seek(max(0, path.stat().st_size - (1 << 20)))
                digest.update(file.read())
    return f"sha256:{digest.hexdigest()}"


def tokenizer_hash(tokenizer) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def prompts_hash(prompts: xr.Dataset) -> str:
    """sha256 over every integer variable: tokens, masks, answers, spans."""
    digest = hashlib.sha256()
    for name in sorted(map(str, prompts.data_vars)):
        digest.update(name.encode() + np.ascontiguousarray(prompts[name].values.astype(np.int64)).tobytes())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def command() -> str:
    """The command line that runs now, without the folder of the program."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def git_state() -> tuple[str, int]:
    """Commit of the nnheads checkout and whether it has changes; ("", 0) for an installed package."""
    folder = Path(__file__).parent
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=5)
        status = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=5,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "", 0
    return (commit.stdout.strip(), int(bool(status.stdout.strip()))) if commit.returncode == 0 else ("", 0)

"""Interventions on disk and on the Hub: one JSON file that a person can read, and one of tensors.

Loading never runs anything that a file names. Functions of one's own are kept as an import path and a hash of their
source; they are imported only if the user allows it, and refused if the source has changed since.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import inspect
import json
from pathlib import Path

import torch

from nnheads.errors import BadInput, first_line
from nnheads.interventions.schema import OPERATIONS, At, Edit, Function, Intervention
from nnheads.results import write, writing

FORMAT, VERSION = "nnheads intervention", 1
JSON_NAME, TENSORS_NAME = "intervention.json", "tensors.safetensors"


def save(intervention: Intervention, folder: str | Path, *, model: str = "") -> Path:
    """Write an intervention to a folder, each file whole or not at all.

    Args:
        model: what it was made for, kept as a note for readers.

    Raises:
        BadInput: a function that cannot be found again by its path. RunError: a place that cannot be written.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    edits = [_plain(edit) for edit in intervention.edits]
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in intervention.tensors.items()}
    shapes = {name: {"shape": list(tensor.shape), "dtype": str(tensor.dtype)} for name, tensor in tensors.items()}
    record = {
        "format": FORMAT, "version": VERSION, "model": model, "mode": intervention.mode, "edits": edits,
        "tensors": shapes,
    }  # fmt: skip
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    # the tensors first: a folder without its JSON is no intervention, and never half of one
    write(folder / TENSORS_NAME, lambda path: save_file(tensors, path))
    write(folder / JSON_NAME, lambda path: path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8"))
    return folder


def load(source: str | Path, *, revision: str | None = None, trust: bool = False) -> Intervention:
    """Read an intervention from a folder or a Hub id.

    Args:
        trust: import the functions that it names, if their source is still what it was.

    Raises:
        BadInput: one line that says what is wrong: no such place, not JSON, a newer version, tensors that are missing
            or of another shape, an unknown operation, functions that are not trusted or have changed.
    """
    folder = _fetched(str(source), revision)
    record = _record(folder / JSON_NAME)
    tensors = _tensors(folder / TENSORS_NAME, record["tensors"])
    edits = [_edit(folder / JSON_NAME, number, entry) for number, entry in enumerate(record["edits"])]
    check_functions(edits, trust)
    return Intervention(*edits, tensors=tensors, mode=record["mode"])


def push(source: Intervention | str | Path, repository: str, *, private: bool = False) -> str:
    """Upload an intervention, or a folder that holds one, to the Hub; the address it has there. The token is
    huggingface_hub's own (`HF_TOKEN`, or `hf auth login`)."""
    import tempfile

    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    with tempfile.TemporaryDirectory() as place:
        folder = save(source, place) if isinstance(source, Intervention) else Path(source)
        load(folder, trust=True)  # what cannot be read is not shared
        try:
            HfApi().create_repo(repository, private=private, exist_ok=True)
            found = HfApi().upload_folder(
                repo_id=repository, folder_path=folder, allow_patterns=[JSON_NAME, TENSORS_NAME]
            )
        except (HfHubHTTPError, OSError, ValueError) as error:
            raise BadInput(f"cannot push to {repository!r}: {first_line(error)}") from None
    return str(found)


def _fetched(source: str, revision: str | None) -> Path:
    """The folder itself, or a copy of the Hub's."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        if not (folder / JSON_NAME).is_file():
            raise BadInput(f"{source} is a folder without {JSON_NAME}; expected one that `save` wrote")
        return folder
    if source.startswith((".", "/", "~")) or source.count("/") != 1:
        raise BadInput(f"no folder {source!r}; expected a folder or a Hub id (owner/name)")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=[JSON_NAME, TENSORS_NAME]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise BadInput(f"cannot load {source!r} from the Hub: {first_line(error)}") from None


def _record(path: Path) -> dict:
    """The JSON file, checked for its frame."""
    if not path.is_file():
        raise BadInput(f"no file {str(path)!r}")
    try:
        record = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not JSON: {first_line(error)}") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise BadInput(f"{path} is no intervention of nnheads: its format is not {FORMAT!r}")
    version = record.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise BadInput(f"{path} has version {version!r}; this nnheads reads up to {VERSION}: update it")
    for name, kind in (("edits", list), ("tensors", dict), ("mode", str)):
        if not isinstance(record.get(name), kind):
            raise BadInput(f"{path}: {name!r} is missing or no {kind.__name__}")
    return record


def _tensors(path: Path, wanted: dict) -> dict[str, torch.Tensor]:
    """The tensors that the JSON names, of the shapes that it says. safetensors holds numbers and nothing that runs."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not wanted and not path.is_file():
        return {}
    if not path.is_file():
        raise BadInput(f"no file {str(path)!r}; it should hold {', '.join(wanted)}")
    try:
        found = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read as safetensors: {first_line(error)}") from None
    for name, about in wanted.items():
        shape = about.get("shape") if isinstance(about, dict) else None
        if name not in found or list(found[name].shape) != shape:
            got = list(found[name].shape) if name in found else "none"
            raise BadInput(f"{path}: tensor {name!r} should have shape {shape}, found {got}")
    return {name: found[name] for name in wanted}


def _plain(edit: Edit) -> dict:
    """An edit as JSON: only what differs from the defaults."""
    do = {"name": edit.do.name}
    for entry in dataclasses.fields(edit.do):
        value = getattr(edit.do, entry.name)
        do[entry.name] = _at(value) if isinstance(value, At) else value
    if isinstance(edit.do, Function):
        do["sha256"] = source_hash(edit.do.function)
    plain = {"site": edit.site, "layer": edit.layer, "path": edit.path, "units": edit.units, "neurons": edit.neurons}
    return {**{name: value for name, value in plain.items() if value is not None}, "at": _at(edit.at), "do": do}


def _at(at: At) -> list:
    return [at.kind, *at.values]


def _edit(path: Path, number: int, entry) -> Edit:
    """An edit from JSON; the schema checks what it says."""
    try:
        do = dict(entry["do"])
        kind = OPERATIONS[do.pop("name")]
        for name, value in do.items():
            do[name] = _value(kind, name, value)
        options = {name: _value(Edit, name, value) for name, value in entry.items() if name != "do"}
        return Edit(do=kind(**do), **options)
    except BadInput as error:
        raise BadInput(f"{path}, edit {number}: {error}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{path}, edit {number} cannot be read: {type(error).__name__} {first_line(error)}") from None


def _value(kind: type, name: str, value):
    """JSON has lists where the schema has positions and tuples."""
    if name in ("at", "source_at") and value is not None:
        return At(value[0], tuple(value[1:]))
    if isinstance(value, list):
        if not all(isinstance(item, int) for item in value):
            raise ValueError(f"{name} holds something else than whole numbers")
        return tuple(value)
    wanted = {entry.name: str(entry.type) for entry in dataclasses.fields(kind)}.get(name, "")
    allowed = {"int": (int,), "float": (int, float), "str": (str,)}
    types = tuple(one for key, own in allowed.items() if key in wanted for one in own)
    if value is not None and types and not isinstance(value, types):
        raise ValueError(f"{name} is {value!r}, expected {wanted}")
    return value


def source_hash(function: str) -> str:
    """SHA-256 of a function's source. Imports its module: only for functions of one's own, or trusted ones."""
    module, _, name = function.partition(":")
    try:
        source = inspect.getsource(getattr(importlib.import_module(module), name))
    except (ImportError, AttributeError, TypeError, OSError, ValueError) as error:
        raise BadInput(f"function {function!r} cannot be found by its path: {first_line(error)}") from None
    return hashlib.sha256(source.encode()).hexdigest()


def check_functions(edits: list[Edit], trust: bool) -> None:
    """Refuse functions that are not trusted, or not what they were when they were saved."""
    for edit in edits:
        if not isinstance(edit.do, Function):
            continue
        if not trust:
            raise BadInput(f"it runs your function {edit.do.function!r}; load with trust=True if you trust its author")
        if source_hash(edit.do.function) != edit.do.sha256:
            raise BadInput(f"function {edit.do.function!r} is not the one that was saved: its source has changed")

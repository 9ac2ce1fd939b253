"""Interventions on disk and on the Hub: one JSON file that a person can read, and one of tensors.

    save(intervention, "folder")
    load("folder"), load("owner/name")

Loading never runs anything that a file names. Functions of one's own are kept as an import path and
a hash of their source; they are imported only if the user allows it, and refused if the source has
changed since. A file that is not what it should be raises BadInput.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from nnheads.errors import BadInput, first_line
from nnheads.interventions.functions import check_functions
from nnheads.interventions.json_edits import from_json, to_json
from nnheads.interventions.schema import Intervention
from nnheads.runs.store import write, writing

FORMAT, VERSION = "nnheads intervention", 1
JSON_NAME, TENSORS_NAME = "intervention.json", "tensors.safetensors"


def save(intervention: Intervention, folder: str | Path, *, model: str = "") -> Path:
    """Write an intervention to a folder, each file whole or not at all.

    Args:
        folder: made if it is not there.
        model: what it was made for, kept as a note for readers.

    Returns:
        The folder.

    Raises:
        BadInput: a function that cannot be found again by its path.
        RunError: a folder that cannot be written.

    Example:
        >>> import tempfile
        >>> from nnheads.interventions import Edit, Intervention, Zero, load, save
        >>> silent = Intervention(Edit("z", Zero(), layer=1, units=(2,)))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     load(save(silent, folder)) == silent
        True
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    if "__metadata__" in intervention.tensors:
        raise BadInput("a tensor cannot be named '__metadata__' in a file; give it another name")
    tensors = _copies(intervention.tensors)
    text = json.dumps(_content(intervention, model, tensors), indent=1) + "\n"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    # the tensors first: a folder without its JSON is no intervention, and never half of one
    write(folder / TENSORS_NAME, lambda path: save_file(tensors, path))
    write(folder / JSON_NAME, lambda path: path.write_text(text, encoding="utf-8"))
    return folder


def _content(
    intervention: Intervention, model: str, tensors: Mapping[str, torch.Tensor]
) -> dict[str, Any]:
    """Return what the JSON of an intervention says."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "model": model,
        "mode": intervention.mode,
        "edits": [to_json(edit) for edit in intervention.edits],
        "tensors": {name: _about(tensor) for name, tensor in tensors.items()},
    }


def _copies(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return copies, because safetensors refuses tensors that share memory."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }


def _about(tensor: torch.Tensor) -> dict[str, Any]:
    return {"shape": list(tensor.shape), "dtype": str(tensor.dtype)}


def load(source: str | Path, *, revision: str | None = None, trust: bool = False) -> Intervention:
    """Read an intervention from a folder or a Hub id.

    Args:
        source: a folder, or owner/name on the Hub. revision: on the Hub.
        trust: import the functions that it names, if their source is still what it was.

    Returns:
        The intervention, its tensors on the processor.

    Raises:
        BadInput: one line that says what is wrong: no such folder, not JSON, a newer version,
            tensors that are missing or of another shape, an unknown operation, functions that are
            not trusted or have changed.

    Example:
        >>> import tempfile
        >>> from nnheads.interventions import Edit, Intervention, Zero, load, save
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     saved = save(Intervention(Edit("mlp_out", Zero(), layer=0)), folder)
        ...     load(saved).edits[0].site
        'mlp_out'
    """
    folder = fetched(str(source), revision, [JSON_NAME, TENSORS_NAME])
    file = folder / JSON_NAME
    record = _record(file)
    tensors = _tensors(folder / TENSORS_NAME, record["tensors"])
    edits = [from_json(file, number, entry) for number, entry in enumerate(record["edits"])]
    check_functions(edits, trust)
    try:
        return Intervention(*edits, tensors=tensors, mode=record["mode"])
    except BadInput as error:
        raise BadInput(f"{file}: {error}") from None


def push(source: Intervention | str | Path, repository: str, *, private: bool = False) -> str:
    """Upload an intervention, or a folder that holds one, to the Hub; return its address there.

    The token is huggingface_hub's own (`HF_TOKEN`, or `hf auth login`).

    Args:
        repository: owner/name; made if it is not there, `private` or not.

    Raises:
        BadInput: what `load` refuses, and what the Hub refuses.
    """
    import tempfile

    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    with tempfile.TemporaryDirectory() as new:
        folder = save(source, new) if isinstance(source, Intervention) else Path(source)
        load(folder, trust=True)  # what cannot be read is not shared
        try:
            HfApi().create_repo(repository, private=private, exist_ok=True)
            address = HfApi().upload_folder(
                repo_id=repository, folder_path=folder, allow_patterns=[JSON_NAME, TENSORS_NAME]
            )
        except (HfHubHTTPError, OSError, ValueError) as error:
            raise BadInput(f"cannot push to {repository!r}: {first_line(error)}") from None
    return str(address)


def fetched(source: str, revision: str | None, patterns: list[str]) -> Path:
    """Return a folder itself, or a copy of the Hub's.

    Args:
        patterns: of file names; the first is the one that must be there.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        if not (folder / patterns[0]).is_file():
            raise BadInput(
                f"{source} is a folder without {patterns[0]}; expected a saved intervention"
            )
        return folder
    if source.startswith((".", "/", "~")) or source.count("/") != 1:
        raise BadInput(f"no folder {source!r}; expected a folder or a Hub id (owner/name)")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise BadInput(f"cannot load {source!r} from the Hub: {first_line(error)}") from None


def read_json(path: Path) -> Any:
    """Return what a JSON file holds."""
    if not path.is_file():
        raise BadInput(f"no file {str(path)!r}")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not JSON: {first_line(error)}") from None


def _record(path: Path) -> dict[str, Any]:
    """Return the JSON file's record, checked for its frame."""
    record = read_json(path)
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise BadInput(f"{path} is no intervention of nnheads: its format is not {FORMAT!r}")
    version = record.get("version")
    if not isinstance(version, int) or not 1 <= version <= VERSION:
        raise BadInput(
            f"{path} has version {version!r}; this nnheads reads 1 to {VERSION}: update it"
        )
    for name, kind in (("edits", list), ("tensors", dict), ("mode", str)):
        if not isinstance(record.get(name), kind):
            raise BadInput(f"{path}: {name!r} is missing or no {kind.__name__}")
    return record


def _tensors(path: Path, wanted: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return the tensors that the JSON names, of the shapes that it says.

    safetensors holds numbers and nothing that runs.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        if not wanted:
            return {}
        raise BadInput(f"no file {str(path)!r}; it should hold {', '.join(wanted)}")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read as safetensors: {first_line(error)}") from None
    for name, about in wanted.items():
        shape = about.get("shape") if isinstance(about, dict) else None
        _check_shape(path, name, tensors.get(name), shape)
    return {name: tensors[name] for name in wanted}


def _check_shape(path: Path, name: str, tensor: torch.Tensor | None, shape: Any) -> None:
    got = "none" if tensor is None else list(tensor.shape)
    if tensor is None or got != shape:
        raise BadInput(f"{path}: tensor {name!r} should have shape {shape}, found {got}")

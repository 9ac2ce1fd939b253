"""Interventions on disk and on the Hub: one JSON file that a person can read, and one of tensors.

Loading never runs anything that a file names. Functions of one's own are kept as an import path and
a hash of their source; they are imported only if the user allows it, and refused if the source has
changed since.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import torch

from nnheads.errors import BadInput, first_line
from nnheads.interventions.schema import OPERATIONS, At, Combine, Edit, Function, Intervention
from nnheads.runs.store import write, writing

FORMAT, VERSION = "nnheads intervention", 1
JSON_NAME, TENSORS_NAME = "intervention.json", "tensors.safetensors"


def save(intervention: Intervention, folder: str | Path, *, model: str = "") -> Path:
    """Write an intervention to a folder, each file whole or not at all.

    Args:
        model: what it was made for, kept as a note for readers.

    Raises:
        BadInput: a function that cannot be found again by its path. RunError: a place that cannot
            be written.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    edits = [_plain(edit) for edit in intervention.edits]
    if "__metadata__" in intervention.tensors:
        raise BadInput("a tensor cannot be named '__metadata__' in a file; give it another name")
    # copies, because safetensors refuses tensors that share memory
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in intervention.tensors.items()
    }
    shapes = {
        name: {"shape": list(tensor.shape), "dtype": str(tensor.dtype)}
        for name, tensor in tensors.items()
    }
    record = {
        "format": FORMAT,
        "version": VERSION,
        "model": model,
        "mode": intervention.mode,
        "edits": edits,
        "tensors": shapes,
    }
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    # the tensors first: a folder without its JSON is no intervention, and never half of one
    write(folder / TENSORS_NAME, lambda path: save_file(tensors, path))
    write(
        folder / JSON_NAME,
        lambda path: path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8"),
    )
    return folder


def load(source: str | Path, *, revision: str | None = None, trust: bool = False) -> Intervention:
    """Read an intervention from a folder or a Hub id.

    Args:
        trust: import the functions that it names, if their source is still what it was.

    Raises:
        BadInput: one line that says what is wrong: no such place, not JSON, a newer version,
            tensors that are missing or of another shape, an unknown operation, functions that are
            not trusted or have changed.
    """
    folder = fetched(str(source), revision, [JSON_NAME, TENSORS_NAME])
    record = _record(folder / JSON_NAME)
    tensors = _tensors(folder / TENSORS_NAME, record["tensors"])
    edits = [
        _edit(folder / JSON_NAME, number, entry) for number, entry in enumerate(record["edits"])
    ]
    check_functions(edits, trust)
    try:
        return Intervention(*edits, tensors=tensors, mode=record["mode"])
    except BadInput as error:
        raise BadInput(f"{folder / JSON_NAME}: {error}") from None


def push(source: Intervention | str | Path, repository: str, *, private: bool = False) -> str:
    """Upload an intervention, or a folder that holds one, to the Hub; the address it has there. The
    token is huggingface_hub's own (`HF_TOKEN`, or `hf auth login`)."""
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


def fetched(source: str, revision: str | None, patterns: list[str]) -> Path:
    """A folder itself, or a copy of the Hub's.

    The first of the file patterns is the one that must be there.
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


def read_json(path: Path):
    """What a JSON file holds."""
    if not path.is_file():
        raise BadInput(f"no file {str(path)!r}")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not JSON: {first_line(error)}") from None


def _record(path: Path) -> dict:
    """The JSON file, checked for its frame."""
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


def _tensors(path: Path, wanted: dict) -> dict[str, torch.Tensor]:
    """The tensors that the JSON names, of the shapes that it says.

    safetensors holds numbers and nothing that runs.
    """
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
    do: dict = {"name": edit.do.name}
    for entry in dataclasses.fields(edit.do):
        value = getattr(edit.do, entry.name)
        do[entry.name] = _at(value) if isinstance(value, At) else value
    if isinstance(edit.do, (Function, Combine)):
        do["function"] = path_of(edit.do.function)
        do["sha256"] = source_hash(do["function"])
    plain = {
        "site": edit.site,
        "layer": edit.layer,
        "path": edit.path,
        "units": edit.units,
        "neurons": edit.neurons,
    }
    return {
        **{name: value for name, value in plain.items() if value is not None},
        "at": _at(edit.at),
        "do": do,
    }


def _at(at: At) -> list:
    return [at.kind, *at.values]


def _edit(path: Path, number: int, entry) -> Edit:
    """An edit from JSON; the schema checks what it says."""
    try:
        do = {name: _value(name, value) for name, value in entry["do"].items()}
        kind = do.pop("name")
        if kind not in OPERATIONS:
            raise BadInput(f"operation {kind!r} is not known; use one of {', '.join(OPERATIONS)}")
        options: dict = {name: _value(name, value) for name, value in entry.items() if name != "do"}
        return Edit(do=OPERATIONS[kind](**do), **options)
    except BadInput as error:
        raise BadInput(f"{path}, edit {number}: {error}") from None
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise BadInput(
            f"{path}, edit {number} cannot be read: {type(error).__name__} {first_line(error)}"
        ) from None


def _value(name: str, value):
    """JSON has lists where the schema has positions and tuples."""
    if name in ("at", "source_at") and value is not None:
        return At(value[0], tuple(value[1:]))
    return tuple(value) if isinstance(value, list) else value


def path_of(function: str | Callable) -> str:
    """The import path of a function. Raises BadInput for one that nobody else could import."""
    if isinstance(function, str):
        return function
    path = f"{getattr(function, '__module__', None)}:{getattr(function, '__qualname__', None)}"
    if "<" in path or path.startswith(("__main__", "None")):
        raise BadInput(
            f"{path} cannot be saved: put the function in a module of its own and name it"
            " 'module:function'"
        )
    return path


def source_hash(function: str) -> str:
    """SHA-256 of a function's source, `package.module:name`, read from its file: the module is not
    run.
    """
    module, _, name = function.partition(":")
    try:
        spec = importlib.util.find_spec(module)
        if spec is None or not spec.origin or not spec.origin.endswith(".py"):
            raise ImportError(f"no source file for module {module!r}")
        text = Path(spec.origin).read_text(encoding="utf-8")
        segment = _source(text, name.split("."))
    except (ImportError, AttributeError, OSError, ValueError, SyntaxError) as error:
        raise BadInput(
            f"function {function!r} cannot be found by its path: {first_line(error)}"
        ) from None
    return hashlib.sha256(segment.encode()).hexdigest()


def _source(text: str, names: list[str]) -> str:
    """The source of a function, or of the assignment of one, inside a module's text; its decorators
    belong to it.
    """
    node: ast.AST = ast.parse(text)
    for name in names:
        own = [
            one
            for one in getattr(node, "body", [])
            if getattr(one, "name", None) == name
            or (
                isinstance(one, ast.Assign)
                and any(getattr(target, "id", None) == name for target in one.targets)
            )
        ]
        if not own:
            raise AttributeError(f"no {name!r} in its source")
        node = own[-1]
    marks = [node, *getattr(node, "decorator_list", [])]
    first = min(mark.lineno for mark in marks)  # type: ignore[attr-defined]
    return "\n".join(text.splitlines()[first - 1 : node.end_lineno])  # type: ignore[attr-defined]


def check_functions(edits: list[Edit], trust: bool) -> None:
    """Refuse functions that are not trusted, or not what they were when they were saved."""
    for edit in edits:
        if not isinstance(edit.do, (Function, Combine)):
            continue
        if not trust:
            raise BadInput(
                f"it runs your function {edit.do.function!r}; load with trust=True if you trust its"
                " author"
            )
        if source_hash(str(edit.do.function)) != edit.do.sha256:
            raise BadInput(
                f"function {edit.do.function!r} is not the one that was saved: its source has"
                " changed"
            )

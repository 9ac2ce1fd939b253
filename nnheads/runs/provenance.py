"""Who made a result: model and weights, prompts, arguments, packages and commit, so that it can be
repeated.

What is recorded names no folder of the machine that it ran on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np
import xarray as xr

from nnheads.errors import redacted
from nnheads.models.gguf import PACKAGE, SMOLLM2, origin
from nnheads.models.shipped import REFERENCE

PACKAGES = ("nnheads", "nnsight", "torch", "transformers", "xarray", "numpy", "scipy")
STRIDE = 1 << 20  # a weight file is sampled once in every so many bytes ...
WHOLE = 1 << 26  # ... and read whole up to this size


def provenance(
    *,
    title: str,
    model,
    name: str,
    prompts: xr.Dataset | str,
    arguments: dict,
    references: str,
    sample_dims="batch",
) -> dict:
    """Return global attributes that let a reader repeat a result: who, what, with which weights,
    when and how.
    """
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
        "arguments": json.dumps(plain(arguments), sort_keys=True),
        "packages": json.dumps(versions()),
        "tokenizer_sha256": tokenizer_hash(model.tokenizer),
        "prompts_sha256": prompts if isinstance(prompts, str) else prompts_hash(prompts),
        "seed": int(arguments.get("seed") or 0),
        "git_commit": commit,
        "git_dirty": dirty,
        "device": device_of(model),
        "sample_dims": sample_dims,
    }


def model_identity(model, name: str) -> dict:
    """Return model id, commit or a folder's fingerprint, dtype and attention implementation."""
    config = model.config
    folder = Path(getattr(model, "repo_id", None) or "")
    local = folder.is_dir() and str(folder) != "."
    return {
        "model": name if name == REFERENCE else model_folder(name),
        "revision": revision_of(model, name),
        "commit": (
            getattr(config, "_commit_hash", None) or (folder_fingerprint(folder) if local else "")
        ),
        "dtype": precision(config),
        "attention": getattr(config, "_attn_implementation", ""),
    }


def device_of(model) -> str:
    """Return what a model computes on: `cpu`, a GPU by its name, or `server` for weights that are
    not here.
    """
    import torch

    place = next(model._module.parameters()).device
    if place.type == "cuda":
        return f"cuda, {torch.cuda.get_device_name(place)}"
    return "server" if place.type == "meta" else place.type


def precision(config) -> str:
    """Return what a model computes in and, where its weights are held in fewer bits, how:
    `bfloat16, weights 4bit nf4`.
    """
    computed = str(getattr(config, "dtype", "")).replace("torch.", "")
    how = getattr(config, "quantization_config", None)
    if how is None:
        return computed
    facts = how if isinstance(how, dict) else how.to_dict()
    bits = {"load_in_4bit": f"4bit {facts.get('bnb_4bit_quant_type')}", "load_in_8bit": "8bit"}
    held = next(
        (text for key, text in bits.items() if facts.get(key)), str(facts.get("quant_method"))
    )
    return f"{computed}, weights {held}"


def model_folder(model: str) -> str:
    """Return `owner/name` -> `owner--name`; a local folder -> its name."""
    path = Path(model).expanduser()
    if path.is_file():
        return path.stem
    return path.resolve().name if path.is_dir() else model.replace("/", "--")


def revision_of(model, name: str) -> str:
    """Return what stands for the revision in a results path: the one asked for, `main`, or `local`
    for a folder.
    """
    if name == REFERENCE:
        return "shipped"
    if name == SMOLLM2:
        return metadata.version(PACKAGE.replace("_", "-"))
    return getattr(model, "revision", None) or (
        "local" if Path(name).expanduser().exists() else "main"
    )


def folder_fingerprint(folder: Path) -> str:
    """Return the sha256 over the config and samples from all along each weight file: cheap, and no
    changed layer slips through. Of a folder that was a GGUF file, that of the file.
    """
    converted = origin(folder)
    if converted:
        return f"sha256:{converted['sha256']}"
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in {".json", ".safetensors", ".bin"} and path.is_file():
            size = path.stat().st_size
            digest.update(f"{path.name} {size}".encode())
            sample = STRIDE if size <= WHOLE else STRIDE >> 8
            with path.open("rb") as file:
                for start in range(0, size, STRIDE):
                    file.seek(start)
                    digest.update(file.read(sample))
    return f"sha256:{digest.hexdigest()}"


def tokenizer_hash(tokenizer) -> str:
    """Return the sha256 over the tokenizer's rules, whatever padding and truncation it was last
    used with.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = tokenizer.get_vocab() if backend is None else json.loads(backend.to_str())
    if backend is not None:
        rules = {key: value for key, value in rules.items() if key not in {"padding", "truncation"}}
    return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()


def prompts_hash(prompts: xr.Dataset) -> str:
    """Return the sha256 over every integer variable: tokens, masks, answers, spans."""
    digest = hashlib.sha256()
    for name in sorted(map(str, prompts.data_vars)):
        values = np.ascontiguousarray(prompts[name].values.astype(np.int64))
        digest.update(f"{name} {values.shape}".encode() + values.tobytes())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def command() -> str:
    """Return the command line that runs now, without the folders of this machine."""
    return shlex.join([Path(sys.argv[0]).name, *map(plain, sys.argv[1:])])


def plain(value):
    """Return a value as JSON knows it, in which an absolute path is relative to the working folder,
    or its name alone.
    """
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    option, equals, text = (
        str(value).rpartition("=") if str(value).startswith("-") else ("", "", str(value))
    )
    path, folder = Path(text), Path.cwd()
    typed = (
        isinstance(value, Path)
        or not re.search(r"\s", text)
        or (len(path.parts) > 2 and _exists(path.parent))
    )
    if not text.startswith(("/", "~")) or not typed:
        return redacted(str(value))
    return (
        option
        + equals
        + (str(path.relative_to(folder)) if path.is_relative_to(folder) else path.name)
    )


def _exists(path: Path) -> bool:
    try:
        return path.expanduser().exists()
    except (
        OSError,
        RuntimeError,
        ValueError,
    ):  # a text that is too long for a path, or names no user
        return False


def git_state() -> tuple[str, int]:
    """Return the checkout's commit and whether it has changes; ("", 0) for an installed package."""
    if not _git(
        "ls-files", Path(__file__).name
    ):  # the repository around an installed package is not ours
        return "", 0
    return _git("rev-parse", "HEAD"), int(
        bool(_git("status", "--porcelain", "--untracked-files=no"))
    )


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""

"""Folders of runs made by hand: heads that are known, of models that need not exist."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import xarray as xr

from nnheads import stats
from nnheads.page import pictures
from nnheads.runs import store

MODEL = "owner--model"
MASS = {
    "long_name": "attention mass on the target",
    "units": "1",
    "valid_min": 0.0,
    "valid_max": 1.0,
}


def scores(
    strength: np.ndarray, *, cases: int = 12, noise: float = 0.01, seed: int = 0
) -> xr.Dataset:
    """Attention mass (batch, layer, head) about `strength` (layer, head), and a null."""
    generator = np.random.default_rng(seed)
    mass = np.clip(strength + generator.normal(0, noise, (cases, *strength.shape)), 0, 1).astype(
        np.float32
    )
    null = (generator.random(mass.shape) * 0.02).astype(np.float32)
    dims = ("batch", "layer", "head")
    return xr.Dataset(
        {"mass": (dims, mass, MASS), "null": (dims, null, {**MASS, "long_name": "random targets"})},
        {"layer": range(strength.shape[0]), "head": range(strength.shape[1])},
    )


def about(kind: str, model: str, revision: str) -> dict:
    source = {
        "model": model,
        "revision": revision,
        "commit": "c0ffee",
        "dtype": "float32",
        "attention": "sdpa",
    }
    return {
        "kind": kind,
        "headline": "mass",
        "title": f"{kind} heads",
        "model": model,
        "revision": revision,
        "source": json.dumps(source),
        "history": "2026-01-02T03:04:05Z nnheads detect all",
        "seed": 0,
        "packages": json.dumps({"nnheads": "0.1.0", "torch": "2.13"}),
        "git_commit": "0123456789" * 4,
        "git_dirty": 0,
        "prompts_sha256": "5ca1ab1e",
        "references": "Olsson et al. 2022",
    }


def detected(
    folder: Path,
    kind: str,
    strength: np.ndarray,
    *,
    model: str = MODEL,
    revision: str = "main",
    attrs=None,
    **how,
) -> Path:
    """A finished run of `nnheads detect` in `folder`."""
    each = scores(strength, **how)
    each.attrs = about(kind, model, revision) | (attrs or {})
    heads = stats.calibrate(each)
    place = folder / "detect" / model / revision / kind
    store.save(place / "scores.nc", each)
    store.save(place / "heads.nc", heads)
    return recorded(
        place,
        "detect",
        ["heads.nc", "scores.nc"],
        model=model,
        type=kind,
        limit=each.sizes["batch"],
    )


def recorded(
    place: Path, recipe: str, files: list[str], *, complete: bool = True, **arguments
) -> Path:
    """Give a folder the record of a run."""
    place.mkdir(parents=True, exist_ok=True)
    record = {
        "recipe": recipe,
        "command": f"nnheads {recipe} -n 12",
        "arguments": arguments,
        "complete": complete,
    }
    (place / "run.json").write_text(json.dumps({**record, "files": files}))
    return place


def planted(layers: int, heads: int, *strong: tuple[int, int], by: float = 0.8) -> np.ndarray:
    """Nothing anywhere but at some heads, the first strongest."""
    strength = np.full((layers, heads), 0.01)
    for place, head in enumerate(strong):
        strength[head] = by - 0.05 * place
    return strength


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png(width: int = 3, height: int = 2, *extra: bytes, dots: bytes | None = None) -> bytes:
    """A grey picture, with other chunks before its dots."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    body = (
        zlib.compress(b"".join(b"\0" + bytes(width) for _ in range(height)))
        if dots is None
        else dots
    )
    return pictures.SIGNATURE + head + b"".join(extra) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def paired(folder, layers: int = 2, heads: int = 6, shared: int = 3):
    """A study of one pair, of which scores.nc is the only file; and what it holds."""
    z, k = np.arange(layers * heads) / 10, -np.arange(layers * shared) / 10
    held = xr.Dataset(
        {
            "k": (("layer", "kv_head"), k.reshape(layers, shared)),
            "z": (("layer", "head"), z.reshape(layers, heads)),
            "resid": (("layer", "position"), np.ones((layers, 4))),
            "base": 2.5,
        },
        {"layer": range(layers), "head": range(heads), "kv_head": range(shared)},
        about("patching", "zoo--grouped", "main"),
    )
    place = recorded(folder / "patch", "patch", ["scores.nc"], model="zoo--grouped")
    store.save(place / "scores.nc", held)
    return z, k

"""Which key/value heads keep all of their cache: gates of DuoAttention, and masks made of head
scores.

A key/value head that retrieves keeps everything; the others keep the first tokens (the sink) and
the most recent ones. DuoAttention's folder holds full_attention_heads.tsv, a table [layers,
key/value heads] of gates, and config.json with sink_size and recent_size; its reader clips gates to
0..1. A mask here is such a table of zeros and ones.
Source: Xiao et al. 2024, arXiv 2410.10819.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import xarray as xr

from nnheads.errors import BadInput
from nnheads.interchange.table import KV, check_whole, labelled

TABLE, CONFIG = "full_attention_heads.tsv", "config.json"
SINK, RECENT = 128, 256  # tokens, as DuoAttention trains
THRESHOLD = 0.5
SOURCE = "Xiao et al. 2024, arXiv 2410.10819"


def from_table(text: str, config: dict | None) -> tuple[str, xr.Dataset]:
    """Lines of numbers between tabs, a line for each layer."""
    rows = [line.split("\t") for line in text.splitlines() if line.strip()]
    if not rows or len({len(row) for row in rows}) > 1:
        raise ValueError("its lines have different numbers of columns")
    values = np.array([[float(cell) for cell in row] for row in rows])
    if np.isnan(values).any():
        raise ValueError("a gate is no number")
    found = labelled(values, unit=KV)
    found["score"] = found["score"].assign_attrs(
        long_name="gate: 1 keeps the whole cache, 0 streams", source=SOURCE
    )
    config = config or {}
    known = {name: config[name] for name in ("sink_size", "recent_size") if name in config}
    if isinstance(config.get("model_name"), str):
        known["model"] = Path(config["model_name"]).name
    for name in ("sink_size", "recent_size"):
        if name in known and (
            isinstance(known[name], bool) or not isinstance(known[name], int) or known[name] < 0
        ):
            raise ValueError(f"{CONFIG} has {name} {known[name]!r}; expected a number of tokens")
    return "duo_attention", found.assign_attrs(known)


def kv_mask(
    heads: xr.Dataset,
    kv_heads: int,
    *,
    threshold: float | None = None,
    sparsity: float | None = None,
) -> xr.Dataset:
    """Which key/value heads keep their whole cache.

    Args:
        heads: scores of query heads (layer, head), of which a group shares a key/value head and its
            highest score counts; or gates (layer, kv_head). Every head has a score.
        kv_heads: key/value heads of a layer.
        threshold: heads that score at least so much are kept; 0.5 unless one of the two is given.
        sparsity: instead, the share of key/value heads that stream: those with the lowest scores.

    Returns:
        `score` (layer, kv_head), 1 or 0, float32. attrs: what chose them, and the `sparsity` that
            came out.

    Raises:
        BadInput: both choices at once, numbers out of range, key/value heads that do not divide the
            heads.
    """
    if threshold is not None and sparsity is not None:
        raise BadInput(
            "--threshold and --sparsity exclude each other; one of them chooses the heads"
        )
    if sparsity is not None and not 0 <= sparsity <= 1:
        raise BadInput(f"--sparsity {sparsity} is not possible; it is a share, from 0 to 1")
    if threshold is not None and not np.isfinite(threshold):
        raise BadInput(f"--threshold {threshold} is not possible; it must be a number")
    check_whole(heads, "a mask")
    values = np.clip(heads["score"].values, 0, 1) if KV in heads.dims else grouped(heads, kv_heads)
    if values.shape[1] != kv_heads:
        raise BadInput(
            f"the list has {values.shape[1]} key/value heads a layer; the model has {kv_heads}"
        )
    if sparsity is None:
        limit = THRESHOLD if threshold is None else threshold
        kept, how = values >= limit, f"score of at least {limit:g}"
    else:
        streaming = round(sparsity * values.size)
        order = np.argsort(values, axis=None, kind="stable")
        flat = np.ones(values.size, bool)
        flat[order[:streaming]] = False
        kept, how = (
            flat.reshape(values.shape),
            f"the highest {values.size - streaming} of {values.size} scores",
        )
    mask = labelled(kept.astype(float), unit=KV)
    mask["score"] = mask["score"].assign_attrs(
        long_name="1 keeps the whole cache, 0 streams", source=SOURCE
    )
    sizes = {"sink_size": SINK, "recent_size": RECENT}
    return mask.assign_attrs(
        {**sizes, **heads.attrs, "chosen_by": how, "sparsity": float(1 - kept.mean())}
    )


def grouped(heads: xr.Dataset, kv_heads: int) -> np.ndarray:
    """The highest score of each group of query heads [layer, kv_head]."""
    count = heads.sizes["head"]
    if kv_heads < 1 or count % kv_heads:
        raise BadInput(
            f"{count} heads do not share {kv_heads} key/value heads evenly; is --kv-heads right?"
        )
    return heads["score"].values.reshape(heads.sizes["layer"], kv_heads, count // kv_heads).max(-1)


def write_table(heads: xr.Dataset, path: Path) -> None:
    """The table alone, as DuoAttention writes it."""
    check_whole(heads, "a table of gates")
    values = heads["score"].values.astype(np.float64)
    path.write_text(
        "".join("\t".join(f"{value:.18e}" for value in row) + "\n" for row in values),
        encoding="utf-8",
    )


def config_of(heads: xr.Dataset) -> str:
    """What DuoAttention reads beside the table."""
    known = {
        name: int(heads.attrs.get(name, size))
        for name, size in (("sink_size", SINK), ("recent_size", RECENT))
    }
    return (
        json.dumps(
            {**known, **({"model_name": heads.attrs["model"]} if "model" in heads.attrs else {})}
        )
        + "\n"
    )

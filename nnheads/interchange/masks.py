"""Key/value heads that keep all of their cache: DuoAttention's gates, and masks made of scores.

A key/value head that retrieves keeps everything; the others keep the first tokens (the sink) and
the most recent ones. DuoAttention's folder holds full_attention_heads.tsv, a table [layers,
key/value heads] of gates, and config.json with sink_size and recent_size; its reader clips gates to
0..1. A mask here is such a table of zeros and ones.
Source: Xiao et al. 2024, arXiv 2410.10819.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from nnheads.errors import BadInput
from nnheads.interchange.table import KV, check_whole, labelled
from nnheads.stats import ranked

TABLE, CONFIG = "full_attention_heads.tsv", "config.json"
SIZES = {"sink_size": 128, "recent_size": 256}  # tokens, as DuoAttention trains
THRESHOLD = 0.5
SOURCE = "Xiao et al. 2024, arXiv 2410.10819"
Gates = Float[np.ndarray, "layer kv_head"]
Kept = Bool[np.ndarray, "layer kv_head"]


def from_table(text: str, config: dict | None) -> tuple[str, xr.Dataset]:
    """Return the gates (layer, kv_head) of lines of numbers between tabs, a line for each layer."""
    rows = [line.split("\t") for line in text.splitlines() if line.strip()]
    if not rows or len({len(row) for row in rows}) > 1:
        raise ValueError("its lines have different numbers of columns")
    values = np.array([[float(cell) for cell in row] for row in rows])
    if np.isnan(values).any():
        raise ValueError("a gate is no number")
    gates = _described(values, "gate: 1 keeps the whole cache, 0 streams")
    return "duo_attention", gates.assign_attrs(_known(config or {}))


def _described(values: Gates, meaning: str) -> xr.Dataset:
    table = labelled(values, unit=KV)
    table["score"] = table["score"].assign_attrs(long_name=meaning, source=SOURCE)
    return table


def _known(config: dict[str, Any]) -> dict[str, Any]:
    """Return what DuoAttention's config.json says of the cache and the model."""
    known = {name: config[name] for name in SIZES if name in config}
    for name, size in known.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise ValueError(f"{CONFIG} has {name} {size!r}; expected a number of tokens")
    if isinstance(config.get("model_name"), str):
        known["model"] = Path(config["model_name"]).name
    return known


def kv_mask(
    heads: xr.Dataset,
    kv_heads: int,
    *,
    threshold: float | None = None,
    sparsity: float | None = None,
) -> xr.Dataset:
    """Choose the key/value heads that keep their whole cache.

    Args:
        heads: `score` (layer, head) of query heads, of which a group shares a key/value head and
            its highest score counts; or gates (layer, kv_head). Every head has a score.
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
    _check_choice(threshold, sparsity)
    check_whole(heads, "a mask")
    values = np.clip(heads["score"].values, 0, 1) if KV in heads.dims else grouped(heads, kv_heads)
    if values.shape[1] != kv_heads:
        raise BadInput(
            f"the list has {values.shape[1]} key/value heads a layer; the model has {kv_heads}"
        )
    if sparsity is None:
        kept, rule = _above(values, THRESHOLD if threshold is None else threshold)
    else:
        kept, rule = _highest(values, sparsity)
    mask = _described(kept.astype(float), "1 keeps the whole cache, 0 streams")
    chosen = {"chosen_by": rule, "sparsity": float(1 - kept.mean())}
    return mask.assign_attrs({**SIZES, **heads.attrs, **chosen})


def _check_choice(threshold: float | None, sparsity: float | None) -> None:
    if threshold is not None and sparsity is not None:
        raise BadInput(
            "--threshold and --sparsity exclude each other; one of them chooses the heads"
        )
    if sparsity is not None and not 0 <= sparsity <= 1:
        raise BadInput(f"--sparsity {sparsity} is not possible; it is a share, from 0 to 1")
    if threshold is not None and not np.isfinite(threshold):
        raise BadInput(f"--threshold {threshold} is not possible; it must be a number")


def _above(values: Gates, threshold: float) -> tuple[Kept, str]:
    return values >= threshold, f"score of at least {threshold:g}"


def _highest(values: Gates, sparsity: float) -> tuple[Kept, str]:
    """Return all but the lowest scores, of equal ones the later, and this rule in words."""
    streaming = round(sparsity * values.size)
    order = ranked(values, lowest=True, unknown=True)
    kept = np.ones(values.size, bool)
    kept[order[:streaming]] = False
    rule = f"the highest {values.size - streaming} of {values.size} scores"
    return kept.reshape(values.shape), rule


def grouped(heads: xr.Dataset, kv_heads: int) -> Gates:
    """Return the highest score of each group of query heads that shares a key/value head."""
    count = heads.sizes["head"]
    if kv_heads < 1 or count % kv_heads:
        raise BadInput(
            f"{count} heads do not share {kv_heads} key/value heads evenly; is --kv-heads right?"
        )
    return heads["score"].values.reshape(heads.sizes["layer"], kv_heads, count // kv_heads).max(-1)


def write_table(heads: xr.Dataset, path: Path) -> None:
    """Write the table of gates alone, as DuoAttention does."""
    check_whole(heads, "a table of gates")
    values = heads["score"].values.astype(np.float64)
    lines = ["\t".join(f"{value:.18e}" for value in row) + "\n" for row in values]
    path.write_text("".join(lines), encoding="utf-8")


def config_of(heads: xr.Dataset) -> str:
    """Return the text of config.json, which DuoAttention reads beside the table."""
    known = {name: int(heads.attrs.get(name, size)) for name, size in SIZES.items()}
    model = {"model_name": heads.attrs["model"]} if "model" in heads.attrs else {}
    return json.dumps({**known, **model}) + "\n"

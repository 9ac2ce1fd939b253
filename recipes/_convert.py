"""Which heads of a list `nnheads convert` writes, and in what table."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnheads.recipes._checks import check_at_least

from nnheads.errors import BadInput

if TYPE_CHECKING:
    import xarray as xr

MASK, GATES = "kv_mask", "duo_attention"  # tables of key/value heads
CIRCUIT = ("node_score", "node_in_circuit", "edge_score", "edge_in_circuit", "node", "edge")


@dataclass(frozen=True)
class Selection:
    """Which heads are kept, and what those score that the file does not score."""

    top: int | None = None
    threshold: float | None = None
    sparsity: float | None = None
    fill: float | None = None


def sizes_of(model: str | None, shape: str | None, kv_heads: int | None) -> dict[str, Any]:
    """Return layers, heads and key/value heads as far as they are known, and a model's widths."""
    if model is None:
        return {**kv_heads_of(kv_heads), **shape_of(shape)}
    if shape is not None or kv_heads is not None:
        raise BadInput("--model says how many heads there are; leave --shape and --kv-heads out")
    return model_sizes(model)


def model_sizes(name: str) -> dict[str, Any]:
    """Return the geometry of a model and what a circuit's file says of it; no weights are read."""
    from nnheads.recipes._load import quieten

    from nnheads.models.geometry import geometry
    from nnheads.models.load import load

    quieten()
    found = load(name, remote=True)  # whose weights stay where they are
    parallel = bool(getattr(found.config, "use_parallel_residual", False))
    return {**vars(geometry(found)), "parallel_attn_mlp": parallel, "model": public(name)}


def public(name: str) -> str:
    """Return a model's name as files carry it: of a local one, that of its folder or file alone."""
    from nnheads.runs.provenance import model_folder

    return model_folder(name) if Path(name).expanduser().exists() else name


def kv_heads_of(count: int | None) -> dict[str, int]:
    """Return `--kv-heads` as a size."""
    check_at_least(1, kv_heads=count)
    return {} if count is None else {"kv_heads": count}


def shape_of(text: str | None) -> dict[str, int]:
    """Return `--shape 32x32` as layers and heads."""
    if text is None:
        return {}
    match = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", text)
    if match is None:
        raise BadInput(f"--shape {text!r} is not possible; write layers and heads as 32x32")
    return {"layers": int(match[1]), "heads": int(match[2])}


def unit_of(heads: xr.Dataset) -> str:
    """Return the dimension that a list is over: heads or key/value heads."""
    from nnheads.interchange.table import KV

    return KV if KV in heads.dims else "head"


def prepared(heads: xr.Dataset, to: str, sizes: dict, selection: Selection) -> xr.Dataset:
    """Return the table that the model needs, with the heads that were asked for."""
    check_at_least(1, top=selection.top)
    if selection.sparsity is not None and to != MASK:
        raise BadInput(
            "--sparsity is for --to kv_mask; other formats list heads: use --top or --threshold"
        )
    heads = described(filled(heads, sizes, selection.fill), sizes)
    if to in (MASK, GATES):
        return of_kv_heads(heads, to, sizes, selection)
    return chosen(heads, selection.top, selection.threshold)


def filled(heads: xr.Dataset, sizes: dict, fill: float | None) -> xr.Dataset:
    """Give every head of the model a cell, and `fill` to those without a score."""
    from nnheads.interchange.table import KV, fitted

    units = sizes.get("kv_heads" if unit_of(heads) == KV else "heads")
    if "layers" in sizes and units is not None:
        return fitted(heads, sizes["layers"], units, fill=fill)
    if fill is not None:
        heads["score"] = heads["score"].fillna(fill).assign_attrs(heads["score"].attrs)
    return heads


def described(heads: xr.Dataset, sizes: dict) -> xr.Dataset:
    """Say in the attributes what is known of the model; a list of edges keeps its own."""
    known = {key: sizes[key] for key in ("model", "head_dim") if key in sizes}
    if "d_model" in sizes and "edge" not in heads.dims:
        config = {
            "n_layers": sizes["layers"],
            "n_heads": sizes["heads"],
            "d_model": sizes["d_model"],
            "parallel_attn_mlp": sizes["parallel_attn_mlp"],
        }
        known["cfg"] = json.dumps(config)
    return heads.assign_attrs(known)


def of_kv_heads(heads: xr.Dataset, to: str, sizes: dict, selection: Selection) -> xr.Dataset:
    """Return a mask or a table of gates over key/value heads."""
    from nnheads.interchange.masks import kv_mask
    from nnheads.interchange.table import KV

    count = sizes.get("kv_heads", heads.sizes.get(KV))
    if count is None:
        raise BadInput(
            f"{to} is of key/value heads; say with --kv-heads or --model how many a layer has"
        )
    if selection.top is not None:
        raise BadInput("--top chooses query heads; a mask is chosen by --threshold or --sparsity")
    if to == MASK:
        return kv_mask(heads, count, threshold=selection.threshold, sparsity=selection.sparsity)
    return heads if KV in heads.dims else gates(heads, count)


def gates(heads: xr.Dataset, kv_heads: int) -> xr.Dataset:
    """Return scores of key/value heads: the highest of the query heads that share one."""
    from nnheads.interchange.masks import grouped
    from nnheads.interchange.table import KV, check_whole, labelled

    check_whole(heads, "a table of gates")
    return labelled(grouped(heads, kv_heads), unit=KV).assign_attrs(heads.attrs)


def chosen(heads: xr.Dataset, top: int | None, threshold: float | None) -> xr.Dataset:
    """Return the list without the heads that were not asked for; its circuit is what is left."""
    from nnheads.interchange.table import KV, ranking

    if top is None and threshold is None:
        return heads
    if KV in heads.dims:
        raise BadInput(
            "--top and --threshold list query heads, and these are key/value heads; use --to"
            " kv_mask"
        )
    kept = at_least(heads, ranking(heads), threshold)
    if top is not None and top > len(kept):
        raise BadInput(f"--top {top} is more than the {len(kept)} heads that the list has")
    return with_circuit(heads, kept[:top])


def at_least(heads: xr.Dataset, order: list, threshold: float | None) -> list:
    """Return the heads, in their order, that score as much as the threshold."""
    scores = heads["score"].values
    kept = [head for head in order if threshold is None or scores[head] >= threshold]
    if not kept:
        highest = float(heads["score"].max())
        raise BadInput(f"no head scores {threshold:g}; the highest score is {highest:.3g}")
    return kept


def with_circuit(heads: xr.Dataset, kept: list) -> xr.Dataset:
    """Make a circuit of some heads, in their order, in place of the one that the list had."""
    import numpy as np

    inside = np.zeros(heads["score"].shape, "int8")
    rank = np.full(heads["score"].shape, np.nan, "float32")
    for number, head in enumerate(kept):
        inside[head], rank[head] = 1, number
    found = heads.drop_vars([name for name in CIRCUIT if name in heads.variables])
    cell = ("layer", "head")
    found["in_circuit"] = (cell, inside, {"long_name": "1 for heads of the circuit", "units": "1"})
    about = {"long_name": "place in the list, 0 is the first", "units": "1"}
    found["rank"] = (cell, rank, about)
    return found

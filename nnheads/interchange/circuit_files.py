"""Write circuits of the Mechanistic Interpretability Benchmark; `circuits` reads them.

A circuit is written as it was read or, made from a list, as the smallest one that holds its heads.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import xarray as xr
from jaxtyping import Float

from nnheads.errors import BadInput
from nnheads.interchange.table import shortest

Node = dict[str, bool | float]


def write_circuit(heads: xr.Dataset, path: Path) -> None:
    """Write a circuit as it was read, or the smallest one that holds these heads.

    Heads of `in_circuit` are kept, with all MLPs, and every edge between two nodes that are kept.

    Args:
        heads: `score`, `in_circuit` (layer, head); attrs `cfg`, how wide the model is.

    Raises:
        BadInput: no `in_circuit`, or no `cfg`.
    """
    if "cfg" not in heads.attrs:
        raise BadInput("a circuit of MIB says how wide its model is (d_model); give --model")
    if "in_circuit" not in heads:
        raise BadInput(
            "this list does not say which heads are the circuit; give --top or --threshold"
        )
    config = json.loads(heads.attrs["cfg"])
    if "edge" in heads.dims:
        nodes, edges = (_as_read(heads, kind) for kind in ("node", "edge"))
    else:
        nodes = _nodes(heads["in_circuit"].values, heads["score"].values)
        edges = _edges(heads["in_circuit"].values, parallel=bool(config.get("parallel_attn_mlp")))
    content = {"cfg": config, "nodes": nodes, "edges": edges}
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")


def _as_read(heads: xr.Dataset, kind: str) -> dict[str, Node]:
    """Return the nodes or edges that were read."""
    names = heads[kind].values
    scores, inside = heads[f"{kind}_score"].values, heads[f"{kind}_in_circuit"].values
    return {str(name): _part(bool(kept), score) for name, score, kept in zip(names, scores, inside)}


def _part(inside: bool, score: float) -> Node:
    """Return a node or edge, without a score where it has none."""
    return (
        {"in_graph": inside} if np.isnan(score) else {"in_graph": inside, "score": shortest(score)}
    )


def _nodes(inside: np.ndarray, scores: Float[np.ndarray, "layer head"]) -> dict[str, Node]:
    """Return the nodes of every part of the model, in the order of the model."""
    nodes: dict[str, Node] = {"input": {"in_graph": True}}
    for layer in range(inside.shape[0]):
        for head in range(inside.shape[1]):
            nodes[f"a{layer}.h{head}"] = _part(bool(inside[layer, head]), scores[layer, head])
        nodes[f"m{layer}"] = {"in_graph": True}
    nodes["logits"] = {"in_graph": True}
    return nodes


def _edges(inside: np.ndarray, *, parallel: bool) -> dict[str, Node]:
    """Return the edges between all nodes that are kept.

    Args:
        inside: 1 for heads that are kept [layer, head].
        parallel: attention and MLP of a block read the same residual stream.
    """
    names: list[str] = []
    before = ["input"]
    for layer, row in enumerate(inside):
        own = [f"a{layer}.h{head}" for head in np.flatnonzero(row)]
        for start in before:
            names += [f"{start}->{head}<{site}>" for head in own for site in "qkv"]
        read_by_mlp = before if parallel else before + own
        names += [f"{start}->m{layer}" for start in read_by_mlp]
        before = [*before, *own, f"m{layer}"]
    names += [f"{start}->logits" for start in before]
    return {name: {"score": 0.0, "in_graph": True} for name in names}

"""Read circuits of the Mechanistic Interpretability Benchmark, as EAP-IG saves its graphs.

A file holds `cfg` (n_layers, n_heads, parallel_attn_mlp, d_model), `nodes` {"a9.h6": {"in_graph",
"score"}} and `edges` {"a0.h1->a9.h6<q>": {"score", "in_graph"}}. Nodes are input, a<layer>.h<head>,
m<layer> and logits. Edges that a file leaves out are not in the circuit. Nodes and edges are kept
beside the table of heads, so that a circuit is written back as it was read (`circuit_files`). A
head's score is its node's or, where nodes have none, that of its strongest outgoing edge.
Source: Mueller et al. 2025, arXiv 2504.13151.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from nnheads.interchange.table import Head, labelled, number, size_of

KEYS = ("cfg", "nodes", "edges")
SIZES = ("n_layers", "n_heads")
NODE = re.compile(r"(?:input|logits|m(\d{1,5})|a(\d{1,5})\.h(\d{1,5}))", re.ASCII)
INPUTS = re.compile(r"<[qkv]>$")  # which input of a head an edge ends in
TENSORS = ("edges_scores", "edges_in_graph", "nodes_in_graph")
PARTS = ("node", "edge")  # by name, beside the heads
Parts = Mapping[str, dict[str, Any]]
Sizes = tuple[int, int]


def is_circuit(content: object) -> bool:
    """Return whether a file's contents are a circuit."""
    return isinstance(content, dict) and all(isinstance(content.get(key), dict) for key in KEYS)


def from_circuit(content: dict) -> tuple[str, xr.Dataset]:
    """Return a circuit as heads, with its nodes and edges by name.

    Returns:
        `score`, `in_circuit` (layer, head); `node_score`, `node_in_circuit` (node), `edge_score`,
        `edge_in_circuit` (edge).
    """
    config, nodes, edges = (content[key] for key in KEYS)
    sizes = size_of(config[SIZES[0]]), size_of(config[SIZES[1]])
    scores, inside = _of_nodes(nodes, sizes)
    strongest = _of_edges(edges, sizes)
    heads = labelled(np.where(np.isnan(scores), strongest, scores))
    about = {"long_name": "1 for heads of the circuit", "units": "1"}
    heads["in_circuit"] = (("layer", "head"), inside, about)
    for kind, parts in zip(PARTS, (nodes, edges)):
        heads = heads.merge(_by_name(kind, parts), combine_attrs="override")
    known = {key for node in nodes.values() for key in node}
    left_out = ", ".join(sorted(known - {"in_graph", "score"}))
    return "mib", heads.assign_attrs(cfg=json.dumps(config), not_read=left_out)


def _of_nodes(nodes: Parts, sizes: Sizes) -> tuple[Float[np.ndarray, "layer head"], np.ndarray]:
    """Return the nodes' scores, and 1 for heads in the circuit, [layer, head]."""
    scores, inside = np.full(sizes, np.nan), np.zeros(sizes, "int8")
    for name in nodes:
        check_node(name, sizes)
    for name, node in nodes.items():
        head = head_of(name)
        if head is not None:
            inside[head] = within(node)
            scores[head] = _score(node)
    return scores, inside


def _of_edges(edges: Parts, sizes: Sizes) -> Float[np.ndarray, "layer head"]:
    """Return the size of the strongest edge that leaves each head."""
    strongest = np.full(sizes, np.nan)
    for name, edge in edges.items():
        start, arrow, end = name.partition("->")
        if not arrow:
            raise ValueError(f"{name!r} is no edge")
        check_node(start, sizes)
        check_node(INPUTS.sub("", end), sizes)
        head = head_of(start)
        if head is not None:
            strongest[head] = np.fmax(strongest[head], abs(number(edge["score"])))
        within(edge)
    return strongest


def _by_name(kind: str, parts: Parts) -> xr.Dataset:
    """Return nodes or edges by name, in the file's order."""
    scores = np.array([_score(part) for part in parts.values()], "float32")
    inside = np.array([within(part) for part in parts.values()], "int8")
    about_score = {"long_name": f"score of the {kind}", "units": "1"}
    about_inside = {"long_name": f"1 for {kind}s of the circuit", "units": "1"}
    data = {
        f"{kind}_score": (kind, scores, about_score),
        f"{kind}_in_circuit": (kind, inside, about_inside),
    }
    return xr.Dataset(data, {kind: np.array(list(parts), dtype=str)})


def _score(part: dict) -> float:
    return number(part["score"]) if "score" in part else np.nan


def within(part: object) -> bool:
    """Return whether a node or edge is in the circuit."""
    if not isinstance(part, dict) or not isinstance(part.get("in_graph"), bool):
        raise ValueError("a node or edge does not say whether it is in_graph")
    return part["in_graph"]


def check_node(name: str, sizes: Sizes) -> None:
    """Raise ValueError for a name that no node of a model of this size has."""
    match, (layers, heads) = NODE.fullmatch(name), sizes
    if match is not None and _inside(match, sizes):
        return
    raise ValueError(f"{name!r} is no node of a model with {layers} layers of {heads} heads")


def _inside(match: re.Match[str], sizes: Sizes) -> bool:
    layer, head = int(match[1] or match[2] or 0), int(match[3] or 0)
    return layer < sizes[0] and head < sizes[1]


def head_of(name: str) -> Head | None:
    """Return the head that a node is, or None for another node."""
    match = NODE.fullmatch(name)
    return None if match is None or match[2] is None else (int(match[2]), int(match[3]))


def from_graph(content: dict) -> tuple[str, xr.Dataset]:
    """Return the heads of the same graph as EAP-IG saves it for torch; edges stay in the file.

    A head's score is its node's or, without one, that of its strongest outgoing edge.
    """
    wanted = ("cfg", "src_nodes", *TENSORS)
    if not all(name in content for name in wanted):
        raise ValueError(f"expected one tensor, or a graph with {', '.join(wanted)}")
    names = list(content["src_nodes"])
    _check_tensors(content, len(names))
    strongest = content["edges_scores"].float().abs().flatten(1).max(1).values.tolist()
    own = content.get("nodes_scores")
    scores = [float("nan")] * len(names) if own is None else own.float().tolist()
    rows = zip(names, content["nodes_in_graph"], strongest, scores)
    nodes = {
        name: {"in_graph": bool(inside), "score": edge if np.isnan(score) else score}
        for name, inside, edge, score in rows
    }
    kind, heads = from_circuit({"cfg": content["cfg"], "nodes": nodes, "edges": {}})
    variables = [f"{part}_{name}" for part in PARTS for name in ("score", "in_circuit")]
    return kind, heads.drop_vars([*PARTS, *variables], errors="ignore").assign_attrs(
        not_read="edges"
    )


def _check_tensors(content: dict, nodes: int) -> None:
    import torch

    for name in TENSORS:
        tensor = content[name]
        if not isinstance(tensor, torch.Tensor) or len(tensor) != nodes:
            raise ValueError("its tensors have other nodes than src_nodes")

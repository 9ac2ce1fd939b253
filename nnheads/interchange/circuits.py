"""Circuits of the Mechanistic Interpretability Benchmark: nodes and edges, as EAP-IG's graphs are
saved.

A file holds `cfg` (n_layers, n_heads, parallel_attn_mlp, d_model), `nodes` {"a9.h6": {"in_graph",
"score"}} and `edges` {"a0.h1->a9.h6<q>": {"score", "in_graph"}}; nodes are input, a<layer>.h<head>,
m<layer> and logits. Edges that a file leaves out are not in the circuit. Nodes and edges are kept
beside the table of heads, so that a circuit is written back as it was read. A head's score is its
node's or, where nodes have none, that of its strongest outgoing edge.
Source: Mueller et al. 2025, arXiv 2504.13151.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import xarray as xr

from nnheads.errors import BadInput
from nnheads.interchange.table import check_place, labelled, number, whole_number

KEYS = ("cfg", "nodes", "edges")
SIZES = ("n_layers", "n_heads")
NODE = re.compile(r"(?:input|logits|m(\d{1,5})|a(\d{1,5})\.h(\d{1,5}))", re.ASCII)


def is_circuit(content) -> bool:
    return isinstance(content, dict) and all(isinstance(content.get(key), dict) for key in KEYS)


def from_circuit(content: dict) -> tuple[str, xr.Dataset]:
    """A circuit as heads: `score`, `in_circuit` (layer, head), and all nodes and edges by name."""
    config = content["cfg"]
    layers, heads = (check_place(whole_number(config[name]) - 1) + 1 for name in SIZES)
    nodes, edges = content["nodes"], content["edges"]
    for name in nodes:
        check_node(name, layers, heads)
    scores, inside = np.full((layers, heads), np.nan), np.zeros((layers, heads), "int8")
    strongest = np.full((layers, heads), np.nan)
    for name, node in nodes.items():
        place = head_of(name)
        if place is not None:
            inside[place] = within(node)
            scores[place] = number(node["score"]) if "score" in node else np.nan
    for name, edge in edges.items():
        start, arrow, end = name.partition("->")
        if not arrow:
            raise ValueError(f"{name!r} is no edge")
        check_node(start, layers, heads)
        check_node(re.sub(r"<[qkv]>$", "", end), layers, heads)
        place = head_of(start)
        if place is not None:
            strongest[place] = np.fmax(strongest[place], abs(number(edge["score"])))
        within(edge)
    found = labelled(np.where(np.isnan(scores), strongest, scores))
    found["in_circuit"] = (
        ("layer", "head"),
        inside,
        {"long_name": "1 for heads of the circuit", "units": "1"},
    )
    for kind, parts in (("node", nodes), ("edge", edges)):
        found = found.merge(parts_of(kind, parts), combine_attrs="override")
    left_out = sorted({key for node in nodes.values() for key in node} - {"in_graph", "score"})
    return "mib", found.assign_attrs(cfg=json.dumps(config), not_read=", ".join(left_out))


def from_graph(content: dict) -> tuple[str, xr.Dataset]:
    """The same graph as EAP-IG saves it for torch: its heads. Edges stay in the file; a head's
    score is its node's or that of its strongest outgoing edge."""
    import torch

    wanted = ("cfg", "src_nodes", "edges_scores", "edges_in_graph", "nodes_in_graph")
    if not all(name in content for name in wanted):
        raise ValueError(f"expected one tensor, or a graph with {', '.join(wanted)}")
    names, tensors = list(content["src_nodes"]), {name: content[name] for name in wanted[2:]}
    if not all(
        isinstance(one, torch.Tensor) and len(one) == len(names) for one in tensors.values()
    ):
        raise ValueError("its tensors have other nodes than src_nodes")
    strongest = tensors["edges_scores"].float().abs().flatten(1).max(1).values.tolist()
    scores = content.get("nodes_scores")
    own = [float("nan")] * len(names) if scores is None else scores.float().tolist()
    nodes = {
        name: {"in_graph": bool(inside), "score": edge if np.isnan(node) else node}
        for name, inside, edge, node in zip(names, tensors["nodes_in_graph"], strongest, own)
    }
    kind, found = from_circuit({"cfg": content["cfg"], "nodes": nodes, "edges": {}})
    left = ["node", "edge", "node_score", "node_in_circuit", "edge_score", "edge_in_circuit"]
    return kind, found.drop_vars(left, errors="ignore").assign_attrs(not_read="edges")


def parts_of(kind: str, parts: dict) -> xr.Dataset:
    """Nodes or edges by name, in the file's order."""
    scores = np.array(
        [number(one["score"]) if "score" in one else np.nan for one in parts.values()], "float32"
    )
    inside = np.array([within(one) for one in parts.values()], "int8")
    return xr.Dataset(
        {
            f"{kind}_score": (kind, scores, {"long_name": f"score of the {kind}", "units": "1"}),
            f"{kind}_in_circuit": (
                kind,
                inside,
                {"long_name": f"1 for {kind}s of the circuit", "units": "1"},
            ),
        },
        {kind: np.array(list(parts), dtype=str)},
    )


def within(part) -> bool:
    if not isinstance(part, dict) or not isinstance(part.get("in_graph"), bool):
        raise ValueError("a node or edge does not say whether it is in_graph")
    return part["in_graph"]


def check_node(name: str, layers: int, heads: int) -> None:
    match = NODE.fullmatch(name)
    if (
        match is None
        or any(int(one) >= layers for one in (match[1], match[2]) if one)
        or int(match[3] or 0) >= heads
    ):
        raise ValueError(f"{name!r} is no node of a model with {layers} layers of {heads} heads")


def head_of(name: str) -> tuple[int, int] | None:
    match = NODE.fullmatch(name)
    return None if match is None or match[2] is None else (int(match[2]), int(match[3]))


def write_circuit(heads: xr.Dataset, path: Path) -> None:
    """A circuit as it was read, or the smallest one that holds these heads.

    Heads of `in_circuit` are kept, with all feed-forward parts, and every edge between two parts
    that are kept.

    Raises:
        BadInput: no `in_circuit`, or no `cfg` that says how wide the model is.
    """
    if "cfg" not in heads.attrs:
        raise BadInput("a circuit of MIB says how wide its model is (d_model); give --model")
    if "in_circuit" not in heads:
        raise BadInput(
            "this list does not say which heads are the circuit; give --top or --threshold"
        )
    config = json.loads(heads.attrs["cfg"])
    if "edge" in heads.dims:
        nodes, edges = (taken_back(heads, kind) for kind in ("node", "edge"))
    else:
        nodes, edges = built(heads, bool(config.get("parallel_attn_mlp")))
    path.write_text(
        json.dumps({"cfg": config, "nodes": nodes, "edges": edges}) + "\n", encoding="utf-8"
    )


def taken_back(heads: xr.Dataset, kind: str) -> dict:
    from nnheads.interchange.table import shortest

    found = {}
    rows = (heads[kind].values, heads[f"{kind}_score"].values, heads[f"{kind}_in_circuit"].values)
    for name, score, inside in zip(*rows):
        found[str(name)] = {"in_graph": bool(inside)} | (
            {} if np.isnan(score) else {"score": shortest(score)}
        )
    return found


def built(heads: xr.Dataset, parallel: bool) -> tuple[dict, dict]:
    """Nodes of all parts, and the edges between those that are kept."""
    from nnheads.interchange.table import shortest

    inside, scores = heads["in_circuit"].values, heads["score"].values
    nodes: dict[str, dict] = {"input": {"in_graph": True}}
    edges: dict[str, float] = {}
    before = ["input"]
    for layer in range(inside.shape[0]):
        own = []
        for head in range(inside.shape[1]):
            name, score = f"a{layer}.h{head}", scores[layer, head]
            nodes[name] = {"in_graph": bool(inside[layer, head])}
            nodes[name] |= {} if np.isnan(score) else {"score": shortest(score)}
            own += [name] if inside[layer, head] else []
        nodes[f"m{layer}"] = {"in_graph": True}
        edges |= {
            f"{start}->{name}<{part}>": 0 for start in before for name in own for part in "qkv"
        }
        read = before if parallel else before + own
        edges |= {f"{start}->m{layer}": 0 for start in read}
        before = [*before, *own, f"m{layer}"]
    nodes["logits"] = {"in_graph": True}
    edges |= {f"{start}->logits": 0 for start in before}
    return nodes, {name: {"score": 0.0, "in_graph": True} for name in edges}

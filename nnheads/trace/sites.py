"""The one table of sites: every place of a block that can be read and changed.

    value = read_site(layer, "v", spec, (rows, length))    # [row, kv head, position, dim]
    write_site(layer, "v", value * 2, spec)

A row of `SITES` says what a site is, what its units are, and which tensor of the run it is. Sweeps,
interventions, gradients and paths all go through the functions below, so a site is read in one
place, and written in one. Rows stand in the order in which a forward reaches them: traces have to
read in that order, and nnsight says "out of order" otherwise.

The units of z, q and pattern are heads, those of k and v are key/value heads, which under
grouped-query attention serve several heads each; the other sites have one unit.
Shipped to remote servers as source: torch only. Rows are plain dicts, because a class with
generated methods would travel as bytecode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import torch
from jaxtyping import Float

from nnheads.trace.blocks import hidden, packed, put, reach, split_heads
from nnheads.trace.kernels import by_kernel_head, kernel_input, kernel_tensor
from nnheads.trace.pattern_site import put_pattern, read_pattern, write_pattern
from nnheads.trace.plain import ModelSpec, Write

Value = Float[torch.Tensor, "row unit *group position width"]


class Site(TypedDict):
    """One place of a block.

    unit: "head", "kv_head", or None for one unit.
    part: the module whose tensor it is: "block", "attention", "projection" or a key of ModelSpec;
        "kernel" for what attention computes with (see `kernels` and `pattern_site`).
    end: "input" or "output" of the module; "" inside the kernel.
    """

    meaning: str
    unit: str | None
    part: str
    end: str


SITES: Mapping[str, Site] = {
    "resid_pre": {
        "meaning": "residual stream before the block",
        "unit": None,
        "part": "block",
        "end": "input",
    },
    "attn_in": {
        "meaning": "what attention reads",
        "unit": None,
        "part": "attention",
        "end": "input",
    },
    "q": {"meaning": "queries", "unit": "head", "part": "kernel", "end": ""},
    "k": {"meaning": "keys", "unit": "kv_head", "part": "kernel", "end": ""},
    "v": {"meaning": "values", "unit": "kv_head", "part": "kernel", "end": ""},
    "pattern": {"meaning": "attention weights", "unit": "head", "part": "kernel", "end": ""},
    "z": {
        "meaning": "head output before W_O",
        "unit": "head",
        "part": "projection",
        "end": "input",
    },
    "attn_out": {
        "meaning": "what attention adds",
        "unit": None,
        "part": "attention_adds",
        "end": "output",
    },
    "mlp_in": {"meaning": "what the MLP reads", "unit": None, "part": "mlp_reads", "end": "input"},
    "mlp_hidden": {
        "meaning": "neurons of the MLP",
        "unit": None,
        "part": "neurons",
        "end": "input",
    },
    "mlp_out": {"meaning": "what the MLP adds", "unit": None, "part": "mlp_adds", "end": "output"},
    "resid_post": {
        "meaning": "residual stream after the block",
        "unit": None,
        "part": "block",
        "end": "output",
    },
}
# those that a sweep swaps; the others hold what one of these holds, one step later or earlier
SWEPT = ("z", "q", "k", "v", "pattern", "resid_pre", "attn_out", "mlp_out")
# by which a later head takes up what an earlier one wrote, in words
UPTAKE = {name: SITES[name]["meaning"] for name in ("q", "k", "v")}
UNITS = {name: row["unit"] for name, row in SITES.items() if row["unit"]}


def module_of(layer: Any, site: str, spec: ModelSpec) -> Any:
    """Return the module whose input or output a site is."""
    part = SITES[site]["part"]
    if part == "block":
        return layer
    if part in ("attention", "projection"):
        return layer.attention if part == "attention" else layer.attention.projection
    return reach(layer, spec[part])  # type: ignore[literal-required]


def held(layer: Any, site: str, spec: ModelSpec) -> torch.Tensor:
    """Return the very tensor that the run goes on with; of a view no gradient can be asked."""
    if SITES[site]["part"] == "kernel":
        return kernel_tensor(layer, site, spec["kernel"])
    module = module_of(layer, site, spec)
    tensor: torch.Tensor = module.input if SITES[site]["end"] == "input" else hidden(module.output)
    return tensor


def by_unit(tensor: torch.Tensor, site: str, spec: ModelSpec, rows: int) -> Value:
    """View a held tensor, or its gradient, by row, unit, position and width."""
    if SITES[site]["part"] == "kernel":
        return by_kernel_head(tensor, site, spec)
    if site == "z":
        return split_heads(tensor, spec["heads"]).transpose(1, 2)
    return tensor.reshape(rows, -1, tensor.shape[-1]).unsqueeze(1)  # OPT's MLP runs flattened rows


def read_site(layer: Any, site: str, spec: ModelSpec, size: Sequence[int]) -> Value:
    """Return a site's value: a live view, except for the pattern of a fused kernel.

    Call it at the site's turn in the order of execution. size: rows, and positions that are run; a
    cache may hold more keys before them.
    """
    rows, length = size
    if site == "pattern":
        return read_pattern(layer, spec, length)
    value = by_unit(held(layer, site, spec), site, spec, rows)
    return value[..., -length:, :] if SITES[site]["part"] == "kernel" else value


def write_site(layer: Any, site: str, new: Value, spec: ModelSpec) -> None:
    """Put a site's whole value back, as `read_site` gives it.

    Out of place, so that gradients flow; but queries, keys and values are the kernel's own tensors,
    which nothing before it reads again.
    """
    if site == "pattern":
        write_pattern(layer, new, spec)
    elif SITES[site]["part"] == "kernel":
        kernel_input(layer, site, spec)[..., -new.shape[-2] :, :] = new
    elif site == "z":
        layer.attention.projection.input = new.transpose(1, 2).flatten(2)
    else:
        write_module(module_of(layer, site, spec), SITES[site]["end"], new)


def write_module(module: Any, end: str, new: torch.Tensor) -> None:
    """Put new values into a module's first input or output, in the shape that it has."""
    if end == "input":
        module.input = new.reshape(module.input.shape)
    else:
        module.output = packed(new.reshape(hidden(module.output).shape), module.output)


def put_site(
    layer: Any, index: int, site: str, write: Write, spec: ModelSpec, size: Sequence[int]
) -> None:
    """Put new values into some rows and units of a site in place, and leave the others alone."""
    if site == "pattern":
        put_pattern(layer, index, write, spec, size[1])
    else:
        put(read_site(layer, site, spec, size), write, write.get("values"))

"""How much memory a sweep takes besides the weights, before it runs.

    peak_bytes(model, plan)

Counted are what is remembered of the plain runs (residual streams, a site's values, key-value
caches), and the largest forward: its copies of the cache, the widest activations, and logits.
"""

from __future__ import annotations

from dataclasses import dataclass

from nnheads.models.geometry import Geometry, geometry
from nnheads.patching.forward_size import cached_numbers, logit_numbers
from nnheads.patching.prepared import PreparedSweep
from nnheads.trace.plain import Chunk, Request
from nnheads.trace.sites import SITES

WIDE = 2  # of a block's widest activations that are held at once: gate, up, and their product
NARROW = 3  # of the residual's width: the stream, its norm, what is added, and their sum


@dataclass(frozen=True)
class Shape:
    """Sizes that the memory of a sweep follows from.

    cases, sources, width: rows of the text that is run, rows of the source, positions of both.
    keys: numbers that the caches of one layer hold for one position.
    widest: numbers of a block's widest activation at one position.
    """

    sizes: Geometry
    cases: int
    sources: int
    width: int
    keys: int
    widest: int


def peak_bytes(model, plan: PreparedSweep) -> int:
    """Return what is kept of the plain runs, and the largest forward beside it.

    It is the most of two moments: the source's run, with its own cache, and a swapped run.
    """
    shape = shape_of(model, plan)
    element = next(model._module.parameters()).element_size()
    swapped = max((swapped_numbers(shape, one) for one in plan.order.chunks), default=0)
    cached = shape.width * shape.keys * shape.sizes.layers
    plain = forward_numbers(shape, max(shape.cases, shape.sources), 0) + shape.sources * cached
    held = remembered(shape, plan) + shape.cases * cached + max(swapped, plain)
    return int(element * held) + logit_bytes(model, plan, element)


def shape_of(model, plan: PreparedSweep) -> Shape:
    """Return the sizes of a model and of what it runs."""
    sizes, (cases, width) = geometry(model), plan.inputs["input_ids"].shape
    sources = 0 if plan.source is None else int(plan.source["input_ids"].shape[0])
    return Shape(sizes, cases, sources, width, cached_numbers(model), widest(model))


def widest(model) -> int:
    """Return the numbers of the widest activation in a block, at one position."""
    blocks = model.layers._module
    matrices = [p for p in blocks[0].parameters() if p.dim() > 1]
    return max(max(matrix.shape[-2:]) for matrix in matrices)


def remembered(shape: Shape, plan: PreparedSweep) -> int:
    """Return the numbers that are kept of the plain runs, besides their caches."""
    sizes, site = shape.sizes, plan.task["options"]["site"]
    starts = len({layer for _, layer, _, _ in plan.order.chunks})
    touched = len({int(layer) for layer in plan.order.entries[:, 1]})
    at_starts = sizes.d_model + (sizes.heads * sizes.head_dim if site == "z" else 0)
    mixed = shape.cases if plan.mix is not None else 0
    values = (shape.sources + mixed) * shape.width * site_width(shape, site) * touched
    return shape.cases * shape.width * at_starts * starts + values


def site_width(shape: Shape, site: str) -> int:
    """Return the numbers of a site at one position."""
    sizes = shape.sizes
    if site == "pattern":
        return sizes.heads * shape.width
    units = {"head": sizes.heads, "kv_head": sizes.kv_heads}.get(SITES[site]["unit"] or "")
    return sizes.d_model if units is None else units * sizes.head_dim


def swapped_numbers(shape: Shape, chunk: Chunk) -> int:
    """Return the numbers that a swapped forward holds, its copies of the cache among them."""
    start, layer, first, last = chunk
    behind = shape.keys * shape.width * (shape.sizes.layers - layer) if start else 0
    return forward_numbers(shape, last - first, start) + (last - first) * behind


def forward_numbers(shape: Shape, rows: int, start: int) -> int:
    """Return the numbers of a block's activations; keys and values of groups are repeated."""
    sizes = shape.sizes
    attended = 2 * sizes.heads * sizes.head_dim * shape.width
    stream = WIDE * shape.widest + NARROW * sizes.d_model
    return rows * (attended + (shape.width - start) * stream)


def logit_bytes(model, plan: PreparedSweep, element: int) -> int:
    """Return the bytes of logits.

    Logits are single precision where more is read of them than the answers.
    """
    request, cases = plan.task["request"], plan.inputs["input_ids"].shape[0]
    wide = 4 if request["full"] else element
    # the unchanged run is compared with nothing, and then kept as what others are compared with
    unchanged: Request = {**request, "full": min(request["full"], 1)}
    compared = request["answers"].shape[1] * geometry(model).vocabulary * (request["full"] > 1)
    most = max((last - first for _, _, first, last in plan.order.chunks), default=0)
    swapped = most * logit_numbers(model, request) + cases * compared
    return int(wide * max(cases * logit_numbers(model, unchanged), swapped))

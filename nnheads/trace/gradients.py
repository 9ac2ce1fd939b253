"""What swaps would do to a metric, estimated from its gradient for all layers and heads at once.

One forward of the source, one forward and one backward of the text that is changed. A swap moves an
activation by source - own; to first order the metric moves by that times its gradient. Two places
where the first order misleads are mended if asked:
- Attention saturates. For queries and keys the layer's head outputs z are computed again with the
  source's, and the gradient is taken at z, which enters linearly. The change of the weights dA
  counts through its values: sum_k dA[i, k] <dm/dz_i, v_k> is <dm/dz_i, z'_i - z_i>, so no pattern
  is needed, and any attention implementation will do.
- Direct and indirect effects cancel. The gradient is taken again with each layer cut off in turn.
  Where a layer's contribution is cut off, the gradient at its input is the one at its output, so
  one graph serves all of them.

The tracing half of `patching.attribution`, shipped to servers as source: torch only, no decorators.
Sandboxes run no gradients. Traces inside a session hand on all their names; what is saved is what
leaves the server, and graphs must not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from nnsight import save

from nnheads.trace.blocks import hidden
from nnheads.trace.key_moves import moved_by_key
from nnheads.trace.moves import Move, move_of
from nnheads.trace.plain import GradientOptions, Inputs, ModelSpec, Request
from nnheads.trace.readout import read_logits
from nnheads.trace.session import remote_of
from nnheads.trace.sites import by_unit, held

Where = Bool[torch.Tensor, "case position"]
Estimate = Float[torch.Tensor, "layer case unit place"]


def attribute(
    model: Any,
    inputs: Inputs,
    source: Inputs,
    request: Request,
    slope: Float[torch.Tensor, "case question reading"],
    where: Where,
    options: GradientOptions,
) -> tuple[Estimate, Estimate, torch.Tensor, torch.Tensor]:
    """Estimate how the metric changes by swapping each unit of the chosen layers.

    Args:
        inputs, source: the text that is changed, and the one that values come from.
        slope: the metric's derivative by each reading.
        where: which positions are swapped.

    Returns:
        signed estimates and their sizes (averaged over the layers cut off) [layer, case, unit,
        place], and the readings of both texts [case, question, reading].
    """
    with model.session(remote=remote_of(model)):
        site, spec, layers = options["site"], options["spec"], options["layers"]
        node = "z" if options["fix"] and site in ("q", "k") else site
        with torch.no_grad():
            other = forward(model, source, request, layers, site, spec)
        with torch.enable_grad():
            own = forward(model, inputs, request, layers, node, spec)
        moves = [
            move_of(model, inputs, own, other, number, where, options)
            for number in range(len(layers))
        ]
        estimate, size = backward(own, slope, moves, options)
        own_read, source_read = save(own["read"].detach().clone()), save(other["read"].clone())
        estimate, size = save(estimate), save(size)
    return estimate, size, own_read, source_read


def readings(
    model: Any, inputs: Inputs, request: Request, options: GradientOptions
) -> Float[torch.Tensor, "case question reading"]:
    """Return what is asked of a plain run."""
    site, spec = options["site"], options["spec"]
    with torch.no_grad(), model.session(remote=remote_of(model)):
        plain = forward(model, inputs, request, [], site, spec)
        read = save(plain["read"].clone())
    return read  # type: ignore[no-any-return]


def forward(
    model: Any, inputs: Inputs, request: Request, layers: Sequence[int], site: str, spec: ModelSpec
) -> dict[str, Any]:
    """Run the model once, so that gradients can be asked of it.

    Returns:
        nodes, the site's tensors at `layers`, and copies of their values; streams, the residual
        stream around every layer; read, what is asked. Unless gradients are disabled, all but the
        copies remember how they came about.
    """
    last = len(list(model.layers)) - 1
    with model.trace(**inputs, use_cache=False, logits_to_keep=request["keep"]):
        nodes, values, streams = [], [], []
        # or frozen weights would leave nothing to differentiate
        model.embedding.output.requires_grad_(True)
        for index in range(last + 1):
            layer = model.layers[index]
            streams.append(layer.input)
            if index in layers:
                nodes.append(held(layer, site, spec))
                # a copy, because Falcon goes on to add to what its MLP returned in place
                values.append(nodes[-1].detach().clone())
        streams.append(hidden(model.layers[last].output))
        read = read_logits(model, request)
    return {"nodes": nodes, "values": values, "streams": streams, "read": read}


def backward(
    own: dict[str, Any], slope: torch.Tensor, moves: list[Move], options: GradientOptions
) -> tuple[Estimate, Estimate]:
    """Return estimates and their sizes from the graph of the run that is changed."""
    nodes, streams, read = own["nodes"], own["streams"], own["read"]
    drop = options["drop"] and len(streams) > 2
    targets = [*nodes, *streams[1:]] if drop else nodes
    gradients = torch.autograd.grad(read, targets, slope.to(read.device), retain_graph=drop)
    pairs = zip(gradients, moves)
    plain = [estimated(gradient, move, options) for gradient, move in pairs]
    if not drop:
        return torch.stack(plain), torch.stack(plain).abs()
    sizes = dropped_sizes(own, plain, gradients[len(nodes) :], moves, options)
    return torch.stack(plain), torch.stack(sizes) / (len(streams) - 2)


def dropped_sizes(
    own: dict[str, Any],
    plain: list[torch.Tensor],
    through: Sequence[torch.Tensor],
    moves: list[Move],
    options: GradientOptions,
) -> list[torch.Tensor]:
    """Return the sums of |estimate| [case, unit, place] over the layers that are cut off.

    through: the gradient behind each layer, which then is the one before it.
    """
    nodes, layers = own["nodes"], options["layers"]
    # a layer below the node does not touch its gradient, its own layer leaves none
    sizes = [one.abs() * index for one, index in zip(plain, layers)]
    for dropped, stream in enumerate(own["streams"][:-1]):
        below = [number for number, index in enumerate(layers) if index < dropped]
        tensors = [nodes[number] for number in below]
        gradients = through_stream(stream, tensors, through[dropped])
        for number, gradient in zip(below, gradients):
            sizes[number] = sizes[number] + estimated(gradient, moves[number], options).abs()
        if options["site"] == "resid_pre" and dropped in layers:
            # it stands before the layer and flows around it
            number = layers.index(dropped)
            around = estimated(through[dropped], moves[number], options)
            sizes[number] = sizes[number] + around.abs()
    return sizes


def through_stream(
    stream: torch.Tensor, tensors: list[torch.Tensor], gradient: torch.Tensor
) -> Sequence[torch.Tensor]:
    """Return the gradients at tensors below a stream that has the given gradient."""
    if not tensors:
        return []
    return torch.autograd.grad(stream, tensors, gradient, retain_graph=True)


def estimated(
    gradient: torch.Tensor, move: Move, options: GradientOptions
) -> Float[torch.Tensor, "case unit place"]:
    """Return the change of the metric, from the gradient at the site, or at z if that was fixed."""
    site, spec = options["site"], options["spec"]
    fixed = options["fix"] and site in ("q", "k")
    if "before" in move:
        slopes = by_unit(gradient, "z", spec, gradient.shape[0]).double()
        return grouped(moved_by_key(slopes, move), spec).float().cpu()
    delta = move["delta"]
    slopes = by_unit(gradient, "z" if fixed else site, spec, delta.shape[0])
    moved = (delta * slopes.float()).sum(-1)
    # copies of a key or value for each head of its group
    moved = moved.sum(2) if moved.dim() == 4 else moved
    moved = moved if options["each"] else moved.sum(-1, keepdim=True)
    moved = grouped(moved, spec) if fixed and site == "k" else moved
    return moved.cpu()  # layers may be on several devices


def grouped(
    moved: Float[torch.Tensor, "row head place"], spec: ModelSpec
) -> Float[torch.Tensor, "row kv_head place"]:
    """Return sums over the heads that share a key."""
    total: torch.Tensor = moved.unflatten(1, (spec["kv_heads"], -1)).sum(2)
    return total

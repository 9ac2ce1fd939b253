"""The parts of a block inside a trace, and how a run starts or ends somewhere in the middle.

    z = read_z(model.layers[9], heads)      # [batch, position, head, dim], a live view
    z[:, -1, 6] = 0                         # changes the run

z is the input of the attention output projection, split by head. Everything here is shipped to
remote servers as source: it uses torch alone, takes device and dtype from the tensors, and wears no
decorator.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float

from nnheads.trace.plain import Write


def split_heads(
    z: Float[torch.Tensor, "*lead width"], heads: int
) -> Float[torch.Tensor, "*lead head dim"]:
    """View the projection's input by head.

    The head size is read off z: it is not d_model / heads in general.
    """
    return z.view(*z.shape[:-1], heads, z.shape[-1] // heads)


def read_z(layer: Any, heads: int) -> Float[torch.Tensor, "batch position head dim"]:
    """Return the head outputs of one layer, a live view: writing into it changes the run.

    Clone what you keep.
    """
    return split_heads(layer.attention.projection.input, heads)


def hidden(output: Any) -> Float[torch.Tensor, "*lead d_model"]:
    """Return the hidden states in what a module returned; some return (hidden states, more).

    Most are [batch, position, d_model]; OPT flattens the rows of its MLP. A whole language model
    returns its logits first, by name.
    """
    if isinstance(output, dict):
        output = output[next(iter(output))]
    states: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return states


def packed(new: torch.Tensor, output: Any) -> Any:
    """Put a new first output among the others that a module returns."""
    if isinstance(output, dict):
        output[next(iter(output))] = new
        return output
    return (new, *output[1:]) if isinstance(output, tuple) else new


def reach(module: Any, path: str) -> Any:
    """Return a module below another by its path, such as `encoder.layers.3`; "" is itself."""
    for name in path.split(".") if path else []:
        module = module[int(name)] if name.isdigit() else getattr(module, name)
    return module


def put(
    view: torch.Tensor, write: Write, new: Float[torch.Tensor, "entry *group position width"] | None
) -> None:
    """Write new values, or zeros for None, into some rows and units of a live view in place."""
    pick = (write["row"].to(view.device), write["unit"].to(view.device))
    now = view[pick]
    where = write["where"].to(view.device)
    where = where.reshape(where.shape[0], *([1] * (now.dim() - 3)), -1, 1)
    values = torch.zeros_like(now) if new is None else new.to(now)
    view[pick] = torch.where(where, now + values if write.get("add") else values, now)


def start_at(
    model: Any,
    layer: int,
    residual: Float[torch.Tensor, "batch position d_model"],
    tuple_block: bool,
) -> None:
    """Skip the blocks below `layer`, which then receives `residual` as its input."""
    for below in range(layer):
        model.layers[below].skip((residual, None) if tuple_block else residual)


def leave_out(model: Any, above: int, output: Any = None) -> None:
    """End a trace that others follow in its session: skip the blocks from `above` on.

    They hand on `output`, what the block below returned, and one logit is computed. Not
    `tracer.stop()`: NDIF's sandbox (0.1.2) never takes the answer to a stopped trace off its
    socket, so that the next trace of the session ends before it begins.
    """
    for index in range(above, len(list(model.layers))):
        model.layers[index].skip(output)
    model.unembedding.skip(model.unembedding.input[..., :1])


def narrow(layer: Any, attended: bool = False) -> None:
    """Run the rest of a block for the last position alone, because only its answer is read.

    The parts' sums broadcast over the other positions, whose values are wrong from here on and
    never used. `attended`: its attention was left out.
    """
    if not attended:
        layer.attention.projection.input = layer.attention.projection.input[:, -1:]
    part = layer.mlp.input
    if part.dim() == 3:  # OPT's is flattened over rows and stays whole
        layer.mlp.input = part[:, -1:]

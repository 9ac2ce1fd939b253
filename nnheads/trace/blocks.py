"""Head outputs z inside a trace, and what a trace is fed.

z is the input of the attention output projection, split by head. Everything here is shipped to
remote servers as source, so it uses torch alone, takes device and dtype from the tensors, and wears
no decorator.
"""

from __future__ import annotations

import torch
from jaxtyping import Float


def split_heads(
    z: Float[torch.Tensor, "*lead width"], heads: int
) -> Float[torch.Tensor, "*lead head dim"]:
    """View the projection's input by head.

    The head size is read off z: it is not d_model / heads in general.
    """
    return z.view(*z.shape[:-1], heads, z.shape[-1] // heads)


def read_z(layer, heads: int) -> Float[torch.Tensor, "batch position head dim"]:
    """Head outputs of one layer: a live view, so writing into it changes the run.

    Clone what you keep.
    """
    return split_heads(layer.attention.projection.input, heads)


def hidden(output) -> Float[torch.Tensor, "*lead d_model"]:
    """The hidden states in what a module returned: some modules return (hidden states, something
    else). Most are [batch, position, d_model]; OPT flattens the rows of its feed-forward part."""
    return output[0] if isinstance(output, tuple) else output


def start_at(
    model, layer: int, residual: Float[torch.Tensor, "batch position d_model"], tuple_block: bool
) -> None:
    """Skip the blocks below `layer`, which then receives `residual` as its input."""
    for below in range(layer):
        model.layers[below].skip((residual, None) if tuple_block else residual)


def leave_out(model, above: int, output=None) -> None:
    """End a trace that others follow in its session: the blocks from `above` on hand on `output`,
    what the block below returned, and one logit is computed.

    Not `tracer.stop()`: NDIF's sandbox (0.1.2) never takes the answer to a stopped trace off its
        socket, so that the
    next trace of the session ends before it begins.
    """
    for index in range(above, len(list(model.layers))):
        model.layers[index].skip(output)
    model.unembedding.skip(model.unembedding.input[..., :1])


def reach(module, path: str):
    """A module below another by its path, such as `encoder.layers.3.linear`."""
    for name in path.split("."):
        module = module[int(name)] if name.isdigit() else getattr(module, name)
    return module

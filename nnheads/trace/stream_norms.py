"""The size of the residual stream inside a trace.

Shipped to remote servers as source: torch only, no decorators.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from nnsight import save

from nnheads.trace.blocks import hidden
from nnheads.trace.lens import stacked
from nnheads.trace.plain import Inputs
from nnheads.trace.session import remote_of


def stream_norms(model: Any, inputs: Inputs) -> Float[torch.Tensor, "layer row position"]:
    """Return the L2 norm of the residual stream after every layer, from one forward."""
    with (
        torch.no_grad(),
        model.trace(**inputs, use_cache=False, logits_to_keep=1, remote=remote_of(model)),
    ):
        norms = [hidden(layer.output).float().norm(dim=-1) for layer in model.layers]
        result = save(stacked(norms).cpu())
    return result  # type: ignore[no-any-return]

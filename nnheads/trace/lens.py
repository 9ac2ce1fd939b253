"""The logit lens inside a trace: what every layer's residual stream would answer.

Shipped to remote servers as source: torch only, no decorators.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float

from nnheads.trace.blocks import hidden
from nnheads.trace.readout import readout
from nnheads.trace.rows import read_rows


def read_lens(
    model: Any, request: dict[str, Any]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Read the residual stream of the first text before every layer, and after the last.

    request: `scale` and `cap` of the logits, `interface` of the family's attention, and `head`
        (layer, head), whose pattern is kept, or None.

    Returns:
        its L2 norm, the best token and its probability [layer + 1, position]; and the pattern
        [query, key], if one is kept.
    """
    norms, tokens, chances, patterns = [], [], [], []
    for index, layer in enumerate(model.layers):
        norm, token, chance = read_stream(model, layer.input[0], request)
        norms.append(norm)
        tokens.append(token)
        chances.append(chance)
        if request["head"] is not None and request["head"][0] == index:
            rows = read_rows(layer, request["interface"])
            patterns.append(rows[0, request["head"][1]].clone())
    norm, token, chance = read_stream(model, hidden(layer.output)[0], request)
    norms, tokens, chances = ([*norms, norm], [*tokens, token], [*chances, chance])
    return stacked(norms), stacked(tokens), stacked(chances), patterns


def read_stream(
    model: Any, stream: Float[torch.Tensor, "position d_model"], request: dict[str, Any]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the norm of a residual stream, its best token and the token's probability."""
    best = readout(model, stream, request["scale"], request["cap"]).max(-1)
    return stream.float().norm(dim=-1), best.indices, best.values.exp()


def stacked(parts: list[torch.Tensor]) -> torch.Tensor:
    """Stack tensors of layers that may be on several devices, where the last one is."""
    return torch.stack([part.to(parts[-1].device) for part in parts])

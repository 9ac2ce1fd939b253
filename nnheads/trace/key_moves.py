"""What replacing one key alone does to a head's output: arithmetic on attention scores.

With the weight w of a key and the mean m of what the others bring, a row brings w a + (1 - w) m:
the key's own new weight says it all. What the others sum to leaves the key out from the start;
subtracting it from the whole would lose it wherever attention is saturated.
Shipped to remote servers as source: torch only.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float

Scores = Float[torch.Tensor, "row head query key"]


def moved_by_key(
    slopes: Float[torch.Tensor, "row head query dim"], move: dict[str, Any]
) -> Float[torch.Tensor, "row head key"]:
    """Return the change of the metric if one key alone is replaced, summed over its queries.

    move: `before`, `after`, scores without and with the new keys; `sinks`; `values`.
    """
    before, after = move["before"], move["after"]
    brought = slopes @ move["values"].transpose(-1, -2)
    top = before.max(-1, keepdim=True).values
    top, sink = with_sinks(top, move["sinks"])
    weight = (before - top).exp()
    others = (all_but_one(weight) + sink).clamp(min=torch.finfo(weight.dtype).tiny)
    mean = all_but_one(weight * brought) / others
    reference = top + others.log()
    gained = (after - reference).sigmoid() - (before - reference).sigmoid()
    moved: torch.Tensor = gained.mul(brought - mean).sum(-2)
    return moved


def with_sinks(
    top: Float[torch.Tensor, "row head query 1"], sinks: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each row's largest score with its sink, and the sink's weight relative to it."""
    if sinks is None:
        return top, torch.zeros_like(top)
    own = sinks.double().reshape(1, -1, 1, 1).expand_as(top)
    top = torch.maximum(top, own)
    return top, (own - top).exp()


def all_but_one(values: Scores) -> Scores:
    """Return sums along the last axis that leave out each element in turn, without subtraction."""
    nothing = torch.zeros_like(values[..., :1])
    left = torch.cat([nothing, values[..., :-1]], -1).cumsum(-1)
    right = torch.cat([values[..., 1:], nothing], -1).flip(-1).cumsum(-1).flip(-1)
    return left + right

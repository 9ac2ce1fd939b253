"""The two ends of a path: which heads send, which receive, and at which positions.

    receivers = receivers_of([(2, 1)], "q", geometry(model))      # {2: [1]}
    senders = senders_of(None, receivers, geometry(model))        # every head below layer 2

Raises BadInput for heads that do not exist, and for receivers that no sender reaches.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Int

from nnheads.errors import BadInput
from nnheads.models.geometry import Geometry
from nnheads.models.names import head_name
from nnheads.patching import cells as which
from nnheads.patching.cells import Regions
from nnheads.patching.prepared import questions
from nnheads.trace.sites import UPTAKE

Heads = Sequence[tuple[int, int]]
Receivers = dict[int, list[int]]  # layer -> heads, or key/value heads


def receivers_of(receivers: Heads | None, via: str, sizes: Geometry) -> Receivers:
    """Return layer -> units whose queries, keys or values receive; empty for the logits."""
    if receivers is None:
        return {}
    if via not in UPTAKE:
        raise BadInput(f"via {via!r} is not known; receivers take up by their q, k or v")
    if len(receivers) == 0:
        raise BadInput("no receivers were named; name heads, or none at all for the logits")
    which.check_members([receivers], sizes.layers, sizes.heads)
    receiving: dict[int, set[int]] = {}
    for layer, head in receivers:
        unit = head if via == "q" else head * sizes.kv_heads // sizes.heads
        receiving.setdefault(int(layer), set()).add(int(unit))
    return {layer: sorted(units) for layer, units in sorted(receiving.items())}


def senders_of(
    senders: Heads | None, receivers: Receivers, sizes: Geometry
) -> list[tuple[int, int]]:
    """Return the senders, each of which stands before some receiver."""
    top = max(receivers, default=sizes.layers)
    if top == 0:
        raise BadInput("no head stands before layer 0; choose receivers in higher layers")
    if senders is None:
        return [(layer, head) for layer in range(top) for head in range(sizes.heads)]
    if len(senders) == 0:
        raise BadInput("no senders were named; name heads, or leave them out for all")
    which.check_members([senders], sizes.layers, sizes.heads)
    for layer, head in senders:
        if layer >= top:
            raise BadInput(
                f"receivers before senders: {head_name(layer, head)} stands in or above the highest"
                f" receivers' layer {top}; only lower heads reach them"
            )
    return [(int(layer), int(head)) for layer, head in senders]


def path_positions(
    prompts: xr.Dataset, regions: Regions, receivers: Receivers, via: str, layers: int
) -> tuple[Regions, Int[torch.Tensor, "region case position"] | None]:
    """Return the regions that can matter, and the positions that step C has to run; None for all.

    The logits, and what the last layer's queries do for them, depend on the asked positions alone.
    """
    asked, _ = questions(prompts)
    width = prompts.sizes["position"]
    end = bool((asked == width - 1).all())
    if not receivers or (end and via == "q" and min(receivers) == layers - 1):
        regions = regions & (np.arange(width) == asked[..., None]).any(1)
    if not receivers:
        positions = torch.from_numpy(np.maximum(asked, 0)).expand(len(regions), -1, -1)
        return regions, positions
    single = bool((regions.sum(-1) <= 1).all())
    return regions, torch.from_numpy(regions.argmax(-1))[..., None] if single else None

"""The beginning of each prompt, before the first position that is changed: read once for all steps.

    begun = beginning(model, intervention, base)
    module(**begun.behind(inputs))                 # the rest of the prompts alone

What stands before the first edit is the same at every step of a training. Its keys and values are
kept, and only what follows runs again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Int

from nnheads.generation.caches import CACHE_BYTES, Past, cache_of
from nnheads.interventions.positions import positions_of
from nnheads.interventions.schema import Intervention
from nnheads.models.families import family
from nnheads.models.geometry import geometry
from nnheads.models.inputs import inputs, positions_by_length

CUT = ("input_ids", "position_ids")  # the mask covers what was read before, too


@dataclass(frozen=True, eq=False)
class Beginning:
    """Keys and values of each layer [row, kv head, position, dim], of so many first positions."""

    past: Past
    length: int

    def rows(self, chosen: Int[np.ndarray, " row"]) -> Beginning:
        """Return those of some prompts."""
        pick = torch.from_numpy(chosen).to(self.past[0][0].device)
        return Beginning([(keys[pick], values[pick]) for keys, values in self.past], self.length)

    def behind(self, fed: dict[str, Any]) -> dict[str, Any]:
        """Return the inputs of a forward over what follows."""
        cut = {name: fed[name][:, self.length :] for name in CUT}
        return {**fed, **cut, "past_key_values": cache_of(self.past), "use_cache": True}


def beginning(
    model: Any, intervention: Intervention, base: xr.Dataset | torch.Tensor, batch_size: int = 64
) -> Beginning | None:
    """Read what stands before the first position that any edit acts at, in any prompt.

    Call it while the network is frozen and nothing takes gradients.

    Returns:
        None where nothing does, where the model cannot go on from keys and values as if it had read
        the whole, and where they would take more than CACHE_BYTES.
    """
    if not isinstance(base, xr.Dataset) or not _goes_on(model):
        return None
    acts = [positions_of(edit.at, base) for edit in intervention.edits]
    length = min((int(where[where >= 0].min()) for where in acts if (where >= 0).any()), default=0)
    if length < 1 or _bytes(model, base.sizes["batch"], length) > CACHE_BYTES:
        return None
    rows = range(0, base.sizes["batch"], batch_size)
    parts = [_read(model, base.isel(batch=slice(at, at + batch_size)), length) for at in rows]
    return Beginning([_joined(layer) for layer in zip(*parts)], length)


def _goes_on(model: Any) -> bool:
    return family(model).position_ids and not positions_by_length(model.config)


def _bytes(model: Any, rows: int, length: int) -> int:
    sizes, weight = geometry(model), next(model._module.parameters())
    each = 2 * sizes.layers * sizes.kv_heads * sizes.head_dim * weight.element_size()
    return rows * length * each


def _read(model: Any, base: xr.Dataset, length: int) -> Past:
    """Return the keys and values of the first positions of some prompts."""
    device = next(model._module.parameters()).device
    fed = {name: tensor[:, :length].to(device) for name, tensor in inputs(model, base).items()}
    options = {"past_key_values": cache_of([]), "use_cache": True, "logits_to_keep": 1}
    grown = model._module(**fed, **options).past_key_values
    return [(layer.keys, layer.values) for layer in grown.layers]


def _joined(parts: tuple) -> tuple[torch.Tensor, torch.Tensor]:
    keys, values = zip(*parts)
    return torch.cat(keys), torch.cat(values)

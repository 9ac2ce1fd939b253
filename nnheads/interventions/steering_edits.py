"""Steering as an intervention: a direction that is added, scaled, or replaced by a random one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from nnheads.errors import BadInput
from nnheads.interventions.operations import Add, Subtract
from nnheads.interventions.positions import ALL, At
from nnheads.interventions.schema import Edit, Intervention


def steering(
    directions: xr.Dataset,
    layer: int,
    strength: float = 1.0,
    *,
    at: At = ALL,
    head: int | None = None,
    unit: bool = False,
) -> Intervention:
    """Return the intervention that adds a direction of `steering_directions.direction`.

    Args:
        directions: (layer, [head or kv_head,] feature).
        strength: in lengths of the direction itself, so that 1 carries the mean of `away` to that
            of `toward`; with `unit`, in units of activation.
        head: of z, q, k or v: steer this head alone.

    Raises:
        BadInput: a layer or a head that has no direction.
    """
    _check_there(directions, layer, head)
    vector = directions["direction"].sel(layer=layer)
    vector = vector if head is None else vector.sel({_head_dim(directions): head})
    values = torch.from_numpy(np.ascontiguousarray(vector.values)).flatten()
    values = values / values.norm() if unit else values
    edit = Edit(
        directions.attrs["site"],
        Add("direction", scale=float(strength)),
        layer=layer,
        units=None if head is None else (head,),
        at=at,
    )
    return Intervention(edit, tensors={"direction": values})


def _head_dim(directions: xr.Dataset) -> str:
    return "kv_head" if "kv_head" in directions.dims else "head"


def _check_there(directions: xr.Dataset, layer: int, head: int | None) -> None:
    wanted = {"layer": layer} if head is None else {"layer": layer, _head_dim(directions): head}
    for name, value in wanted.items():
        if name not in directions.dims or value not in directions[name]:
            raise BadInput(
                f"there is no direction of {name} {value} for site {directions.attrs['site']}"
            )


def randomised(intervention: Intervention, seed: int = 0) -> Intervention:
    """Return the same intervention with random tensors in place of those that it adds.

    They have the same length: what any push as strong as this one would do. What is subtracted
    counts as added.
    """
    tensors = dict(intervention.tensors)
    generator = torch.Generator().manual_seed(seed)
    for name in sorted(_added(intervention.edits)):
        tensors[name] = _random_like(tensors[name], generator)
    return intervention.with_tensors(tensors)


def _added(edits: Sequence[Edit]) -> set[str]:
    added = [edit.do for edit in edits if isinstance(edit.do, (Add, Subtract))]
    return {name for do in added for name in do.tensors}


def _random_like(
    tensor: Float[torch.Tensor, "*feature"], generator: torch.Generator
) -> Float[torch.Tensor, "*feature"]:
    """Return a random tensor of the same shape and length."""
    drawn = torch.randn(tensor.shape, generator=generator)
    return drawn * (tensor.float().norm() / drawn.norm())


def scaled(intervention: Intervention, strength: float) -> Intervention:
    """Return the same intervention, what it adds or subtracts `strength` times as strong."""
    edits = [_scaled_edit(edit, strength) for edit in intervention.edits]
    return Intervention(*edits, tensors=intervention.tensors, mode=intervention.mode)


def _scaled_edit(edit: Edit, strength: float) -> Edit:
    if not isinstance(edit.do, (Add, Subtract)):
        return edit
    return dataclasses.replace(
        edit, do=dataclasses.replace(edit.do, scale=edit.do.scale * strength)
    )

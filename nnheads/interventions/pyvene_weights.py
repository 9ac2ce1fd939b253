"""What pyvene keeps of an intervention in intkey_*.bin, as one of our operations and its tensors."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from nnheads.errors import BadInput, first_line
from nnheads.interventions import schema

LEARNED = (
    "RotatedSpaceIntervention",
    "LowRankRotatedSpaceIntervention",
    "BoundlessRotatedSpaceIntervention",
    "SigmoidMaskRotatedSpaceIntervention",
    "SigmoidMaskIntervention",
)
WITH_SOURCE = ("VanillaIntervention", "AdditionIntervention", "SubtractionIntervention")


def weights(path: Path) -> dict[str, torch.Tensor]:
    """A file of weights. Anything else in it is refused before it is built."""
    if not path.is_file():
        raise BadInput(f"no file {str(path)!r}; config.json names it")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise BadInput(f"{path} cannot be read as weights alone: {first_line(error)}") from None
    if not isinstance(found, dict) or not all(
        isinstance(one, torch.Tensor) for one in found.values()
    ):
        raise BadInput(f"{path} holds something else than named tensors")
    return found


def _need(weights: dict, name: str, file: str) -> torch.Tensor:
    if name not in weights:
        raise BadInput(
            f"intkey_{file}.bin has no {name}; it holds {', '.join(weights) or 'nothing'}"
        )
    return weights[name].detach().clone()


def operation(
    kind: str, weights: dict, prefix: str, name: str, dimension
) -> tuple[schema.Operation, dict]:
    """One of pyvene's interventions as an operation, and its tensors."""
    own: dict[str, torch.Tensor] = {}

    def keep(what: str, tensor: torch.Tensor) -> str:
        own[f"{prefix} {what}"] = tensor
        return f"{prefix} {what}"

    if kind == "ZeroIntervention":
        return schema.Zero(), own
    if kind == "CollectIntervention":
        return schema.Collect(name), own
    if kind in WITH_SOURCE:
        if not weights:
            scale = {"AdditionIntervention": 1.0, "SubtractionIntervention": -1.0}.get(kind)
            return (schema.Interchange() if scale is None else schema.AddSource(scale=scale)), own
        value = _need(weights, "source_representation", name).squeeze()
        if value.dim() != 1:
            raise BadInput(
                f"intkey_{name}.bin: source_representation has shape {tuple(value.shape)}; expected"
                " [feature]"
            )
        made = {"VanillaIntervention": schema.Set, "AdditionIntervention": schema.Add}.get(
            kind, schema.Subtract
        )
        return made(keep("source", value)), own
    if kind == "SigmoidMaskIntervention":
        mask = keep("mask", _need(weights, "mask", name))
        return schema.Mask(mask=mask, temperature=float(_need(weights, "temperature", name))), own
    rotation = _rotation(weights, name)
    key = keep("rotation", rotation)
    if kind == "LowRankRotatedSpaceIntervention":
        return (
            schema.LowRank(rotation=key)
            if rotation.shape[1] < rotation.shape[0]
            else schema.Rotate(rotation=key)
        ), own
    if kind == "RotatedSpaceIntervention":
        part = (
            tuple(range(dimension))
            if dimension is not None and dimension < rotation.shape[1]
            else None
        )
        return schema.Rotate(rotation=key, columns=part), own
    temperature = float(_need(weights, "temperature", name))
    if kind == "SigmoidMaskRotatedSpaceIntervention":
        mask = keep("mask", _need(weights, "masks", name))
        return schema.Mask(mask=mask, temperature=temperature, rotation=key), own
    return (
        schema.Mask(
            mask=keep("boundary", _boundary(weights, name, rotation.shape[1], temperature)),
            rotation=key,
        ),
        own,
    )


def _boundary(weights: dict, name: str, count: int, temperature: float) -> torch.Tensor:
    """pyvene's boundary as a mask: it weighs direction i by sigmoid(i / T) sigmoid((b n - i) / T),
    which is half for the first direction at any temperature, where ours is one."""
    boundary = _need(weights, "intervention_boundaries", name).double().clamp(1e-3, 1)
    place = torch.arange(count, dtype=torch.float64)
    share = torch.sigmoid(place / temperature) * torch.sigmoid(
        (boundary[0] * count - place) / temperature
    )
    return torch.logit(share).float()


def _rotation(weights: dict, name: str) -> torch.Tensor:
    """The orthogonal matrix [feature, direction], as torch's parametrization gives it."""
    if "rotate_layer.weight" in weights:
        return weights["rotate_layer.weight"].detach().clone()
    own = {
        key.removeprefix("rotate_layer."): value
        for key, value in weights.items()
        if key.startswith("rotate_layer.")
    }
    original = _need(own, "parametrizations.weight.original", name)
    layer: Any = torch.nn.Module()
    layer.weight = torch.nn.Parameter(torch.eye(*original.shape))
    try:
        layer = torch.nn.utils.parametrizations.orthogonal(layer)
        layer.load_state_dict(own)
    except (RuntimeError, ValueError) as error:
        raise BadInput(f"intkey_{name}.bin holds no rotation: {first_line(error)}") from None
    return layer.weight.detach().clone()

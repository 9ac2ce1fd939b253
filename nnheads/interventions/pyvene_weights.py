"""What pyvene keeps of an intervention in intkey_*.bin, as an operation and its tensors."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float

from nnheads.errors import BadInput, first_line
from nnheads.interventions import operations
from nnheads.interventions.operation import Operation

LEARNED = (
    "RotatedSpaceIntervention",
    "LowRankRotatedSpaceIntervention",
    "BoundlessRotatedSpaceIntervention",
    "SigmoidMaskRotatedSpaceIntervention",
    "SigmoidMaskIntervention",
)
WITH_SOURCE = ("VanillaIntervention", "AdditionIntervention", "SubtractionIntervention")
Tensors = dict[str, torch.Tensor]


def weights(path: Path) -> Tensors:
    """Return a file of weights. Anything else in it is refused before it is built.

    Raises:
        BadInput: no file, or one that holds more than named tensors.
    """
    if not path.is_file():
        raise BadInput(f"no file {str(path)!r}; config.json names it")
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise BadInput(f"{path} cannot be read as weights alone: {first_line(error)}") from None
    named = isinstance(tensors, dict)
    if not named or not all(isinstance(one, torch.Tensor) for one in tensors.values()):
        raise BadInput(f"{path} holds something else than named tensors")
    return tensors


@dataclass
class Stored:
    """The weights of one of pyvene's interventions, and the tensors that are made of them.

    Args:
        name: of the intervention, and of its file.
        prefix: of the names of our tensors.
        weights: what the file holds; nothing if it has no file.
        dimension: how many directions are used, if the config says so.
        tensors: filled as operations are made.
    """

    name: str
    prefix: str
    weights: Tensors
    dimension: int | None = None
    tensors: Tensors = field(default_factory=dict)

    def operation(self, kind: str) -> Operation:
        """Return the intervention as one of our operations.

        Args:
            kind: the name of pyvene's class.

        Raises:
            BadInput: weights that are missing, or of another shape.
        """
        if kind == "ZeroIntervention":
            return operations.Zero()
        if kind == "CollectIntervention":
            return operations.Collect(self.name)
        if kind in WITH_SOURCE:
            return self._constant(kind) if self.weights else self._from_source(kind)
        if kind == "SigmoidMaskIntervention":
            mask = self._keep("mask", self._need("mask"))
            return operations.Mask(mask=mask, temperature=self._temperature())
        return self._rotated(kind)

    def _from_source(self, kind: str) -> Operation:
        if kind == "VanillaIntervention":
            return operations.Interchange()
        return operations.AddSource(scale=1.0 if kind == "AdditionIntervention" else -1.0)

    def _constant(self, kind: str) -> Operation:
        """Return an operation whose source is kept in the file."""
        value = self._need("source_representation").squeeze()
        if value.dim() != 1:
            raise BadInput(
                f"intkey_{self.name}.bin: source_representation has shape {tuple(value.shape)};"
                " expected [feature]"
            )
        name = self._keep("source", value)
        if kind == "VanillaIntervention":
            return operations.Set(name)
        if kind == "AdditionIntervention":
            return operations.Add(name)
        return operations.Subtract(name)

    def _rotated(self, kind: str) -> Operation:
        rotation = self._rotation()
        features, directions = rotation.shape
        name = self._keep("rotation", rotation)
        if kind == "LowRankRotatedSpaceIntervention" and directions < features:
            return operations.LowRank(rotation=name)
        if kind == "LowRankRotatedSpaceIntervention":
            return operations.Rotate(rotation=name)
        if kind == "RotatedSpaceIntervention":
            return operations.Rotate(rotation=name, columns=self._columns(directions))
        if kind == "SigmoidMaskRotatedSpaceIntervention":
            mask = self._keep("mask", self._need("masks"))
            return operations.Mask(mask=mask, temperature=self._temperature(), rotation=name)
        boundary = self._boundary(directions, self._temperature())
        return operations.Mask(mask=self._keep("boundary", boundary), rotation=name)

    def _columns(self, directions: int) -> tuple[int, ...] | None:
        """Return the directions that are used; None for all."""
        if self.dimension is None or self.dimension >= directions:
            return None
        return tuple(range(self.dimension))

    def _keep(self, what: str, tensor: torch.Tensor) -> str:
        """Keep a tensor; return its name."""
        name = f"{self.prefix} {what}"
        self.tensors[name] = tensor
        return name

    def _need(self, name: str) -> torch.Tensor:
        return _needed(self.weights, name, self.name)

    def _temperature(self) -> float:
        return float(self._need("temperature"))

    def _boundary(self, count: int, temperature: float) -> Float[torch.Tensor, " direction"]:
        """Return pyvene's boundary as a mask.

        It weighs direction i by sigmoid(i / T) sigmoid((b n - i) / T), which is half for the first
        direction at any temperature, where ours is one.
        """
        boundary = self._need("intervention_boundaries").double().clamp(1e-3, 1)
        number = torch.arange(count, dtype=torch.float64)
        below = torch.sigmoid((boundary[0] * count - number) / temperature)
        share = torch.sigmoid(number / temperature) * below
        return torch.logit(share).float()

    def _rotation(self) -> Float[torch.Tensor, "feature direction"]:
        """Return the orthogonal matrix, as torch's parametrization gives it."""
        if "rotate_layer.weight" in self.weights:
            return self.weights["rotate_layer.weight"].detach().clone()
        prefix = "rotate_layer."
        state = {
            key.removeprefix(prefix): value
            for key, value in self.weights.items()
            if key.startswith(prefix)
        }
        original = _needed(state, "parametrizations.weight.original", self.name)
        layer: Any = torch.nn.Module()
        layer.weight = torch.nn.Parameter(torch.eye(*original.shape))
        try:
            layer = torch.nn.utils.parametrizations.orthogonal(layer)
            layer.load_state_dict(state)
        except (RuntimeError, ValueError) as error:
            raise BadInput(
                f"intkey_{self.name}.bin holds no rotation: {first_line(error)}"
            ) from None
        return layer.weight.detach().clone()


def _needed(tensors: Tensors, name: str, file: str) -> torch.Tensor:
    if name not in tensors:
        known = ", ".join(tensors) or "nothing"
        raise BadInput(f"intkey_{file}.bin has no {name}; it holds {known}")
    return tensors[name].detach().clone()

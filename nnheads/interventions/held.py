"""Tensors that stand in an operation itself, until an intervention names them (see `names`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from nnheads.errors import BadInput
from nnheads.interventions.plain_values import is_number


class Held:
    """A tensor in an operation that no intervention has named yet."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Held) and torch.equal(self.tensor, other.tensor)

    def __hash__(self) -> int:
        return hash(tuple(self.tensor.shape))

    def __repr__(self) -> str:
        return f"a tensor {tuple(self.tensor.shape)}"

    @classmethod
    def of(cls, value: Any) -> Held | None:
        """Return a tensor, an array or a list of numbers, held; None for anything else."""
        if isinstance(value, cls):
            return value
        if isinstance(value, torch.Tensor) and value.ndim:
            _check_tensor(value)
            return cls(value.detach() if value.requires_grad else value)
        listed = isinstance(value, (list, tuple)) and value and all(map(is_number, value))
        array = isinstance(value, np.ndarray) and value.ndim and value.dtype.kind in "fiu"
        if not listed and not array:
            return None
        held = torch.as_tensor(np.array(value, np.float32))
        _check_tensor(held)
        return cls(held)


def _check_tensor(tensor: torch.Tensor) -> None:
    """Refuse a tensor that cannot be added to features."""
    plain = tensor.layout == torch.strided and not tensor.is_complex() and not tensor.is_meta
    if not plain or bool(tensor.isnan().any()):
        raise BadInput(
            f"a tensor {tuple(tensor.shape)} of {tensor.dtype} cannot be used; expected real"
            " numbers"
        )

"""Whether the tensors of an operation have shapes that go with each other."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from nnheads.errors import BadInput
from nnheads.interventions.operation import Operation
from nnheads.interventions.operations import Boundless, LowRank, Mask, Rotate


def check_shapes(do: Operation, tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse boundaries, masks and rotations that no site could have.

    Raises:
        BadInput: a rotation that is no matrix or has more directions than features, a mask that
            does not go with it, a boundary of several numbers.
    """
    if isinstance(do, Boundless):
        _check_boundary(do.boundary, tensors[do.boundary])
    if isinstance(do, Mask):
        _check_mask(do.mask, tensors[do.mask])
    rotation = getattr(do, "rotation", None)
    if rotation is None:
        return
    directions = _check_rotation(rotation, tensors[rotation], isinstance(do, LowRank))
    if isinstance(do, Rotate) and do.columns is not None:
        _check_columns(do.columns, rotation, directions)
    if isinstance(do, Mask) and tensors[do.mask].numel() not in (1, directions):
        raise BadInput(
            f"mask {do.mask!r} has {tensors[do.mask].numel()} numbers; {rotation!r} has"
            f" {directions} directions"
        )


def _check_boundary(name: str, boundary: torch.Tensor) -> None:
    if boundary.numel() != 1:
        raise BadInput(f"boundary {name!r} has shape {tuple(boundary.shape)}; expected one number")


def _check_mask(name: str, mask: torch.Tensor) -> None:
    if mask.dim() > 1:
        raise BadInput(
            f"mask {name!r} has shape {tuple(mask.shape)}; expected a number for each feature"
        )


def _check_rotation(name: str, rotation: torch.Tensor, low_rank: bool) -> int:
    """Return how many directions a rotation has."""
    shape = tuple(rotation.shape)
    if len(shape) != 2 or shape[1] > shape[0]:
        raise BadInput(
            f"rotation {name!r} has shape {shape}; expected [feature, direction], no more"
            " directions than features"
        )
    if low_rank and shape[1] == shape[0]:
        raise BadInput(
            f"rotation {name!r} has as many directions as features; low rank means fewer"
        )
    return shape[1]


def _check_columns(columns: tuple[int, ...], rotation: str, directions: int) -> None:
    wrong = [column for column in columns if not 0 <= column < directions]
    if wrong:
        raise BadInput(f"direction {wrong[0]} does not exist; {rotation!r} has {directions}")

"""What operations do with features [row, position, feature].

    new = change({"name": "scale", "factor": 2.0}, features, None, {})

Shipped to remote servers as source: torch only; an operation arrives as plain data. Every one of
them is differentiable in its tensors, which is how alignments are trained.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float

Features = Float[torch.Tensor, "row position feature"]
Operation = dict[str, Any]  # an operation as `schema` writes it down, with its `name`
Tensors = dict[str, Any]


def change(do: Operation, base: Features, source: Any, tensors: Tensors) -> Features:
    """Return the new features.

    Tensors are looked up by name and follow the features to their device, and to their dtype
    unless they are trained.
    """
    name = do["name"]
    if name == "zero":
        return torch.zeros_like(base)
    if name == "collect":
        return base
    if name == "interchange":
        return source  # type: ignore[no-any-return]
    if name in ("function", "combine"):
        return called(do, base, source, tensors)
    if name in ("rotate", "lowrank", "pca", "boundless", "mask"):
        return exchanged(do, base, source, tensors)
    return moved(do, base, source, tensors)


def moved(do: Operation, base: Features, source: Any, tensors: Tensors) -> Features:
    """Return features that are set, scaled, or moved by a constant, noise or a source."""
    name = do["name"]
    if name in ("set", "mean"):
        return number(do["value"], base, tensors).expand_as(base)
    if name in ("add", "subtract"):
        sign = 1.0 if name == "add" else -1.0
        step: torch.Tensor = sign * do["scale"] * number(do["value"], base, tensors)
        return base + step
    if name == "scale":
        return base * do["factor"]  # type: ignore[no-any-return]
    if name == "noise":
        drawn = noise(base.shape, do["seed"], do.get("before")).to(base)
        return base + do["level"] * drawn  # type: ignore[no-any-return]
    return base + do["scale"] * source  # type: ignore[no-any-return]


def exchanged(do: Operation, base: Features, source: Features, tensors: Tensors) -> Features:
    """Return features whose part in some directions, or units of the mask, is the source's."""
    share = share_of(do, base, tensors)
    if do["rotation"] is None:
        return base + share * (source - base)  # type: ignore[no-any-return]
    directions = number(do["rotation"], base, tensors)
    if do.get("columns") is not None:
        directions = directions[:, list(do["columns"])]
    part = (source - base) @ directions
    return base + (part if share is None else part * share) @ directions.T


def share_of(do: Operation, base: Features, tensors: Tensors) -> Any:
    """Return the weight of each direction or unit in an exchange; None for all of it."""
    if do["name"] == "mask":
        return torch.sigmoid(number(do["mask"], base, tensors) / do["temperature"])
    if do["name"] == "boundless":
        count = tensors[do["rotation"]].shape[1]
        return boundary_mask(number(do["boundary"], base, tensors), count, do["temperature"])
    return None


def called(do: Operation, base: Features, source: Any, tensors: Tensors) -> Features:
    """Return what the user's own function makes of the features."""
    args = (base,) if do["name"] == "function" else (base, source)
    new: torch.Tensor = tensors[do["function"]](*args)
    if new.shape != base.shape:
        raise ValueError(
            f"your function returned shape {tuple(new.shape)} for features of shape"
            f" {tuple(base.shape)}"
        )
    return new


def number(value: Any, like: torch.Tensor, tensors: Tensors) -> torch.Tensor:
    """Return a constant, or a tensor by its name.

    Products of matrices laid out otherwise differ in their last bit, so all are laid out as they
    are in a file.
    """
    if isinstance(value, str):
        named: torch.Tensor = tensors[value]
        return named.to(device=like.device, dtype=like.dtype).contiguous()
    return torch.as_tensor(value, dtype=like.dtype, device=like.device)


def noise(shape: Any, seed: int, before: list[int] | None = None) -> Features:
    """Return the same draw on every device.

    What a place gets does not depend on how many rows or places there are beside it, so each is
    drawn alone: torch fills a longer tensor with other numbers. `before`: how many places of each
    row an earlier forward had.
    """
    rows = []
    for row in range(shape[0]):
        generator = torch.Generator().manual_seed(seed + row)
        drawn = 0 if before is None else before[row]
        places = [torch.randn(shape[2], generator=generator) for _ in range(drawn + shape[1])]
        rows.append(torch.stack(places[drawn:]))
    return torch.stack(rows)


def boundary_mask(boundary: torch.Tensor, count: int, temperature: float) -> torch.Tensor:
    """Return weights of `count` directions: 1 up to the boundary (a share of them), 0 beyond.

    The step is softened by the temperature.
    """
    each = torch.arange(count, device=boundary.device, dtype=boundary.dtype)
    share = (each + 0.5) / count
    return torch.sigmoid((boundary.clamp(0, 1) - share) * count / temperature)

"""What operations do with features [row, position, feature].

Shipped to remote servers as source: torch only; an operation arrives as plain data. Every one of
    them is
differentiable in its tensors, which is how alignments are trained.
"""

from __future__ import annotations

import torch
from jaxtyping import Float


def change(
    do: dict, base: Float[torch.Tensor, "row position feature"], source, tensors: dict
) -> Float[torch.Tensor, "row position feature"]:
    """The new features. `do` is an operation as `schema` writes it down, with its `name`; tensors
    are looked up by name and follow the features to their device, and to their dtype unless they
    are trained."""
    name = do["name"]
    if name == "zero":
        return torch.zeros_like(base)
    if name == "collect":
        return base
    if name in ("set", "mean"):
        return number(do["value"], base, tensors).expand_as(base)
    if name in ("add", "subtract"):
        sign = 1.0 if name == "add" else -1.0
        return base + sign * do["scale"] * number(do["value"], base, tensors)
    if name == "scale":
        return base * do["factor"]
    if name == "noise":
        return base + do["level"] * noise(base.shape, do["seed"], do.get("before")).to(base)
    if name == "interchange":
        return source
    if name == "addsource":
        return base + do["scale"] * source
    if name in ("rotate", "lowrank", "pca"):
        directions = number(do["rotation"], base, tensors)
        if do["columns"] is not None:
            directions = directions[:, list(do["columns"])]
        return base + ((source - base) @ directions) @ directions.T
    if name == "boundless":
        directions = number(do["rotation"], base, tensors)
        share = boundary_mask(
            number(do["boundary"], base, tensors), directions.shape[1], do["temperature"]
        )
        return base + (((source - base) @ directions) * share) @ directions.T
    if name == "mask":
        share = torch.sigmoid(number(do["mask"], base, tensors) / do["temperature"])
        if do["rotation"] is None:
            return base + share * (source - base)
        directions = number(do["rotation"], base, tensors)
        return base + (((source - base) @ directions) * share) @ directions.T
    new = tensors[do["function"]](*((base,) if name == "function" else (base, source)))
    if new.shape != base.shape:
        raise ValueError(
            f"your function returned shape {tuple(new.shape)} for features of shape"
            f" {tuple(base.shape)}"
        )
    return new


def number(value, like: torch.Tensor, tensors: dict) -> torch.Tensor:
    """A constant, or a tensor by its name. Products of matrices laid out otherwise differ in their
    last bit, so all are laid out as they are in a file."""
    if isinstance(value, str):
        return tensors[value].to(device=like.device, dtype=like.dtype).contiguous()
    return torch.as_tensor(value, dtype=like.dtype, device=like.device)


def noise(shape, seed: int, before: list[int] | None = None) -> torch.Tensor:
    """The same draw on every device. What a place gets does not depend on how many rows or places
    there are beside
    it, so each is drawn alone: torch fills a longer tensor with other numbers. `before`: how many
        places of each row
    an earlier forward had."""
    rows = []
    for row in range(shape[0]):
        generator = torch.Generator().manual_seed(seed + row)
        drawn = 0 if before is None else before[row]
        places = [torch.randn(shape[2], generator=generator) for _ in range(drawn + shape[1])]
        rows.append(torch.stack(places[drawn:]))
    return torch.stack(rows)


def boundary_mask(boundary, count: int, temperature: float) -> torch.Tensor:
    """Weights of `count` directions: 1 up to the boundary (a share of them), 0 beyond, softened by
    the temperature.
    """
    place = (torch.arange(count, device=boundary.device, dtype=boundary.dtype) + 0.5) / count
    return torch.sigmoid((boundary.clamp(0, 1) - place) * count / temperature)

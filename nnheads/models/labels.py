"""TODO docstring."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import xarray as xr

from nnheads.errors import RunError

if TYPE_CHECKING:
    pass


def label(
    tensor: torch.Tensor,
    dims: tuple[str, ...],
    *,
    long_name: str,
    units: str,
    source: str = "",
    **attributes,
) -> xr.DataArray:
    """A float32 DataArray (integers stay integers) with what a reader needs to know about it."""
    values = tensor.detach().cpu()
    values = values.float() if values.is_floating_point() else values
    attributes = {
        "long_name": long_name,
        "units": units,
        **({"source": source} if source else {}),
        **attributes,
    }
    return xr.DataArray(values.numpy(), dims=dims, attrs=attributes)


def check_finite(values: torch.Tensor, what: str) -> None:
    """Refuse NaN and infinity where they first show, before they spread through means."""
    if not bool(torch.isfinite(values).all()):
        raise RunError(
            f"{what} are not finite: broken weights, or a dtype that overflows; try --dtype float32"
        )

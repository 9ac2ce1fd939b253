"""Label what comes out of a trace: tensors in, `xr.DataArray` out.

    label(change, ("batch", "layer", "head"), long_name="change", units="logit")

This is the way out of the tensors; `inputs` is the way in. What is not finite is a RunError.
"""

from __future__ import annotations

from typing import Any

import torch
import xarray as xr

from nnheads.errors import RunError


def label(
    tensor: torch.Tensor,
    dims: tuple[str, ...],
    *,
    long_name: str,
    units: str,
    source: str = "",
    **attributes: Any,
) -> xr.DataArray:
    """Return a tensor as a float32 array (integers stay integers) that says what it holds.

    Args:
        dims: a name for each dimension of the tensor.
        long_name, units, source, attributes: what a reader needs to know about it.
    """
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
    """Refuse NaN and infinity where they first show, before they spread through means.

    Raises:
        RunError: a value that is not finite.
    """
    if not bool(torch.isfinite(values).all()):
        raise RunError(
            f"{what} are not finite: broken weights, or a dtype that overflows; try --dtype float32"
        )

"""The two settings that drift compares: how each side is loaded, and what it computes in.

    first, second = settings("float32", None, "bfloat16", remote=False)

The second differs from the first in one thing, the one that is named. Two sides that would be alike
are refused.
"""

from __future__ import annotations

import torch
import xarray as xr

from nnheads.errors import BadInput
from nnheads.models.inputs import inputs
from nnheads.models.loading import DTYPES, QUANTIZATIONS
from nnheads.trace.session import remote_of

ATTENTION = ("eager", "sdpa")
REMOTE = "remote"
CHANGES = [*(name for name in DTYPES if name != "auto"), *ATTENTION, *QUANTIZATIONS, REMOTE]


def settings(
    dtype: str, quantization: str | None, against: str, remote: bool | str | None
) -> tuple[dict, dict]:
    """Return how each side is loaded, as `models.load` takes it.

    Args:
        dtype, quantization: of the first side.
        against: what the second side changes: a dtype, "eager" or "sdpa" (attention), "4bit" or
            "8bit" (weights), or "remote" (the server of `remote`).

    Raises:
        BadInput: an unknown change, or two sides that would be alike.
    """
    _check(dtype, quantization, against, remote)
    first: dict = {"dtype": dtype, "quantization": quantization, "attention": None, "remote": False}
    if against == REMOTE:
        return first, {**first, "quantization": None, "remote": remote}
    if against in QUANTIZATIONS:  # which compute in a dtype of their own
        return first, {**first, "dtype": "auto", "quantization": against}
    return first, {**first, "attention" if against in ATTENTION else "dtype": against}


def _check(dtype: str, quantization: str | None, against: str, remote: bool | str | None) -> None:
    """Refuse changes that are not known, and sides that would be alike."""
    if against not in CHANGES:
        raise BadInput(f"Not a setting: --against {against!r}. Use one of {', '.join(CHANGES)}.")
    if (against == REMOTE) != bool(remote):
        raise BadInput(
            "One of --against remote and --remote is missing; they belong together. Name the server"
            " with --remote ndif or a URL."
        )
    if against in (dtype, quantization):
        raise BadInput(f"Both sides would be {against}. Name another with --against.")


def computed_in(model, prompts: xr.Dataset) -> str:
    """Return the dtype of head outputs where they are computed.

    A server has its own, whatever was asked for here.
    """
    from nnsight import save

    tokens = inputs(model, prompts.isel(batch=slice(0, 1)))
    with torch.no_grad(), model.trace(**tokens, use_cache=False, remote=remote_of(model)) as tracer:
        name = save(str(model.layers[0].attention.projection.input.dtype))
        tracer.stop()
    return name.replace("torch.", "")

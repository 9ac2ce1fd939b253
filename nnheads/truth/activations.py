"""Head outputs at the end of each statement: one trace a batch, finished batches kept, on disk when
memory is short.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from nnsight import save

from nnheads.errors import BadInput
from nnheads.models.geometry import geometry, model_spec
from nnheads.models.inputs import inputs
from nnheads.models.labels import check_finite
from nnheads.runs import batches
from nnheads.runs.provenance import prompts_hash
from nnheads.runs.store import writing
from nnheads.trace.blocks import read_z
from nnheads.trace.session import remote_of

KEPT_BYTES = (
    2**31
)  # head outputs of more than this lie in a file, of which only what is looked at is in memory
DIMS = ("batch", "layer", "head", "dim")
SOURCE = "Li et al. 2023, arXiv 2306.03341"


def last_outputs(
    model,
    prompts: xr.Dataset,
    *,
    batch_size: int = 16,
    parts: Path | None = None,
    quiet: bool = True,
) -> xr.DataArray:
    """z (batch, layer, head, dim), float32: every head's output at the last token of each row,
    before W_O.

    Args:
        prompts: `token`, `mask` (batch, position), padded on the left.
        parts: folder in which finished batches are kept for a later call. Values then lie in a file
            there, as they do in a temporary one without it where they take more than KEPT_BYTES; a
            layer at a time is read quickly.

    Returns:
        With the coordinates of the prompts over batch. In a file, values must not be written to.

    Raises:
        BadInput: rows that do not end in a token.
        RunError: head outputs that are not finite, or a file that cannot be written.
    """
    if not bool((prompts["mask"].values[:, -1] == 1).all()):
        raise BadInput(
            "a row ends in padding; rows must be padded on the left, so that all end in their last"
            " token"
        )
    sizes, rows = geometry(model), prompts.sizes["batch"]
    shape = (sizes.layers, rows, sizes.heads, sizes.head_dim)
    place = None if parts is None else parts / f"outputs-{prompts_hash(prompts)[:16]}"
    with writing(place or Path(tempfile.gettempdir())):
        values = _store(shape, place)
    numbered = prompts.assign_coords(
        batch=np.arange(rows)
    )  # finished batches are told apart by these numbers

    def one(part: xr.Dataset) -> xr.Dataset:
        z, place_of = read_last(model, part), part["batch"].values
        values[:, place_of] = z.transpose(0, 1).numpy()
        if isinstance(values, np.memmap):
            values.flush()  # a batch counts as finished only once its values are safe
        return xr.Dataset({"read": ("batch", place_of)})

    batches.run(
        one,
        numbered,
        size=batch_size,
        parts=place,
        name="read",
        quiet=quiet,
        title="head outputs",
        model=model,
        row_bytes=4 * sizes.layers * sizes.heads * sizes.head_dim,
    )
    about = {"long_name": "head output at the last token", "units": "1", "source": SOURCE}
    own = {name: prompts[name] for name in prompts.coords if prompts[name].dims == ("batch",)}
    found = xr.DataArray(values, dims=("layer", "batch", "head", "dim"), attrs=about, name="z")
    index = {"layer": np.arange(sizes.layers), "head": np.arange(sizes.heads)}
    return found.transpose(*DIMS).assign_coords({**own, **index})


def read_last(model, prompts: xr.Dataset) -> torch.Tensor:
    """[batch, layer, head, dim] of one batch, in one trace."""
    fed, heads, layers = inputs(model, prompts), model_spec(model)["heads"], geometry(model).layers
    with (
        torch.no_grad(),
        model.trace(**fed, use_cache=False, logits_to_keep=1, remote=remote_of(model)),
    ):
        outputs = []
        for index in range(layers):
            outputs.append(
                read_z(model.layers[index], heads)[:, -1].clone().cpu()
            )  # layers may be on several devices
        z = save(torch.stack(outputs, 1))
    check_finite(z, "the heads' outputs")
    return z.float()


def _store(shape: tuple[int, ...], place: Path | None) -> np.ndarray:
    """Room for [layer, batch, head, dim]: memory, a file that is taken up again, or one that
    vanishes after use.
    """
    if place is None:
        if 4 * int(np.prod(shape)) <= KEPT_BYTES:
            return np.empty(shape, np.float32)
        with tempfile.TemporaryFile() as file:
            return np.memmap(file, np.float32, "w+", shape=shape)
    path = place / "z.npy"
    if path.is_file():
        with contextlib.suppress(ValueError, OSError):  # a file that was cut off: begin again
            there = np.load(
                path, mmap_mode="r"
            )  # which, unlike r+, does not fill up what is missing
            if there.shape == shape and there.dtype == np.float32:
                return np.lib.format.open_memmap(path, "r+")
    shutil.rmtree(place, ignore_errors=True)  # batches said to be finished, whose values are gone
    place.mkdir(parents=True)
    return np.lib.format.open_memmap(path, "w+", np.float32, shape)

"""Head outputs at the end of each statement: one trace a batch.

    z = last_outputs(model, prompts)      # (batch, layer, head, dim)

Finished batches are kept for a later call; on disk, too, when memory is short. Rows that do not end
in a token are BadInput.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from nnsight import save

from nnheads.errors import BadInput
from nnheads.models.geometry import Geometry, geometry, model_spec
from nnheads.models.inputs import without_padding
from nnheads.models.labels import check_finite
from nnheads.runs import batches
from nnheads.runs.provenance import prompts_hash
from nnheads.runs.store import writing
from nnheads.trace.blocks import read_z
from nnheads.trace.session import remote_of
from nnheads.truth.branches import branched, longest_first

# head outputs of more than this lie in a file, of which only what is looked at is in memory
KEPT_BYTES = 2**31
DIMS = ("batch", "layer", "head", "dim")
SOURCE = "Li et al. 2023, arXiv 2306.03341"
Values = Float[np.ndarray, "layer batch head dim"]


def last_outputs(
    model,
    prompts: xr.Dataset,
    *,
    batch_size: int = 16,
    parts: Path | None = None,
    quiet: bool = True,
) -> xr.DataArray:
    """Return every head's output z at the last token of each row, before W_O.

    Args:
        prompts: `token`, `mask` (batch, position), padded on the left.
        parts: folder in which finished batches are kept for a later call. Values then lie in a file
            there, as they do in a temporary one without it where they take more than KEPT_BYTES; a
            layer at a time is read quickly.

    Returns:
        (batch, layer, head, dim), float32, with the coordinates of the prompts over batch. In a
        file, values must not be written to.

    Raises:
        BadInput: rows that do not end in a token.
        RunError: head outputs that are not finite, or a file that cannot be written.

    Source: Li et al. 2023, arXiv 2306.03341.
    """
    _check_ends(prompts)
    sizes, rows = geometry(model), prompts.sizes["batch"]
    folder = None if parts is None else parts / f"outputs-{prompts_hash(prompts)[:16]}"
    with writing(folder or Path(tempfile.gettempdir())):
        values = _store((sizes.layers, rows, sizes.heads, sizes.head_dim), folder)
    # finished batches are told apart by these numbers
    numbered = prompts.assign_coords(batch=np.arange(rows))
    batches.run(
        partial(_fill, model, values),
        numbered,
        size=batch_size,
        parts=folder,
        name="read",
        quiet=quiet,
        title="head outputs",
        model=model,
        row_bytes=4 * sizes.layers * sizes.heads * sizes.head_dim,
        order=longest_first(numbered),
    )
    return _labelled(values, prompts, sizes)


def _check_ends(prompts: xr.Dataset) -> None:
    if not bool((prompts["mask"].values[:, -1] == 1).all()):
        raise BadInput(
            "a row ends in padding; rows must be padded on the left, so that all end in their last"
            " token"
        )


def _fill(model, values: Values, part: xr.Dataset) -> xr.Dataset:
    """Read one batch into its rows of the values; return which ones were read."""
    z, rows = read_last(model, without_padding(part)), part["batch"].values
    values[:, rows] = z.transpose(0, 1).numpy()
    if isinstance(values, np.memmap):
        values.flush()  # a batch counts as finished only once its values are safe
    return xr.Dataset({"read": ("batch", rows)})


def read_last(model, prompts: xr.Dataset) -> Float[torch.Tensor, "batch layer head dim"]:
    """Return z at the last token of one batch, in one trace."""
    read, heads = branched(model, prompts), model_spec(model)["heads"]
    request, row, last = read.inputs, torch.from_numpy(read.row), torch.from_numpy(read.last)
    layers, remote = geometry(model).layers, remote_of(model)
    with (
        torch.no_grad(),
        model.trace(**request, use_cache=False, logits_to_keep=1, remote=remote),
    ):
        outputs = []
        for index in range(layers):
            z = read_z(model.layers[index], heads)
            # layers may be on several devices
            outputs.append(z[row.to(z.device), last.to(z.device)].cpu())
        together = save(torch.stack(outputs, 1))
    check_finite(together, "the heads' outputs")
    return together.float()


def _labelled(values: Values, prompts: xr.Dataset, sizes: Geometry) -> xr.DataArray:
    attrs = {"long_name": "head output at the last token", "units": "1", "source": SOURCE}
    z = xr.DataArray(values, dims=("layer", "batch", "head", "dim"), attrs=attrs, name="z")
    known = {name: prompts[name] for name in prompts.coords if prompts[name].dims == ("batch",)}
    index = {"layer": np.arange(sizes.layers), "head": np.arange(sizes.heads)}
    return z.transpose(*DIMS).assign_coords({**known, **index})


def _store(shape: tuple[int, ...], folder: Path | None) -> Values:
    """Return room for the values: memory, a file of a folder, or one that vanishes after use."""
    if folder is not None:
        return _file(shape, folder)
    if 4 * int(np.prod(shape)) <= KEPT_BYTES:
        return np.empty(shape, np.float32)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.float32, "w+", shape=shape)


def _file(shape: tuple[int, ...], folder: Path) -> Values:
    """Return the values of a file that is taken up again, or of a new one."""
    path = folder / "z.npy"
    if _holds(path, shape):
        return np.lib.format.open_memmap(path, "r+")
    shutil.rmtree(folder, ignore_errors=True)  # batches said to be finished, whose values are gone
    folder.mkdir(parents=True)
    return np.lib.format.open_memmap(path, "w+", np.float32, shape)


def _holds(path: Path, shape: tuple[int, ...]) -> bool:
    """Return whether a file holds values of this shape, and all of them."""
    if not path.is_file():
        return False
    with contextlib.suppress(ValueError, OSError):  # a file that was cut off
        there = np.load(path, mmap_mode="r")  # which, unlike r+, does not fill up what is missing
        return there.shape == shape and there.dtype == np.float32
    return False

"""What an ablation puts in: weights over the rows of a prompt set, or values of one's own.

    mix = means(prompts, aligned(reference, prompts))            # [case, reference row]

A case takes values from prompts of its own template and length alone, and never from its own text:
it would get back what was to be taken away.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float

from nnheads.errors import BadInput
from nnheads.trace.sites import UNITS

ABLATIONS = {
    "mean": "mean over the other prompts of the set, for each template and position",
    "zero": "zero",
    "uniform": "what equal attention to every key gives",
    "resample": "the value in another prompt of the same template",
}
Pairs = Bool[np.ndarray, "case reference_row"]
Mix = Float[np.ndarray, "case reference_row"]


def aligned(reference: xr.Dataset, prompts: xr.Dataset) -> xr.Dataset:
    """Return the reference prompts (batch, position) on the positions of the others.

    Padding on the left is added or cut. Prompts that are longer than all of the others are left
    out: none of them could use their positions.
    """
    width, own = prompts.sizes["position"], reference.sizes["position"]
    reference = reference[["token", "mask"]]
    if own < width:
        return reference.pad(position=(width - own, 0), constant_values=0)
    short = reference["mask"].values.sum(1) <= width
    return reference.isel(position=slice(own - width, None), batch=np.flatnonzero(short))


def kinds(prompts: xr.Dataset) -> list[tuple[int, int]]:
    """Return what prompts must share for their positions to mean the same: template and length."""
    none = np.zeros(prompts.sizes["batch"], int)
    template = prompts["template"].values if "template" in prompts.coords else none
    return [(int(a), int(b)) for a, b in zip(template, prompts["mask"].values.sum(1))]


def sources(prompts: xr.Dataset, reference: xr.Dataset) -> Pairs:
    """Return whether a row is another text of a case's template and length, to take values from."""
    return _equal(kinds(prompts), kinds(reference)) & ~same_text(prompts, reference)


def means(prompts: xr.Dataset, reference: xr.Dataset) -> Mix:
    """Return weights of the mean over the other prompts of each case's template and length.

    Raises BadInput if a case has none.
    """
    usable = _needed(prompts, reference)
    return usable.astype(np.float32) / usable.sum(1, keepdims=True, dtype=np.float32)


def same_text(prompts: xr.Dataset, reference: xr.Dataset) -> Pairs:
    """Return whether a case and a reference row are the same tokens."""
    return _equal(texts_of(prompts), texts_of(reference))


def texts_of(prompts: xr.Dataset) -> list[bytes]:
    """Return each prompt's tokens without padding, as a key."""
    token, mask = prompts["token"].values.astype(int), prompts["mask"].values.astype(bool)
    return [row[seen].tobytes() for row, seen in zip(token, mask)]


def resampled(prompts: xr.Dataset, reference: xr.Dataset, seed: int) -> Mix:
    """Return weights of one other prompt of the same template and length for each case, drawn.

    What is drawn for a case depends on its label in `batch` alone, so that it is the same in
    whatever batch the case runs.

    Raises BadInput if a case has none but itself.
    """
    usable = _needed(prompts, reference)
    drawn = np.zeros(usable.shape, np.float32)
    for row, (label, allowed) in enumerate(zip(prompts["batch"].values, usable)):
        generator = np.random.default_rng([seed, int(label)])
        drawn[row, generator.choice(np.flatnonzero(allowed))] = 1
    return drawn


def _needed(prompts: xr.Dataset, reference: xr.Dataset) -> Pairs:
    """Return `sources`, of which every case has one at least."""
    usable = sources(prompts, reference)
    alone = ~usable.any(1)
    if not alone.any():
        return usable
    template, length = kinds(prompts)[int(alone.argmax())]
    if (template, length) not in kinds(reference):
        raise BadInput(
            f"the mean set has no prompt of template {template} with {length} tokens, and means"
            " of other templates mix positions; draw it from the same templates"
        )
    raise BadInput(
        f"{alone.sum()} of {alone.size} prompts have no other of their template and length (the"
        f" first: template {template}, {length} tokens), and their own values would ablate"
        " nothing; use more prompts or a reference set of such, or zero or uniform ablation"
    )


def _equal(mine: Sequence[Hashable], theirs: Sequence[Hashable]) -> Pairs:
    """Return whether two keys are equal, [case, reference row]."""
    number: dict = {}
    own, other = (
        np.array([number.setdefault(key, len(number)) for key in keys], int)
        for keys in (mine, theirs)
    )
    return own[:, None] == other[None]


def own_values(
    prompts: xr.Dataset, values: xr.DataArray, site: str, count: int, width: int
) -> dict[int, torch.Tensor]:
    """Return layer -> [case, unit, position, width] of one's own values.

    They are the same for all cases and positions unless they have these dimensions too.

    Args:
        values: (layer, head or kv_head, width), and (batch) or (position) if they differ there.
        count, width: units of the site, and features of each.

    Raises:
        BadInput: other dimensions, or as many units, cases or positions as the model and the
            prompts do not have.
    """
    if site == "pattern":
        raise BadInput(
            "patterns of one's own are not taken, because they might see the future; use uniform"
            " attention"
        )
    unit = UNITS.get(site, "unit")
    cases, length = prompts.sizes["batch"], prompts.sizes["position"]
    sizes = {"batch": cases, unit: count, "position": length, "width": width}
    named = values if unit in values.dims or unit != "unit" else values.expand_dims("unit")
    check_dimensions(named, values.dims, site, unit, sizes)
    missing = {name: size for name, size in sizes.items() if name not in named.dims}
    whole = named.expand_dims(missing).transpose("layer", "batch", unit, "position", "width")
    layers = whole["layer"].values if "layer" in whole.coords else range(whole.sizes["layer"])
    return {
        int(layer): torch.from_numpy(np.array(one, np.float32))
        for layer, one in zip(layers, whole.values)
    }


def check_dimensions(
    named: xr.DataArray, dims: tuple[Hashable, ...], site: str, unit: str, sizes: dict[str, int]
) -> None:
    """Refuse values of other dimensions, or of other sizes than the model and the prompts have."""
    if not {"layer", "width", unit} <= set(named.dims) <= {"layer", *sizes}:
        raise BadInput(f"values of {site} have dimensions {dims}; expected layer, {unit}, width")
    for name, size in sizes.items():
        if name in named.dims and named.sizes[name] != size:
            raise BadInput(f"values have {named.sizes[name]} along {name}, expected {size}")

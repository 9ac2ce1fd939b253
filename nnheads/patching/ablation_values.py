"""What an ablation puts in, as weights over the rows of a prompt set: means, or another prompt's
value.
"""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr

from nnheads.errors import BadInput
from nnheads.trace.sites import UNITS

ABLATIONS = {
    "mean": "mean over the other prompts of the set, for each template and position",
    "zero": "zero",
    "uniform": "what equal attention to every key gives",
    "resample": "the value in another prompt of the same template",
}


def aligned(reference: xr.Dataset, prompts: xr.Dataset) -> xr.Dataset:
    """The reference prompts on the positions of the others: padding on the left is added or cut.
    Prompts that are
    longer than all of the others are left out: none of them could use their positions."""
    width, own = prompts.sizes["position"], reference.sizes["position"]
    reference = reference[["token", "mask"]]
    if own < width:
        return reference.pad(position=(width - own, 0), constant_values=0)
    short = reference["mask"].values.sum(1) <= width
    return reference.isel(position=slice(own - width, None), batch=np.flatnonzero(short))


def kinds(prompts: xr.Dataset) -> list[tuple[int, int]]:
    """What prompts must share for their positions to mean the same: template and length."""
    template = (
        prompts["template"].values
        if "template" in prompts.coords
        else np.zeros(prompts.sizes["batch"], int)
    )
    return [(int(a), int(b)) for a, b in zip(template, prompts["mask"].values.sum(1))]


def sources(prompts: xr.Dataset, reference: xr.Dataset) -> np.ndarray:
    """[case, reference row]: whether a case may take values from a row: one of its template and
    length, and another text. From its own text a case would get back what was to be taken away,
    wherever in the reference it stands."""
    return _equal(kinds(prompts), kinds(reference)) & ~same_text(prompts, reference)


def means(prompts: xr.Dataset, reference: xr.Dataset) -> np.ndarray:
    """[case, reference row]: weights of the mean over the other reference prompts of each case's
    template and length.

    Raises BadInput if a case has none.
    """
    usable = _needed(prompts, reference)
    return usable.astype(np.float32) / usable.sum(1, keepdims=True, dtype=np.float32)


def same_text(prompts: xr.Dataset, reference: xr.Dataset) -> np.ndarray:
    """[case, reference row]: whether the two are the same tokens."""
    own, other = (
        [
            row[seen].tobytes()
            for row, seen in zip(part["token"].values.astype(int), part["mask"].values.astype(bool))
        ]
        for part in (prompts, reference)
    )
    return _equal(own, other)


def resampled(prompts: xr.Dataset, reference: xr.Dataset, seed: int) -> np.ndarray:
    """[case, reference row]: one other prompt of the same template and length for each case, drawn
    at random. What is drawn for a case depends on its label in `batch` alone, so that it is the
    same in whatever batch the case runs.

    Raises BadInput if a case has none but itself.
    """
    usable = _needed(prompts, reference)
    drawn = np.zeros(usable.shape, np.float32)
    for row, (label, allowed) in enumerate(zip(prompts["batch"].values, usable)):
        drawn[row, np.random.default_rng([seed, int(label)]).choice(np.flatnonzero(allowed))] = 1
    return drawn


def _needed(prompts: xr.Dataset, reference: xr.Dataset) -> np.ndarray:
    """`sources`, of which every case has one at least."""
    usable = sources(prompts, reference)
    alone = ~usable.any(1)
    if alone.any():
        own = kinds(prompts)
        template, length = own[int(alone.argmax())]
        if (template, length) not in kinds(reference):
            raise BadInput(
                f"the mean set has no prompt of template {template} with {length} tokens, and means"
                " of other templates mix positions; draw it from the same templates"
            )
        raise BadInput(
            f"{alone.sum()} of {len(own)} prompts have no other of their template and length (the"
            f" first: template {template}, {length} tokens), and their own values would ablate"
            " nothing; use more prompts or a reference set of such, or zero or uniform ablation"
        )
    return usable


def _equal(mine: list, theirs: list) -> np.ndarray:
    """[case, reference row]: whether two keys are equal."""
    number: dict = {}
    own, other = (
        np.array([number.setdefault(key, len(number)) for key in keys], int)
        for keys in (mine, theirs)
    )
    return own[:, None] == other[None]


def own_values(
    prompts: xr.Dataset, values: xr.DataArray, site: str, count: int, width: int
) -> dict[int, torch.Tensor]:
    """layer -> [case, unit, position, width] of values (layer, head or kv_head, width), the same
    for all cases and positions unless they have these dimensions too.

    Raises BadInput for other dimensions, or as many units, cases or positions as the model and the
    prompts do not have.
    """
    unit = UNITS.get(site, "unit")
    sizes = {
        "batch": prompts.sizes["batch"],
        unit: count,
        "position": prompts.sizes["position"],
        "width": width,
    }
    if site == "pattern":
        raise BadInput(
            "patterns of one's own are not taken, because they might see the future; use uniform"
            " attention"
        )
    named = values.expand_dims(unit) if unit == "unit" and unit not in values.dims else values
    known = {"layer", *sizes}
    if not {"layer", "width", unit} <= set(named.dims) <= known:
        raise BadInput(
            f"values of {site} have dimensions {values.dims}; expected layer, {unit}, width"
        )
    for name, size in sizes.items():
        if name in named.dims and named.sizes[name] != size:
            raise BadInput(f"values have {named.sizes[name]} along {name}, expected {size}")
    named = named.expand_dims(
        {name: size for name, size in sizes.items() if name not in named.dims}
    )
    named = named.transpose("layer", "batch", unit, "position", "width")
    layers = named["layer"].values if "layer" in named.coords else range(named.sizes["layer"])
    return {
        int(layer): torch.from_numpy(np.array(one, np.float32))
        for layer, one in zip(layers, named.values)
    }

"""What an ablation puts in, as weights over the rows of a prompt set: means, or another prompt's value."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr

from nnheads.errors import BadInput
from nnheads.patching.sites import UNITS

ABLATIONS = {
    "mean": "mean over the prompt set, for each template and position",
    "zero": "zero",
    "uniform": "what equal attention to every key gives",
    "resample": "the value in another prompt of the same template",
}


def aligned(reference: xr.Dataset, prompts: xr.Dataset) -> xr.Dataset:
    """The reference prompts on the positions of the others: padding on the left is added or cut. Prompts that are
    longer than all of the others are left out: none of them could use their positions."""
    width, own = prompts.sizes["position"], reference.sizes["position"]
    reference = reference[["token", "mask"]]
    if own < width:
        return reference.pad(position=(width - own, 0), constant_values=0)
    short = reference["mask"].values.sum(1) <= width
    return reference.isel(position=slice(own - width, None), batch=np.flatnonzero(short))


def kinds(prompts: xr.Dataset) -> list[tuple[int, int]]:
    """What prompts must share for their positions to mean the same: template and length."""
    template = prompts["template"].values if "template" in prompts.coords else np.zeros(prompts.sizes["batch"], int)
    return [(int(a), int(b)) for a, b in zip(template, prompts["mask"].values.sum(1))]


def means(prompts: xr.Dataset, reference: xr.Dataset) -> np.ndarray:
    """[case, reference row]: weights of the mean over the reference prompts of each case's template and length.

    Raises BadInput if a case has none.
    """
    own, other = kinds(prompts), kinds(reference)
    same = np.array([[mine == theirs for theirs in other] for mine in own], np.float32).reshape(len(own), len(other))
    count = same.sum(1)
    if (count == 0).any():
        template, length = own[int(np.argmin(count))]
        raise BadInput(
            f"the mean set has no prompt of template {template} with {length} tokens, and means of other templates "
            "mix positions; draw it from the same templates"
        )
    return same / count[:, None]


def same_text(prompts: xr.Dataset, reference: xr.Dataset) -> np.ndarray:
    """[case, reference row]: whether the two are the same tokens."""
    own, other = (
        [row[seen].tobytes() for row, seen in zip(part["token"].values.astype(int), part["mask"].values.astype(bool))]
        for part in (prompts, reference)
    )
    return np.array([[mine == theirs for theirs in other] for mine in own], bool).reshape(len(own), len(other))


def resampled(prompts: xr.Dataset, reference: xr.Dataset, seed: int) -> np.ndarray:
    """[case, reference row]: one other prompt of the same template and length for each case, drawn at random. What is
    drawn for a case depends on its label in `batch` alone, so that it is the same in whatever batch the case runs.

    Raises BadInput if a case has none but itself.
    """
    weights = (means(prompts, reference) > 0) & ~same_text(prompts, reference)
    if not weights.any(1).all():
        template, length = kinds(prompts)[int(np.argmin(weights.any(1)))]
        raise BadInput(
            f"template {template} with {length} tokens has one prompt, so none can be drawn in its place; use more"
        )
    drawn = np.zeros(weights.shape, np.float32)
    for row, (label, allowed) in enumerate(zip(prompts["batch"].values, weights)):
        drawn[row, np.random.default_rng([seed, int(label)]).choice(np.flatnonzero(allowed))] = 1
    return drawn


def own_values(prompts: xr.Dataset, values: xr.DataArray, site: str, count: int, width: int) -> dict[int, torch.Tensor]:
    """layer -> [case, unit, position, width] of values (layer, head or kv_head, width), the same for all cases and
    positions unless they have these dimensions too.

    Raises BadInput for other dimensions, or as many units, cases or positions as the model and the prompts do not have.
    """
    unit = UNITS.get(site, "unit")
    sizes = {"batch": prompts.sizes["batch"], unit: count, "position": prompts.sizes["position"], "width": width}
    if site == "pattern":
        raise BadInput("patterns of one's own are not taken, because they might see the future; use uniform attention")
    named = values.expand_dims(unit) if unit == "unit" and unit not in values.dims else values
    known = {"layer", *sizes}
    if not {"layer", "width", unit} <= set(named.dims) <= known:
        raise BadInput(f"values of {site} have dimensions {values.dims}; expected layer, {unit}, width")
    for name, size in sizes.items():
        if name in named.dims and named.sizes[name] != size:
            raise BadInput(f"values have {named.sizes[name]} along {name}, expected {size}")
    named = named.expand_dims({name: size for name, size in sizes.items() if name not in named.dims})
    named = named.transpose("layer", "batch", unit, "position", "width")
    layers = named["layer"].values if "layer" in named.coords else range(named.sizes["layer"])
    return {int(layer): torch.from_numpy(np.array(one, np.float32)) for layer, one in zip(layers, named.values)}

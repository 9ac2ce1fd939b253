"""What a fold's test questions are scored under: no edit, the edit, and its controls.

    made = conditions(material, 0, alpha=15, count=48, options=Options())
    kind, change = made["random_direction 0"]

The controls are as strong as the edit, so that a difference is about where it points, or which
heads it moves.
"""

from __future__ import annotations

import xarray as xr

from nnheads.interventions.schema import Intervention
from nnheads.truth.contrasts import EDIT, NONE
from nnheads.truth.directions import random_directions
from nnheads.truth.iti import edit, random_heads
from nnheads.truth.material import Material, Options

Conditions = dict[str, tuple[str, Intervention]]  # name -> kind, edit


def final(
    material: Material, fold: int, alpha: float, count: int, options: Options
) -> tuple[xr.Dataset, Intervention]:
    """Return directions of a fold's training and validation questions, and the edit along them."""
    fitted = material.directions(fold, material.known(fold), options)
    return fitted, edit(fitted, material.heads(fold, count), alpha, options.scope)


def conditions(
    material: Material, fold: int, alpha: float, count: int, options: Options
) -> Conditions:
    """Return what a fold's test questions are scored under: name -> kind, edit.

    Random directions push the same heads as far as the edit does; random heads are pushed along
    their own directions, as far in standard deviations.
    """
    fitted, own = final(material, fold, alpha, count, options)
    heads, scope = material.heads(fold, count), options.scope
    layers, units = fitted.sizes["layer"], fitted.sizes["head"]
    made: Conditions = {NONE: (NONE, Intervention()), EDIT: (EDIT, own)}
    for draw in range(options.draws):
        seed = 1000 * options.seed + draw
        others = random_heads(layers, units, count, without=heads, seed=seed)
        as_far = edit(_redirected(fitted, seed), heads, alpha, scope)
        made[f"random_direction {draw}"] = "random_direction", as_far
        made[f"random_heads {draw}"] = "random_heads", edit(fitted, others, alpha, scope)
    return made


def _redirected(fitted: xr.Dataset, seed: int) -> xr.Dataset:
    """Return random directions with the spreads of these."""
    drawn = random_directions(fitted["direction"].shape, seed).astype("float32")
    return fitted.assign(direction=(("layer", "head", "dim"), drawn))

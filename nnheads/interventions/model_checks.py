"""Whether a model has what an intervention names: layers, heads, neurons, modules, widths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from nnheads.errors import BadInput
from nnheads.interventions.schema import BY_HEAD, BY_KV_HEAD, BY_PATH, Edit, Intervention
from nnheads.models.families import FAMILIES
from nnheads.models.geometry import Geometry, geometry
from nnheads.models.names import check_layer, check_number
from nnheads.trace.plain import ModelSpec


def check_model(model: Any, intervention: Intervention, spec: ModelSpec) -> None:
    """Refuse what this model does not have.

    Args:
        spec: of the model, see `models.geometry`.

    Raises:
        BadInput: layers, heads, neurons, modules that are not there, and tensors for another number
            of features.
    """
    sizes = geometry(model)
    for edit in intervention.edits:
        _check_layer(edit, sizes)
        _check_units(edit, sizes)
        if edit.site == "mlp_hidden" and spec["neurons"] is None:
            raise BadInput(
                "this family's MLP is shared by experts and has no neurons of its own to edit;"
                " use mlp_out"
            )
        if edit.path is not None:
            check_path(model._module, edit.path)
        width = width_of(model, edit.site, edit.layer, spec)
        if width is not None:
            _check_neurons(edit, width)
            _check_tensors(edit, intervention.tensors, _features(edit, width, sizes))


def check_sources(wanted: int, got: int) -> None:
    """Refuse too few sources, or too many."""
    if got != wanted:
        raise BadInput(f"this intervention takes {wanted} sources, got {got}")


def _check_layer(edit: Edit, sizes: Geometry) -> None:
    if edit.layer is not None:
        check_layer(edit.layer, sizes.layers)


def _check_units(edit: Edit, sizes: Geometry) -> None:
    if edit.units is None:
        return
    what = "key/value head" if edit.site in BY_KV_HEAD else "head"
    check_number(max(edit.units), what, units_of(edit.site, sizes))


def units_of(site: str, sizes: Geometry) -> int:
    """Return how many units a site has: heads, key/value heads, or one."""
    if site in BY_HEAD:
        return sizes.heads
    return sizes.kv_heads if site in BY_KV_HEAD else 1


def width_of(model: Any, site: str, layer: int | None, spec: ModelSpec) -> int | None:
    """Return the features of one unit of a site; None where only a run can tell."""
    if site in ("pattern", *BY_PATH):
        return None
    sizes = geometry(model)
    if site in ("q", "k") and model.config.model_type not in FAMILIES:
        return None  # latent attention has queries and keys of another width than values
    if site in (*BY_HEAD, *BY_KV_HEAD):
        return sizes.head_dim
    if site == "mlp_hidden":
        neurons = model.layers[layer]._module.get_submodule(spec["neurons"])
        return getattr(neurons, "in_features", None) or neurons.nx  # Conv1D calls it nx
    return sizes.d_model


def _features(edit: Edit, width: int, sizes: Geometry) -> int:
    """Return how many features an edit is about."""
    units = units_of(edit.site, sizes) if edit.units is None else len(edit.units)
    return units * (width if edit.neurons is None else len(edit.neurons))


def _check_neurons(edit: Edit, width: int) -> None:
    if edit.neurons is not None and max(edit.neurons) >= width:
        raise BadInput(
            f"neuron {max(edit.neurons)} of {edit.site} does not exist; it has 0 to {width - 1}"
        )


def _check_tensors(edit: Edit, tensors: Mapping[str, torch.Tensor], features: int) -> None:
    """Refuse tensors for another number of features."""
    rotation = getattr(edit.do, "rotation", None)
    if rotation is not None and tensors[rotation].shape[0] != features:
        raise _other_width(f"rotation {rotation!r}", tensors[rotation].shape[0], edit, features)
    value = getattr(edit.do, "value", None)
    mask = getattr(edit.do, "mask", None) if rotation is None else None
    for name in (value, mask):
        width = tensors[name].shape[-1:] if isinstance(name, str) else ()
        if width and width[0] not in (1, features):
            raise _other_width(f"tensor {name!r}", width[0], edit, features)


def _other_width(what: str, width: int, edit: Edit, features: int) -> BadInput:
    return BadInput(f"{what} is for {width} features; {edit.site} has {features}")


def check_path(module: torch.nn.Module, path: str) -> None:
    """Refuse a module that the model does not have."""
    names = {name for name, _ in module.named_modules()}
    if path in names:
        return
    last = path.rpartition(".")[2]
    close = sorted(name for name in names if name.rpartition(".")[2] == last)[:3]
    hint = f"; did you mean {', '.join(close)}?" if close else ""
    raise BadInput(f"no module {path!r} in this model{hint}")

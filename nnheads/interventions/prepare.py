"""An intervention made ready for a model and a set of prompts: plain data, in the order of
execution.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable

import numpy as np
import torch

from nnheads.errors import BadInput, first_line
from nnheads.interventions.schema import (
    BY_HEAD,
    BY_KV_HEAD,
    At,
    Combine,
    Edit,
    Function,
    Intervention,
)
from nnheads.models.families import family
from nnheads.models.geometry import Geometry, geometry
from nnheads.trace.sites import SITES

# the order in which a block reaches its sites; a module by path comes where a forward calls it
ORDER = tuple(SITES)


def check_model(model, intervention: Intervention, form: dict) -> None:
    """Refuse what this model does not have: layers, heads, neurons, modules, and tensors that do
    not fit them.
    """
    sizes = geometry(model)
    for edit in intervention.edits:
        if edit.layer is not None and edit.layer >= sizes.layers:
            raise BadInput(
                f"layer {edit.layer} does not exist; this model has layers 0 to {sizes.layers - 1}"
            )
        count, what = (
            (sizes.kv_heads, "key/value heads")
            if edit.site in BY_KV_HEAD
            else (sizes.heads, "heads")
        )
        if edit.units is not None and max(edit.units) >= count:
            raise BadInput(
                f"head {max(edit.units)} does not exist; this model has {what} 0 to {count - 1}"
            )
        if edit.site == "mlp_hidden" and form["neurons"] is None:
            raise BadInput(
                "this family's feed-forward part is shared by experts and has no neurons of its own"
                " to edit"
            )
        if edit.path is not None:
            check_path(model._module, edit.path)
        check_width(edit, intervention.tensors, width_of(model, edit, sizes, form), sizes)


def width_of(model, edit: Edit, sizes: Geometry, form: dict) -> int | None:
    """Features of one unit of a site; None where only a run can tell."""
    if edit.site in ("pattern", "input", "output"):
        return None
    if edit.site in (*BY_HEAD, *BY_KV_HEAD):
        return sizes.head_dim
    if edit.site == "mlp_hidden":
        neurons = model.layers[edit.layer]._module.get_submodule(form["neurons"])
        return getattr(neurons, "in_features", None) or neurons.nx  # Conv1D calls it nx
    return sizes.d_model


def check_width(edit: Edit, tensors, width: int | None, sizes: Geometry) -> None:
    """Refuse neurons that are not there, and tensors for another number of features."""
    if width is None:
        return
    if edit.neurons is not None and max(edit.neurons) >= width:
        raise BadInput(
            f"neuron {max(edit.neurons)} of {edit.site} does not exist; it has 0 to {width - 1}"
        )
    units = {
        **dict.fromkeys(BY_HEAD, sizes.heads),
        **dict.fromkeys(BY_KV_HEAD, sizes.kv_heads),
    }.get(edit.site, 1)
    units = units if edit.units is None else len(edit.units)
    features = units * (width if edit.neurons is None else len(edit.neurons))
    rotation = getattr(edit.do, "rotation", None)
    if rotation is not None and tensors[rotation].shape[0] != features:
        raise BadInput(
            f"rotation {rotation!r} is for {tensors[rotation].shape[0]} features; {edit.site} has"
            f" {features}"
        )
    for name in (
        getattr(edit.do, "value", None),
        getattr(edit.do, "mask", None) if rotation is None else None,
    ):
        if (
            isinstance(name, str)
            and tensors[name].dim()
            and tensors[name].shape[-1] not in (1, features)
        ):
            raise BadInput(
                f"tensor {name!r} is for {tensors[name].shape[-1]} features; {edit.site} has"
                f" {features}"
            )


def check_path(module: torch.nn.Module, path: str) -> None:
    """Refuse a module that the model does not have."""
    names = {name for name, _ in module.named_modules()}
    if path not in names:
        close = sorted(
            name for name in names if name.rpartition(".")[2] == path.rpartition(".")[2]
        )[:3]
        raise BadInput(
            f"no module {path!r} in this model"
            + (f"; did you mean {', '.join(close)}?" if close else "")
        )


def ordered(model, intervention: Intervention) -> list[int]:
    """Numbers of the edits in the order in which a forward reaches their sites."""
    edits = intervention.edits
    if all(edit.path is None for edit in edits):
        return sorted(
            range(len(edits)), key=lambda i: (edits[i].layer, ORDER.index(edits[i].site), i)
        )
    times = reached(model, edits)
    return sorted(
        range(len(edits)),
        key=lambda i: (times[i], edits[i].path is None and ORDER.index(edits[i].site), i),
    )


def reached(model, edits: tuple[Edit, ...]) -> list[float]:
    """When each edit's site is reached, measured on one token: modules are not registered in the
    order in which they run. Queries, keys, values and patterns come just before z."""
    events: list[tuple[int, str]] = []
    where = [anchor(model, edit) for edit in edits]
    handles = []
    for module in {id(module): module for module, _ in where}.values():
        handles += [
            module.register_forward_pre_hook(lambda own, _: events.append((id(own), "input"))),
            module.register_forward_hook(lambda own, *_: events.append((id(own), "output"))),
        ]
    try:
        with torch.no_grad():
            model._module(**one_token(model), use_cache=False)
    except RuntimeError as error:  # some experts do not compute shapes alone
        raise BadInput(
            "when the modules by path are reached cannot be measured on this model"
            f" ({first_line(error)}); load it with its weights, or name sites and layers"
        ) from None
    finally:
        for handle in handles:
            handle.remove()
    idle = [edit for edit, (module, end) in zip(edits, where) if (id(module), end) not in events]
    if idle:
        raise BadInput(
            f"module {idle[0].path!r} is not called when this model runs; name one that is"
        )
    times = [events.index((id(module), end)) for module, end in where]
    kernel = ("q", "k", "v", "pattern")
    return [time - 0.5 if edit.site in kernel else time for edit, time in zip(edits, times)]


def one_token(model) -> dict[str, torch.Tensor]:
    """Inputs of the shortest forward. A model without weights cannot read a mask, so it is given
    one that it takes as it is."""
    device = next(model._module.parameters()).device
    given = {"input_ids": torch.zeros(1, 1, dtype=torch.long, device=device)}
    if device.type != "meta" or not family(model).position_ids:
        return given
    return {
        **given,
        "position_ids": given["input_ids"],
        "attention_mask": torch.zeros(1, 1, 1, 1, device=device),
    }


def anchor(model, edit: Edit) -> tuple[torch.nn.Module, str]:
    """The module whose input or output an edit's site is, or comes just before."""
    if edit.path is not None:
        return model._module.get_submodule(edit.path), edit.site
    return site_module(model.layers[edit.layer]._module, family(model), edit.site)


def site_module(block: torch.nn.Module, row, site: str) -> tuple[torch.nn.Module, str]:
    """The module behind a named site of a block, and whether it is its input or its output."""
    path, end = {
        "resid_pre": ("", "input"),
        "attn_in": (row.attention, "input"),
        "attn_out": (row.attention_adds or row.attention, "output"),
        "mlp_in": (row.mlp_reads or row.mlp, "input"),
        "mlp_hidden": (row.neurons, "input"),
        "mlp_out": (row.mlp_adds or row.mlp, "output"),
        "resid_post": ("", "output"),
    }.get(site, (row.projection, "input"))
    return block.get_submodule(path), end


def plain(edit: Edit, number: int) -> dict:
    """An edit as data that travels."""
    do = {entry.name: getattr(edit.do, entry.name) for entry in dataclasses.fields(edit.do)}
    do.pop("source_at", None)
    if isinstance(edit.do, (Function, Combine)):
        do["function"] = f"function {number}"
    return {
        "number": number,
        "site": edit.site,
        "layer": edit.layer,
        "path": edit.path,
        "units": edit.units,
        "neurons": edit.neurons,
        "do": {"name": edit.do.name, **do},
    }


def positions(
    at: At, mask: np.ndarray, roles: dict[str, np.ndarray], prompt: np.ndarray | None = None
) -> torch.Tensor:
    """Positions [row, place] that `at` means in prompts with this mask [row, position], -1 for
    none.

    roles: name -> position of each row. prompt: how many of each row's tokens are the prompt;
        default all of them.
    """
    length, first = mask.sum(1), mask.argmax(1)
    asked = length if prompt is None else prompt
    chosen = [
        _of_row(at, int(length[row]), int(asked[row]), row, int(first[row]), roles)
        for row in range(len(mask))
    ]
    width = max([len(own) for own in chosen] + [1])
    return torch.tensor(
        [
            [int(first[row]) + place for place in own] + [-1] * (width - len(own))
            for row, own in enumerate(chosen)
        ]
    )


def _of_row(
    at: At, length: int, asked: int, row: int, first: int, roles: dict[str, np.ndarray]
) -> list[int]:
    """Positions of one row, counted from its first token."""
    if at.kind == "role":
        if at.values[0] not in roles:
            raise BadInput(
                f"role {at.values[0]!r} is not known in these prompts; known:"
                f" {', '.join(roles) or 'none'}"
            )
        place = int(roles[at.values[0]][row])
        return [] if place < 0 else [place - first]
    if at.kind == "index":
        for value in at.values:
            if not -length <= value < length:
                raise BadInput(f"position {value} lies outside a prompt of {length} tokens")
        return [value % length for value in at.values]
    if at.kind == "slice":
        return list(range(length))[slice(*at.values)]
    spans = {
        "all": (0, length),
        "prompt": (0, asked),
        "answer": (asked, length),
        "answering": (max(asked - 1, 0), length),
    }
    start, stop = spans.get(at.kind, (0, 0))
    return list(range(start, stop))


def functions(intervention) -> dict[str, Callable]:
    """The user's own functions of something with edits, by the names that `plain` gives them.
    `files.check_functions` says what a file may import."""
    return {
        f"function {number}": found(edit.do.function)
        for number, edit in enumerate(intervention.edits)
        if isinstance(edit.do, (Function, Combine))
    }


def found(function: str | Callable) -> Callable:
    """A function by its import path, or itself."""
    if not isinstance(function, str):
        return function
    module, _, name = function.partition(":")
    try:
        target = importlib.import_module(module)
        for part in name.split("."):
            target = getattr(target, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadInput(
            f"function {function!r} cannot be found by its path: {first_line(error)}"
        ) from None
    if not callable(target):
        raise BadInput(f"{function!r} is a {type(target).__name__} and no function")
    return target

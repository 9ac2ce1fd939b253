"""An intervention made ready for a model and a set of prompts: plain data, in the order of execution."""

from __future__ import annotations

import dataclasses
import importlib

import numpy as np
import torch

from nnheads.errors import BadInput
from nnheads.interventions.schema import BY_KV_HEAD, At, Edit, FromSource, Function, Intervention
from nnheads.model import geometry

# the order in which a block reaches its sites; a module by path comes where it is registered
ORDER = (
    "resid_pre",
    "attn_in",
    "q",
    "k",
    "v",
    "pattern",
    "z",
    "attn_out",
    "mlp_in",
    "mlp_hidden",
    "mlp_out",
    "resid_post",
)


def check_model(model, intervention: Intervention, form: dict) -> None:
    """Refuse what this model does not have: layers, heads, neurons, modules, widths that do not fit."""
    sizes = geometry(model)
    for edit in intervention.edits:
        if edit.layer is not None and edit.layer >= sizes.layers:
            raise BadInput(f"layer {edit.layer} does not exist; this model has layers 0 to {sizes.layers - 1}")
        count, what = (sizes.kv_heads, "key/value heads") if edit.site in BY_KV_HEAD else (sizes.heads, "heads")
        if edit.units is not None and max(edit.units) >= count:
            raise BadInput(f"head {max(edit.units)} does not exist; this model has {what} 0 to {count - 1}")
        if edit.site == "mlp_hidden" and form["neurons"] is None:
            raise BadInput("this family's feed-forward part is shared by experts and has no neurons of its own to edit")
        if edit.path is not None:
            check_path(model, edit.path)


def check_path(model, path: str) -> None:
    """Refuse a module that the model does not have."""
    names = {name for name, _ in model._module.named_modules()}
    if path not in names:
        close = sorted(name for name in names if name.rpartition(".")[2] == path.rpartition(".")[2])[:3]
        raise BadInput(f"no module {path!r} in this model" + (f"; did you mean {', '.join(close)}?" if close else ""))


def ordered(model, intervention: Intervention) -> list[int]:
    """Numbers of the edits in the order in which a forward reaches their sites."""
    registered = (
        {name: number for number, (name, _) in enumerate(model._module.named_modules())}
        if any(edit.path for edit in intervention.edits)
        else {}
    )
    blocks = _block_path(model)

    def key(number: int):
        edit = intervention.edits[number]
        if edit.path is None:
            return (1, edit.layer, ORDER.index(edit.site), 0, number)
        before, _, rest = edit.path.partition(f"{blocks}.") if blocks else ("", "", "")
        if blocks and not before and rest:
            own = int(rest.partition(".")[0])
            first = registered[f"{blocks}.{own}"]
            inside = 0.5 + (registered[edit.path] - first) / 1e4
            inside = inside if rest.partition(".")[2] else (-1 if edit.site == "input" else len(ORDER))
            return (1, own, inside, edit.site == "output", number)
        late = not blocks or registered[edit.path] > registered.get(blocks, -1)
        return (2 if late and blocks else 0, registered[edit.path], edit.site == "output", 0, number)

    return sorted(range(len(intervention.edits)), key=key)


def _block_path(model) -> str:
    layers = getattr(model, "layers", None)
    if layers is None:
        return ""
    return next((name for name, module in model._module.named_modules() if module is layers._module), "")


def plain(edit: Edit, number: int) -> dict:
    """An edit as data that travels."""
    do = {entry.name: getattr(edit.do, entry.name) for entry in dataclasses.fields(edit.do)}
    do.pop("source_at", None)
    return {
        "number": number, "site": edit.site, "layer": edit.layer, "path": edit.path, "units": edit.units,
        "neurons": edit.neurons, "do": {"name": edit.do.name, **do},
    }  # fmt: skip


def positions(at: At, mask: np.ndarray, roles: dict[str, np.ndarray], prompt: np.ndarray | None = None) -> torch.Tensor:
    """Positions [row, place] that `at` means in prompts with this mask [row, position], -1 for none.

    roles: name -> position of each row. prompt: how many of each row's tokens are the prompt; default all of them.
    """
    length, first = mask.sum(1), mask.shape[1] - mask.sum(1)
    asked = length if prompt is None else prompt
    chosen = [_of_row(at, int(length[row]), int(asked[row]), row, int(first[row]), roles) for row in range(len(mask))]
    width = max([len(own) for own in chosen] + [1])
    return torch.tensor(
        [[int(first[row]) + place for place in own] + [-1] * (width - len(own)) for row, own in enumerate(chosen)]
    )


def _of_row(at: At, length: int, asked: int, row: int, first: int, roles: dict[str, np.ndarray]) -> list[int]:
    """Positions of one row, counted from its first token."""
    if at.kind == "role":
        if at.values[0] not in roles:
            raise BadInput(f"role {at.values[0]!r} is not known in these prompts; known: {', '.join(roles) or 'none'}")
        place = int(roles[at.values[0]][row])
        return [] if place < 0 else [place - first]
    if at.kind == "index":
        for value in at.values:
            if not -length <= value < length:
                raise BadInput(f"position {value} lies outside a prompt of {length} tokens")
        return [value % length for value in at.values]
    return {
        "all": lambda: list(range(length)),
        "slice": lambda: list(range(length))[slice(*at.values)] if at.kind == "slice" else [],
        "prompt": lambda: list(range(asked)),
        "answer": lambda: list(range(asked, length)),
        "decode": lambda: [],
        "steps": lambda: [],
    }[at.kind]()


def functions(intervention: Intervention) -> dict:
    """The user's own functions by import path; `files.check_functions` says what may be imported."""
    found = {}
    for edit in intervention.edits:
        if isinstance(edit.do, Function):
            module, _, name = edit.do.function.partition(":")
            found[edit.do.function] = getattr(importlib.import_module(module), name)
    return found


def needs_source(edit: Edit) -> bool:
    return isinstance(edit.do, FromSource)

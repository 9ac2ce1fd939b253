"""Where edits meet a run: read a site, change the chosen features, put them back.

    collected = apply_edits(model, edits, spec, rows, length, sources, tensors)

Works inside any trace, one forward or a step of generation. Edits come in the order in which their
sites are reached (`interventions.ordering`). Nothing is changed in place, so gradients flow through
every edit.
Shipped to remote servers as source: torch only, and edits arrive as plain data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int

from nnheads.trace.blocks import hidden, packed, reach
from nnheads.trace.operations import change
from nnheads.trace.plain import ModelSpec
from nnheads.trace.sites import Value, read_site, write_site

Features = Float[torch.Tensor, "row position feature"]
Chosen = Float[torch.Tensor, "row place feature"]
Places = Int[torch.Tensor, "row place"]
Edit = dict[str, Any]  # an edit as plain data, see `interventions.prepare.as_data`


def apply_edits(
    model: Any,
    edits: list[Edit],
    spec: ModelSpec,
    rows: int,
    length: int,
    sources: Mapping[int, torch.Tensor | None],
    tensors: dict[str, Any],
) -> dict[str, torch.Tensor]:
    """Put all edits in place inside a trace; return what is collected, key -> features.

    Args:
        edits: `where` [row, place] are the positions of this forward that each acts on, -1 for
            none.
        sources: number of an edit -> features [row, place, feature] of its source run.
    """
    collected = {}
    for edit in edits:
        value = read(model, edit, spec, rows, length)
        old = chosen(value, edit)
        where = edit["where"].to(old.device)
        base = gathered(old, where)
        do = edit["do"]
        new = change(do, base, sources.get(edit["number"]), tensors)
        if do["name"] == "collect":
            collected[do["key"]] = mean_over(base, where) if do["mean"] else base.clone()
        else:
            write(model, edit, spec, length, replaced(value, scattered(old, new, where), edit))
    return collected


def mean_over(features: Chosen, where: Places) -> Float[torch.Tensor, "row 1 feature"]:
    """Return the mean over the places that a row has, [row, 1, feature]; NaN where it has none."""
    there = (where >= 0).unsqueeze(-1)
    total = torch.where(there, features, 0.0).float().sum(1, keepdim=True)
    return total / there.sum(1, keepdim=True)


def gathered(features: Features, where: Places) -> Chosen:
    """Return the features at the chosen positions: [row, place, feature]."""
    return features.gather(1, where.clamp(min=0).unsqueeze(-1).expand(-1, -1, features.shape[-1]))


def scattered(features: Features, new: Chosen, where: Places) -> Features:
    """Return the features with new ones at the chosen positions."""
    row, place = (where >= 0).nonzero(as_tuple=True)
    return features.index_put((row, where[row, place]), new[row, place].to(features.dtype))


def chosen(value: Value, edit: Edit) -> Features:
    """Return the features that an edit is about, its units side by side."""
    value = value[:, :, 0] if value.dim() == 5 else value  # copies of a group hold the same
    value = value if edit["units"] is None else value[:, list(edit["units"])]
    value = value if edit["neurons"] is None else value[..., list(edit["neurons"])]
    return value.transpose(1, 2).flatten(2)


def replaced(value: Value, features: Features, edit: Edit) -> Value:
    """Return the site's whole value with these features in it: `chosen`, backwards."""
    units = list(range(value.shape[1])) if edit["units"] is None else list(edit["units"])
    new = features.unflatten(2, (len(units), -1)).transpose(1, 2)
    if value.dim() == 5:
        new = new.unsqueeze(2).expand(-1, -1, value.shape[2], -1, -1)
    if edit["neurons"] is not None:
        whole = value[:, units].clone()
        whole[..., list(edit["neurons"])] = new
        new = whole
    value = value.clone()
    value[:, units] = new
    return value


def read(model: Any, edit: Edit, spec: ModelSpec, rows: int, length: int) -> Value:
    """Return the value at an edit's site. Call it at the site's turn in the order of execution."""
    if edit["path"] is None:
        return read_site(model.layers[edit["layer"]], edit["site"], spec, (rows, length))
    module = reach(model, edit["path"])
    return shaped(module.input if edit["site"] == "input" else hidden(module.output), length)


def write(model: Any, edit: Edit, spec: ModelSpec, length: int, new: Value) -> None:
    """Put the whole value at an edit's site back."""
    if edit["path"] is None:
        write_site(model.layers[edit["layer"]], edit["site"], new, spec)
        return
    module = reach(model, edit["path"])
    if edit["site"] == "input":
        module.input = unshaped(new, module.input, length)
    else:
        module.output = packed(unshaped(new, hidden(module.output), length), module.output)


def shaped(value: torch.Tensor, length: int = 0) -> Float[torch.Tensor, "row unit position width"]:
    """View any module's tensor by row, position and feature.

    Pictures [row, channel, height, width] have their pixels as positions and their channels as
    features, plain rows one position. Where `length` tokens are read, a tensor [row, position,
    head, dim] has the features of all heads side by side.
    """
    if value.dim() == 2:
        return value[:, None, None]
    if value.dim() == 4 and value.shape[1] == length:
        return value.flatten(2).unsqueeze(1)
    if value.dim() == 4:
        return value.flatten(2).transpose(1, 2).unsqueeze(1)
    return value.unsqueeze(1)


def unshaped(new: torch.Tensor, like: torch.Tensor, length: int = 0) -> torch.Tensor:
    """Undo `shaped`."""
    if like.dim() == 2:
        return new[:, 0, 0]
    if like.dim() == 4 and like.shape[1] == length:
        return new[:, 0].reshape(like.shape)
    if like.dim() == 4:
        return new[:, 0].transpose(1, 2).reshape(like.shape)
    return new[:, 0]

"""The one place where edits meet a run: read a site, change the chosen features, put them back.

Works inside any trace, one forward or a step of generation. Edits come in the order in which their
sites are reached (`plan.ordered`). Nothing is changed in place, so gradients flow through every
edit.
Shipped to remote servers as source: torch only, and edits arrive as plain data.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int

from nnheads.trace.blocks import hidden, reach, split_heads
from nnheads.trace.operations import change
from nnheads.trace.rows import read_rows
from nnheads.trace.sites import kernel_input, softmax


def apply_edits(
    model, edits: list[dict], form: dict, rows: int, length: int, sources: dict, tensors: dict
) -> dict:
    """Put all edits in place; call inside a trace. Returns what is collected: key -> [row, place,
    feature].

    edits: plain data; `where` [row, place] are the positions of this forward that it acts on, -1
        for none.
    sources: number of an edit -> features [row, place, feature] of its source run.
    """
    collected = {}
    for edit in edits:
        value = read(model, edit, form, rows, length)
        old = chosen(value, edit)
        where = edit["where"].to(old.device)
        base = gathered(old, where)
        new = change(edit["do"], base, sources.get(edit["number"]), tensors)
        if edit["do"]["name"] == "collect":
            collected[edit["do"]["key"]] = (
                mean_over(base, where) if edit["do"]["mean"] else base.clone()
            )
            continue
        write(model, edit, form, rows, length, replaced(value, scattered(old, new, where), edit))
    return collected


def mean_over(
    features: Float[torch.Tensor, "row place feature"], where: Int[torch.Tensor, "row place"]
):
    """Mean over the places that a row has, [row, 1, feature]; NaN where it has none."""
    there = (where >= 0).unsqueeze(-1)
    return torch.where(there, features, 0.0).float().sum(1, keepdim=True) / there.sum(
        1, keepdim=True
    )


def gathered(
    features: Float[torch.Tensor, "row position feature"], where: Int[torch.Tensor, "row place"]
):
    """Features at the chosen positions: [row, place, feature]."""
    return features.gather(1, where.clamp(min=0).unsqueeze(-1).expand(-1, -1, features.shape[-1]))


def scattered(features, new, where: Int[torch.Tensor, "row place"]):
    """Features with new ones at the chosen positions."""
    row, place = (where >= 0).nonzero(as_tuple=True)
    return features.index_put((row, where[row, place]), new[row, place].to(features.dtype))


def chosen(value, edit: dict) -> Float[torch.Tensor, "row position feature"]:
    """The features that an edit is about, its units side by side."""
    value = value[:, :, 0] if value.dim() == 5 else value  # copies of a group hold the same
    value = value if edit["units"] is None else value[:, list(edit["units"])]
    value = value if edit["neurons"] is None else value[..., list(edit["neurons"])]
    return value.transpose(1, 2).flatten(2)


def replaced(value, features, edit: dict):
    """The site's whole value with these features in it: `chosen`, backwards."""
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


def read(
    model, edit: dict, form: dict, rows: int, length: int
) -> Float[torch.Tensor, "row unit *group position width"]:
    """A site's value. Call it at the site's place in the order of execution."""
    site = edit["site"]
    if site in ("input", "output"):
        module = reach(model, edit["path"])
        return shaped(module.input if site == "input" else hidden(module.output), length)
    layer = model.layers[edit["layer"]]
    if site == "z":
        return split_heads(layer.attention.projection.input, form["heads"]).transpose(1, 2)
    if site in ("q", "k", "v"):
        return kernel_input(layer, site, form)[..., -length:, :]
    if site == "pattern":
        fused = form["kernel"] == "interface"
        return (
            read_rows(layer, True, slice(-length, None)) if fused else softmax(layer, form).output
        )
    value = {
        "resid_pre": lambda: layer.input,
        "attn_in": lambda: layer.attention.input,
        "attn_out": lambda: hidden(reach(layer, form["attention_adds"]).output),
        "mlp_in": lambda: reach(layer, form["mlp_reads"]).input,
        "mlp_hidden": lambda: reach(layer, form["neurons"]).input,
        "mlp_out": lambda: hidden(reach(layer, form["mlp_adds"]).output),
        "resid_post": lambda: hidden(layer.output),
    }[site]()
    return value.reshape(rows, -1, value.shape[-1]).unsqueeze(
        1
    )  # OPT runs its feed-forward part on flattened rows


def write(model, edit: dict, form: dict, rows: int, length: int, new) -> None:
    """Put a site's whole value back."""
    site = edit["site"]
    if site in ("input", "output"):
        module = reach(model, edit["path"])
        if site == "input":
            module.input = unshaped(new, module.input, length)
        else:
            module.output = packed(unshaped(new, hidden(module.output), length), module.output)
        return
    layer = model.layers[edit["layer"]]
    if site == "z":
        layer.attention.projection.input = new.transpose(1, 2).flatten(2)
    elif site in ("q", "k", "v"):
        # the kernel's own tensors: nothing before them reads them again, so this is safe for
        # gradients too
        kernel_input(layer, site, form)[..., -length:, :] = new
    elif site == "pattern":
        write_pattern(layer, new, form)
    elif site == "resid_pre":
        layer.input = new.reshape(layer.input.shape)
    elif site == "attn_in":
        layer.attention.input = new.reshape(layer.attention.input.shape)
    elif site == "mlp_in":
        part = reach(layer, form["mlp_reads"])
        part.input = new.reshape(part.input.shape)
    elif site == "mlp_hidden":
        part = reach(layer, form["neurons"])
        part.input = new.reshape(part.input.shape)
    else:
        adds = {"attn_out": form["attention_adds"], "mlp_out": form["mlp_adds"]}
        module = layer if site == "resid_post" else reach(layer, adds[site])
        module.output = packed(new.reshape(hidden(module.output).shape), module.output)


def write_pattern(layer, new, form: dict) -> None:
    """Give every head its attention rows.

    Fused kernels have no pattern, so there the outputs follow: rows x values.
    """
    if form["kernel"] == "interface":
        values = layer.attention.source.attention_interface_1.inputs[0][3]
        values = values.repeat_interleave(form["heads"] // values.shape[1], 1)
        z = new.to(values.dtype) @ values
        layer.attention.projection.input = z.transpose(1, 2).flatten(2)
        return
    softmax(layer, form).output = new


def shaped(value, length: int = 0) -> Float[torch.Tensor, "row unit position width"]:
    """Any module's tensor by row, position and feature: pictures [row, channel, height, width] have
    their pixels as positions and their channels as features, plain rows one position. Where
    `length` tokens are read, a tensor [row, position, head, dim] has the features of all heads side
    by side."""
    if value.dim() == 2:
        return value[:, None, None]
    if value.dim() == 4 and value.shape[1] == length:
        return value.flatten(2).unsqueeze(1)
    if value.dim() == 4:
        return value.flatten(2).transpose(1, 2).unsqueeze(1)
    return value.unsqueeze(1)


def unshaped(new, like, length: int = 0):
    """`shaped`, backwards."""
    if like.dim() == 2:
        return new[:, 0, 0]
    if like.dim() == 4 and like.shape[1] == length:
        return new[:, 0].reshape(like.shape)
    if like.dim() == 4:
        return new[:, 0].transpose(1, 2).reshape(like.shape)
    return new[:, 0]


def packed(new, output):
    """A new first output among the others that a module returns."""
    return (new, *output[1:]) if isinstance(output, tuple) else new

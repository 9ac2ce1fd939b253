"""Where a run can be read and changed: every site is a live view [row, unit, ..., position, width]
inside a trace.

The units of z, q and pattern are heads, those of k and v are key/value heads, which under
grouped-query attention serve several heads each; the other sites have one unit. Queries, keys and
values are taken as the attention kernel receives them. Writing into the view changes the run. A
pattern cannot be written where a fused kernel runs, so there the head's output is set to what the
wanted pattern gives: pattern times values.
Shipped to remote servers as source: torch only. `form` is `model.form`, plain data.
"""

from __future__ import annotations

import torch
from jaxtyping import Float

from nnheads.trace.blocks import hidden, reach, read_z
from nnheads.trace.rows import reachable, read_rows

SITES = {
    "z": "head output before W_O",
    "q": "queries",
    "k": "keys",
    "v": "values",
    "pattern": "attention weights",
    "resid_pre": "residual stream before the block",
    "attn_out": "what attention adds",
    "mlp_out": "what the feed-forward part adds",
}
UNITS = {"z": "head", "q": "head", "pattern": "head", "k": "kv_head", "v": "kv_head"}


def read_site(
    layer, site: str, form: dict, rows: int, length: int
) -> Float[torch.Tensor, "row unit *group position width"]:
    """The site's value at one layer: a live view, except for `pattern`. Call it at the site's place
    in the order of execution. `length` positions are run; a cache may hold more keys before
    them."""
    if site == "z":
        return read_z(layer, form["heads"]).transpose(1, 2)
    if site in ("q", "k", "v"):
        return kernel_input(layer, site, form)[..., -length:, :]
    if site == "pattern":
        return read_rows(layer, form["kernel"] == "interface")
    if site == "resid_pre":
        return layer.input.unsqueeze(1)
    if site == "attn_out":
        return hidden(reach(layer, form["attention_adds"]).output).unsqueeze(1)
    output = hidden(reach(layer, form["mlp_adds"]).output)
    return output.view(rows, -1, output.shape[-1]).unsqueeze(
        1
    )  # OPT runs its feed-forward part on flattened rows


def kernel_input(layer, site: str, form: dict) -> Float[torch.Tensor, "row unit *group key width"]:
    """q, k or v of one layer by head. Falcon copies its grouped keys and values for every head of a
    group before it uses them; the copies then are an axis of their own."""
    place, kernel = "qkv".index(site), form["kernel"]
    if kernel == "interface":
        value = layer.attention.source.attention_interface_1.inputs[0][1 + place]
    elif kernel == "attn":
        value = layer.attention.source.self__attn_0.inputs[0][place]
    elif kernel == "bloom":
        value = layer.attention.source.self__reshape_0.output[place]
    else:
        value = layer.attention.source.self__split_heads_0.output[place].transpose(1, 2)
    groups = form["heads"] if site == "q" else form["kv_heads"]
    return value if value.shape[1] == groups else value.unflatten(1, (groups, -1))


def write_site(
    layer, index: int, site: str, edit: dict, form: dict, rows: int, length: int
) -> None:
    """Put new values at some (row, unit) of a site.

    edit: `row`, `unit` [entry], `where` [entry, position], and `given` [entry, ..., position,
        width], or `fill`:
    "zero", or for patterns "uniform". With `add`, what is given is added to what is there.
    """
    if site == "pattern":
        write_pattern(layer, index, edit, form, length)
        return
    put(read_site(layer, site, form, rows, length), edit, edit.get("given"))


def put(view, edit: dict, new) -> None:
    """Write `new` (None: zeros) into the chosen rows and units of a view, where `where` says so."""
    pick = (edit["row"].to(view.device), edit["unit"].to(view.device))
    now = view[pick]
    where = edit["where"].to(view.device)
    where = where.reshape(where.shape[0], *([1] * (now.dim() - 3)), -1, 1)
    new = torch.zeros_like(now) if new is None else new.to(now)
    view[pick] = torch.where(where, now + new if edit.get("add") else new, now)


def write_pattern(layer, index: int, edit: dict, form: dict, length: int) -> None:
    """Give heads the wanted attention: [entry, position, key]."""
    if form["kernel"] == "interface":
        inputs, options = layer.attention.source.attention_interface_1.inputs
        values = inputs[3]
        mask = inputs[4] if len(inputs) > 4 else options.get("attention_mask")
        wanted = wanted_rows(
            edit, mask, length, values.shape[2], options.get("sliding_window"), values.device
        )
        shared = edit["unit"].to(values.device) * values.shape[1] // form["heads"]
        new = wanted.to(values.dtype) @ values[edit["row"].to(values.device), shared]
        put(read_z(layer, form["heads"]).transpose(1, 2), edit, new)
        return
    mask = layer.attention.inputs[1]["attention_mask"]
    view = softmax(layer, form).output
    put(
        view,
        edit,
        wanted_rows(edit, mask, length, view.shape[-1], form["windows"][index], view.device),
    )


def softmax(layer, form: dict):
    """The operation that gives an eager family's attention weights; its `output` is [row, head,
    position, key].
    """
    source = layer.attention.source
    if form["kernel"] == "attn":
        return source.self__attn_0.source.nn_functional_softmax_0
    return source.F_softmax_1 if form["kernel"] == "falcon_alibi" else source.F_softmax_0


def wanted_rows(
    edit: dict, mask, length: int, keys: int, window: int | None, device
) -> Float[torch.Tensor, "entry position key"]:
    """The given rows cut to the keys that are there, or equal weight on every key that the mask
    allows, or none.
    """
    if "given" in edit:
        return edit["given"][..., -keys:].to(device)
    count = edit["row"].shape[0]
    if edit["fill"] == "zero":
        return torch.zeros(count, length, keys, device=device)
    share = reachable(
        mask, torch.arange(length, device=device), keys, keys - length, window
    ).float()
    share = share / share.sum(-1, keepdim=True).clamp(min=1)  # rows of padding see nothing
    return share[edit["row"].to(device)] if share.shape[0] > 1 else share.expand(count, -1, -1)


def narrow(layer, attended: bool = False) -> None:
    """Run the rest of a block for the last position alone, because only its answer is read.

    The part sums broadcast over the other positions, whose values are wrong from here on and never
    used.
    `attended`: its attention was left out.
    """
    if not attended:
        layer.attention.projection.input = layer.attention.projection.input[:, -1:]
    part = layer.mlp.input
    if part.dim() == 3:  # OPT's is flattened over rows and stays whole
        layer.mlp.input = part[:, -1:]

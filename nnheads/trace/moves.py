"""By how much a swap moves what a gradient is taken at: the site itself, or z.

Shipped to remote servers as source: torch only.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float

from nnheads.trace.blocks import read_z, split_heads, start_at
from nnheads.trace.kernels import attention_call, for_each_head, softmax_input
from nnheads.trace.plain import GradientOptions, Inputs, ModelSpec, Write
from nnheads.trace.rows import masked_scores
from nnheads.trace.sites import by_unit, put_site, read_site

# `delta`: [row, unit, ..., position, width], or what `key_moves` needs
Move = dict[str, Any]
Where = Bool[torch.Tensor, "case position"]


def move_of(
    model: Any,
    inputs: Inputs,
    own: dict[str, Any],
    other: dict[str, Any],
    number: int,
    where: Where,
    options: GradientOptions,
) -> Move:
    """Return the move of one of the chosen layers, by its number among them."""
    site, spec, index = options["site"], options["spec"], options["layers"][number]
    given = by_unit(other["values"][number], site, spec, where.shape[0])
    value = own["values"][number]
    if options["fix"] and site in ("q", "k"):
        begin = (index, own["streams"][index].detach())
        if site == "k" and options["each"]:
            return key_scores(model, inputs, begin, given, where, spec)
        changed = changed_z(model, inputs, begin, given, where, options)
        delta = changed - split_heads(value, spec["heads"])
        return {"delta": delta.transpose(1, 2).float()}
    value = by_unit(value, site, spec, where.shape[0])
    return {"delta": (given - value).float() * mask_like(value, where)}


def mask_like(value: torch.Tensor, where: Where) -> torch.Tensor:
    """Return `where` over the axes of a value [row, unit, ..., position, width]."""
    return where.to(value.device).reshape(where.shape[0], *([1] * (value.dim() - 3)), -1, 1)


def changed_z(
    model: Any,
    inputs: Inputs,
    begin: tuple[int, torch.Tensor],
    given: torch.Tensor,
    where: Where,
    options: GradientOptions,
) -> Float[torch.Tensor, "row position head dim"]:
    """Return one layer's head outputs under other queries or keys, all heads at once.

    None sees another's. begin: the layer, and the residual stream that enters it.
    """
    (index, residual), spec = begin, options["spec"]
    with torch.no_grad(), model.trace(**inputs, use_cache=False, logits_to_keep=1) as tracer:
        layer = model.layers[index]
        start_at(model, index, residual, spec["tuple_block"])
        put_site(layer, index, options["site"], every_unit(given, where), spec, where.shape)
        changed = read_z(layer, spec["heads"]).clone()
        tracer.stop()
    return changed


def every_unit(given: torch.Tensor, where: Where) -> Write:
    """Return the write of all units of a site."""
    rows, units = given.shape[:2]
    row, unit = torch.arange(rows).repeat_interleave(units), torch.arange(units).repeat(rows)
    return {"row": row, "unit": unit, "where": where[row], "values": given.flatten(0, 1)}


def key_scores(
    model: Any,
    inputs: Inputs,
    begin: tuple[int, torch.Tensor],
    given: torch.Tensor,
    where: Where,
    spec: ModelSpec,
) -> Move:
    """Return attention scores before and after a swap of all keys, the sinks, and the values."""
    before, sinks, values = attention_scores(model, inputs, begin, None, where, spec)
    after, _, _ = attention_scores(model, inputs, begin, given, where, spec)
    return {"before": before, "after": after, "sinks": sinks, "values": values}


def attention_scores(
    model: Any,
    inputs: Inputs,
    begin: tuple[int, torch.Tensor],
    given: torch.Tensor | None,
    where: Where,
    spec: ModelSpec,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """Return attention scores before the softmax [row, head, query, key], with other keys if given.

    Also the sinks' scores, or None, and the values of each head [row, head, key, width].
    """
    index, residual = begin
    with torch.no_grad(), model.trace(**inputs, use_cache=False, logits_to_keep=1) as tracer:
        layer = model.layers[index]
        start_at(model, index, residual, spec["tuple_block"])
        if given is not None:
            put_site(layer, index, "k", every_unit(given, where), spec, where.shape)
        values = for_each_head(read_site(layer, "v", spec, where.shape), spec["heads"]).double()
        scores, sinks = scores_of(layer, spec, where.shape[1])
        tracer.stop()
    return scores.double().clamp(min=torch.finfo(torch.float32).min), sinks, values


def scores_of(
    layer: Any, spec: ModelSpec, length: int
) -> tuple[Float[torch.Tensor, "row head query key"], torch.Tensor | None]:
    """Return a layer's masked scores and its sinks' scores."""
    if spec["kernel"] != "interface":
        return softmax_input(layer, spec["kernel"]), None
    query, key, _, mask, options = attention_call(layer)
    rows = torch.arange(length, device=query.device)
    return masked_scores(query, key, mask, options, rows, length), options.get("s_aux")

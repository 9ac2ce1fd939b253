"""What swaps would do to a metric, estimated from its gradient: one forward of the donor, one
forward and one backward of the base, for all layers and heads at once.

A swap moves an activation by donor - base; to first order the metric moves by that times its
gradient. Two places where the first order misleads are mended if asked:
- Attention saturates. For queries and keys the layer's head outputs z are computed again with the
  donor's, and the gradient is taken at z, which enters linearly. The change of the weights dA
  counts through its values: sum_k dA[i, k] <dm/dz_i, v_k> is <dm/dz_i, z'_i - z_i>, so no pattern
      is needed, and any attention implementation will do.
- Direct and indirect effects cancel. The gradient is taken again with each layer cut off in turn.
  Where a layer's contribution is cut off, the gradient at its input is the one at its output, so
  one graph serves all of them.

The tracing half of `gradients`, shipped to servers as source: torch only, no decorators. Sandboxes
    run no gradients.
Traces inside a session hand on all their names; what is saved is what leaves the server, and graphs
must not.
"""

from __future__ import annotations

import torch
from nnsight import save

from nnheads.trace.blocks import hidden, reach, read_z, split_heads, start_at
from nnheads.trace.readout import read_logits
from nnheads.trace.rows import masked_scores
from nnheads.trace.session import remote_of
from nnheads.trace.sites import read_site, write_site


def attribute(model, base: dict, source: dict, ask: dict, slope, where, how: dict):
    """Estimated change of the metric by swapping each unit of the chosen layers.

    Args:
        base, source: inputs of the run that is changed and of the one that values come from.
        ask: see `readout.read_logits`. slope: [case, question, reading], the metric's derivative by
            each reading.
        where: [case, position], which positions are swapped.
        how: `site`, `form`, `layers`, `fix` (recompute attention for q and k), `drop` (cut layers
            off in turn), and `each`: one estimate for each position, else one for all of `where`
                together.

    Returns:
        signed estimates and their sizes (averaged over the layers cut off) [layer, case, unit,
        place], and the readings of base and source [case, question, reading].
    """
    with model.session(remote=remote_of(model)):
        site, form, layers = how["site"], how["form"], how["layers"]
        fixed = how["fix"] and site in ("q", "k")
        with torch.no_grad():
            _, others, _, source_read = forward(model, source, ask, layers, site, form)
        with torch.enable_grad():
            nodes, values, streams, base_read = forward(
                model, base, ask, layers, "z" if fixed else site, form
            )
        moves = []
        for index, own, other in zip(layers, values, others):
            given = by_unit(other, site, form, where.shape[0])
            if fixed:
                moves.append(
                    fixed_move(model, base, index, streams[index].detach(), own, given, where, how)
                )
            else:
                own = by_unit(own, site, form, where.shape[0])
                moves.append({"delta": (given - own).float() * mask_like(own, where)})
        estimate, size = backward(base_read, slope, nodes, streams, moves, how)
        base_read, source_read = save(base_read.detach().clone()), save(source_read.clone())
        estimate, size = save(estimate), save(size)
    return estimate, size, base_read, source_read


def readings(model, fed: dict, ask: dict, how: dict):
    """What is asked of a plain run: [case, question, reading]."""
    with torch.no_grad(), model.session(remote=remote_of(model)):
        *_, found = forward(model, fed, ask, [], how["site"], how["form"])
        found = save(found.clone())
    return found


def forward(model, fed: dict, ask: dict, layers: list[int], site: str, form: dict):
    """One run: the site's tensors at `layers` and copies of their values, the residual stream
    around every layer, and what is asked. Unless grad is disabled, all but the copies remember how
    they came about."""
    last = len(list(model.layers)) - 1
    with model.trace(**fed, use_cache=False, logits_to_keep=ask["keep"]):
        nodes, values, streams, read = [], [], [], []
        model.embedding.output.requires_grad_(
            True
        )  # or frozen weights would leave nothing to differentiate
        for index in range(last + 1):
            layer = model.layers[index]
            streams.append(layer.input)
            if index in layers:
                nodes.append(held(layer, site, form))
                values.append(
                    nodes[-1].detach().clone()
                )  # Falcon goes on to add to its feed-forward part in place
        streams.append(hidden(model.layers[last].output))
        read.append(read_logits(model, ask))
    return nodes, values, streams, read[0]


def held(layer, site: str, form: dict):
    """The very tensor that the run goes on with, of which a gradient can be asked; a view of it
    would have none.
    """
    if site == "z":
        return layer.attention.projection.input
    if site == "resid_pre":
        return layer.input
    if site in ("attn_out", "mlp_out"):
        return hidden(
            reach(layer, form["attention_adds" if site == "attn_out" else "mlp_adds"]).output
        )
    place, kernel = "qkv".index(site), form["kernel"]
    if kernel == "interface":
        return layer.attention.source.attention_interface_1.inputs[0][1 + place]
    if kernel == "attn":
        return layer.attention.source.self__attn_0.inputs[0][place]
    if kernel == "bloom":
        return layer.attention.source.self__reshape_0.output[place]
    return layer.attention.source.self__split_heads_0.output[place]


def by_unit(value, site: str, form: dict, rows: int):
    """A held tensor, or its gradient, by unit as `sites.read_site` gives it: [row, unit, ...,
    position, width].
    """
    if site == "z":
        return split_heads(value, form["heads"]).transpose(1, 2)
    if site in ("q", "k", "v"):
        value = value.transpose(1, 2) if form["kernel"].startswith("falcon") else value
        units = form["heads"] if site == "q" else form["kv_heads"]
        return value if value.shape[1] == units else value.unflatten(1, (units, -1))
    return value.reshape(rows, -1, value.shape[-1]).unsqueeze(1)


def mask_like(value, where):
    """`where` [row, position] over the axes of a value [row, unit, ..., position, width]."""
    return where.to(value.device).reshape(where.shape[0], *([1] * (value.dim() - 3)), -1, 1)


def fixed_move(model, fed: dict, index: int, residual, z, given, where, how: dict) -> dict:
    """What the donor's queries or keys make of one layer's head outputs, all heads at once: none
    sees another's.
    """
    form, site = how["form"], how["site"]
    if site == "k" and how["each"]:
        before, sinks, values = attention_scores(model, fed, index, residual, None, where, form)
        after, _, _ = attention_scores(model, fed, index, residual, given, where, form)
        return {"before": before, "after": after, "sinks": sinks, "values": values}
    with torch.no_grad(), model.trace(**fed, use_cache=False, logits_to_keep=1) as tracer:
        layer = model.layers[index]
        start_at(model, index, residual, form["tuple_block"])
        write_site(layer, index, site, every_unit(given, where), form, *where.shape)
        changed = read_z(layer, form["heads"]).clone()
        tracer.stop()
    return {"delta": (changed - split_heads(z, form["heads"])).transpose(1, 2).float()}


def every_unit(given, where) -> dict:
    """The edit that writes all units of a site."""
    rows, units = given.shape[:2]
    row, unit = torch.arange(rows).repeat_interleave(units), torch.arange(units).repeat(rows)
    return {"row": row, "unit": unit, "where": where[row], "given": given.flatten(0, 1)}


def attention_scores(model, fed: dict, index: int, residual, given, where, form: dict):
    """Attention scores before the softmax [row, head, query, key], with the donor's keys if given;
    the sinks' scores, or None; and the values of each head [row, head, key, width]."""
    with torch.no_grad(), model.trace(**fed, use_cache=False, logits_to_keep=1) as tracer:
        layer, found = model.layers[index], []
        start_at(model, index, residual, form["tuple_block"])
        if given is not None:
            write_site(layer, index, "k", every_unit(given, where), form, *where.shape)
        values = read_site(layer, "v", form, *where.shape)
        values = values.flatten(1, 2) if values.dim() == 5 else values
        values = values.repeat_interleave(form["heads"] // values.shape[1], 1).double()
        if form["kernel"] == "interface":
            args, options = layer.attention.source.attention_interface_1.inputs
            mask = args[4] if len(args) > 4 else options.get("attention_mask")
            rows = torch.arange(where.shape[1], device=args[1].device)
            found.extend(
                [
                    masked_scores(args[1], args[2], mask, options, rows, where.shape[1]),
                    options.get("s_aux"),
                ]
            )
        else:
            found.extend([softmax_input(layer, form), None])
        found.append(values)
        tracer.stop()
    scores = found[0].double()
    return scores.clamp(min=torch.finfo(torch.float32).min), found[1], found[2]


def softmax_input(layer, form: dict):
    """Scores of eager attention outside transformers' interface."""
    if form["kernel"] == "attn":
        return layer.attention.source.self__attn_0.source.nn_functional_softmax_0.inputs[0][0]
    if form["kernel"] == "falcon_alibi":
        return layer.attention.source.F_softmax_1.inputs[0][0]
    return layer.attention.source.F_softmax_0.inputs[0][0]


def backward(read, slope, nodes: list, streams: list, moves: list, how: dict):
    """Estimates and their sizes [layer, case, unit, place] from the graph of the base run."""
    layers, count, total = how["layers"], len(nodes), len(streams) - 1
    drop = how["drop"] and total > 1
    wanted = [*nodes, *streams[1:]] if drop else nodes
    found = torch.autograd.grad(read, wanted, slope.to(read.device), retain_graph=drop)
    plain = [estimated(gradient, move, how) for gradient, move in zip(found, moves)]
    if not drop:
        return torch.stack(plain), torch.stack(plain).abs()
    # a layer below the node does not touch its gradient, its own layer leaves none
    sizes = [one.abs() * index for one, index in zip(plain, layers)]
    for dropped in range(total):
        through = found[count + dropped]
        below = [place for place, index in enumerate(layers) if index < dropped]
        if below:
            tensors = [nodes[place] for place in below]
            gradients = torch.autograd.grad(streams[dropped], tensors, through, retain_graph=True)
            for place, gradient in zip(below, gradients):
                sizes[place] = sizes[place] + estimated(gradient, moves[place], how).abs()
        if (
            how["site"] == "resid_pre" and dropped in layers
        ):  # stands before the layer and flows around it
            place = layers.index(dropped)
            sizes[place] = sizes[place] + estimated(through, moves[place], how).abs()
    return torch.stack(plain), torch.stack(sizes) / (total - 1)


def estimated(gradient, move: dict, how: dict):
    """Change of the metric [case, unit, place], from the gradient at the site, or at z where
    attention was run anew.
    """
    site, form, fixed = how["site"], how["form"], how["fix"] and how["site"] in ("q", "k")
    if "before" in move:
        moved = key_moves(by_unit(gradient, "z", form, gradient.shape[0]).double(), move)
        return grouped(moved, form).float().cpu()
    delta = move["delta"]
    slopes = by_unit(gradient, "z" if fixed else site, form, delta.shape[0])
    moved = (delta * slopes.float()).sum(-1)
    moved = (
        moved.sum(2) if moved.dim() == 4 else moved
    )  # copies of a key or value for each head of its group
    moved = moved if how["each"] else moved.sum(-1, keepdim=True)
    moved = grouped(moved, form) if fixed and site == "k" else moved
    return moved.cpu()  # layers may be on several devices


def grouped(moved, form: dict):
    """[row, head, place] summed over the heads that share a key: [row, kv head, place]."""
    return moved.unflatten(1, (form["kv_heads"], -1)).sum(2)


def key_moves(slopes, move: dict):
    """Change of the metric if one key alone is replaced, summed over the queries that see it: [row,
    head, key].

    With the weight w of a key and the mean m of what the others bring, a row brings w a + (1 - w)
    m: the key's own new weight says it all. What the others sum to leaves the key out from the
        start; subtracting it from the whole would
    lose it wherever attention is saturated.
    """
    before, after = move["before"], move["after"]
    brought = slopes @ move["values"].transpose(-1, -2)
    top = before.max(-1, keepdim=True).values
    sink = torch.zeros_like(top)
    if move["sinks"] is not None:
        own = move["sinks"].double().reshape(1, -1, 1, 1).expand_as(top)
        top = torch.maximum(top, own)
        sink = (own - top).exp()
    weight = (before - top).exp()
    others = (all_but_one(weight) + sink).clamp(min=torch.finfo(weight.dtype).tiny)
    mean = all_but_one(weight * brought) / others
    reference = top + others.log()
    return (
        ((after - reference).sigmoid() - (before - reference).sigmoid()).mul(brought - mean).sum(-2)
    )


def all_but_one(values):
    """Sums along the last axis that leave out each element in turn, without subtraction."""
    nothing = torch.zeros_like(values[..., :1])
    left = torch.cat([nothing, values[..., :-1]], -1).cumsum(-1)
    right = torch.cat([values[..., 1:], nothing], -1).flip(-1).cumsum(-1).flip(-1)
    return left + right

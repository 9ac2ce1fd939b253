"""What the tests compare with: plain PyTorch hooks on the same weights, no nnsight and nothing of
ours but the table of paths."""

from __future__ import annotations

import contextlib
from operator import attrgetter

import torch

from nnheads.models.families import FAMILIES


def fed(model_type: str, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """Model inputs; positions count from the first real token."""
    given = {"input_ids": ids, "attention_mask": mask}
    if FAMILIES[model_type].position_ids:
        given["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    return given


def site_module(module, model_type: str, layer: int, site: str):
    """The plain module behind a site, and whether the site is its input or its output."""
    row = FAMILIES[model_type]
    block = attrgetter(row.layers)(module)[layer]
    read = {
        "attn_in": row.attention,
        "z": row.projection,
        "mlp_in": row.mlp_reads or row.mlp,
        "mlp_hidden": row.neurons,
    }
    adds = {"attn_out": row.attention_adds or row.attention, "mlp_out": row.mlp_adds or row.mlp}
    path = {**read, **adds}.get(site)
    return (attrgetter(path)(block) if path else block), site in ("resid_pre", *read)


@contextlib.contextmanager
def hooked(module, model_type: str, layer: int, site: str, change):
    """Run with `change(value)` in place of a site's value.

    `change` may also only look and return it.
    """
    target, is_input = site_module(module, model_type, layer, site)

    def before(_, arguments, keywords):
        if arguments:
            return (change(arguments[0]), *arguments[1:]), keywords
        return arguments, {**keywords, "hidden_states": change(keywords["hidden_states"])}

    def after(_, arguments, output):
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    handle = (
        target.register_forward_pre_hook(before, with_kwargs=True)
        if is_input
        else target.register_forward_hook(after)
    )
    try:
        yield
    finally:
        handle.remove()


def values_at(module, model_type: str, given: dict, places) -> dict:
    """The values at some places, (layer, site), in one plain run."""
    seen: dict = {}

    def kept(place):
        return lambda value: seen.setdefault(place, value.clone()) is None or value

    with torch.no_grad(), contextlib.ExitStack() as stack:
        for layer, site in places:
            stack.enter_context(hooked(module, model_type, layer, site, kept((layer, site))))
        module(**given, use_cache=False)
    return seen


def value_at(module, model_type: str, given: dict, layer: int, site: str) -> torch.Tensor:
    """A site's value in a plain run."""
    return values_at(module, model_type, given, [(layer, site)])[layer, site]


def end_logits(module, given: dict) -> torch.Tensor:
    with torch.no_grad():
        return module(**given, use_cache=False).logits[:, -1].float()


def patched_logits(module, model_type, base, donor, layer, site, where) -> torch.Tensor:
    """Last-position logits of the base run with the donor's value wherever `where` [case, position,
    unit]
    is set: one full forward of both runs, as slow and as plain as it gets."""
    given = value_at(module, model_type, donor, layer, site)

    def exchange(value):
        shape = (*where.shape, -1)
        swapped = torch.where(where.unsqueeze(-1), given.reshape(shape), value.reshape(shape))
        return swapped.reshape(value.shape)

    with hooked(module, model_type, layer, site, exchange):
        return end_logits(module, base)


@contextlib.contextmanager
def kernel(module, model_type: str, layer: int, change=lambda q, k, v: (q, k, v), reweigh=None):
    """Eager attention of one layer with `change(q, k, v)` of what its kernel receives, [row, head,
    position, dim], and with `reweigh(weights)` in place of its weights. `module` must run
    eagerly."""
    import sys

    home = sys.modules[type(module).__module__]
    row = FAMILIES[model_type]
    attention = attrgetter(row.attention)(attrgetter(row.layers)(module)[layer])
    with contextlib.ExitStack() as stack:
        # a trace that read inside this attention has left a forward in it that looks up its own
        # names, and would not see what is swapped here
        traced = vars(attention).pop("forward", None)
        if traced is not None:
            stack.callback(setattr, attention, "forward", traced)

        def swap(owner, name, new):
            old = getattr(owner, name)
            stack.callback(setattr, owner, name, old)
            setattr(owner, name, new(old))

        def interface(old):
            def run(own, query, key, value, *rest, **keywords):
                if own is not attention:
                    return old(own, query, key, value, *rest, **keywords)
                query, key, value = change(query, key, value)
                output, weights = old(own, query, key, value, *rest, **keywords)
                if reweigh is not None:
                    group = query.shape[1] // value.shape[1]
                    weights = reweigh(weights)
                    output = (weights @ value.repeat_interleave(group, 1)).transpose(1, 2)
                return output, weights

            return run

        def own_attention(old):
            def run(query, key, value, mask=None):
                query, key, value = change(query, key, value)
                output, weights = old(query, key, value, mask)
                return (output, weights) if reweigh is None else (reweigh(weights) @ value, weights)

            return run

        def split(transposed):
            def wrap(old):
                def run(fused):
                    parts = old(fused)
                    turned = [part.transpose(1, 2) for part in parts] if transposed else parts
                    changed = change(*turned)
                    return (
                        tuple(part.transpose(1, 2) for part in changed)
                        if transposed
                        else tuple(changed)
                    )

                return run

            return wrap

        def softmax(old):
            calls = []

            def run(scores, *rest, **keywords):
                calls.append(1)
                weights = old(scores, *rest, **keywords)
                return (
                    reweigh(weights) if reweigh is not None and len(calls) == layer + 1 else weights
                )

            return run

        if model_type in ("gptj", "gpt_neo"):
            swap(attention, "_attn", own_attention)
        elif model_type in ("bloom", "falcon"):
            swap(
                attention,
                "_reshape" if model_type == "bloom" else "_split_heads",
                split(model_type == "falcon"),
            )
            swap(torch.nn.functional, "softmax", softmax)
        else:
            swap(home, "eager_attention_forward", interface)
        yield

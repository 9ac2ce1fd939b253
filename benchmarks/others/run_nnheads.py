"""nnheads, and the two ways to do without it: one nnsight trace per head, and plain hooks.

The latter two keep only the last position's logits, as a careful script would.
"""

from __future__ import annotations

import torch
import xarray as xr
from nnsight import save
from serve import difference, pairs, runs, serve

from nnheads.heads import read_z, split_heads
from nnheads.model import geometry, load
from nnheads.patching.patch import patch


def nnheads_patch(model, prompts: xr.Dataset):
    """logit difference [case, layer, head] with the clean head output in the corrupted run, at all positions."""
    return patch(model, prompts, site="z")["logit_difference"].transpose("batch", "layer", "head").values


def ours(model: str, given: dict):
    loaded = load(model, dtype="float32")
    place = ("batch", "position")
    prompts = xr.Dataset(
        {name: (place, given[name].numpy().astype("int32")) for name in ("token", "corrupted")}
        | {name: (("batch",), given[name].numpy().astype("int32")) for name in ("answer", "wrong")}
        | {"mask": (place, torch.ones_like(given["token"]).numpy().astype("int8"))}
    )
    loaded._module(**runs(given)[0], use_cache=False)
    return lambda: nnheads_patch(loaded, prompts)


def one_trace_per_head(model: str, given: dict):
    """One nnsight trace per head over the whole model."""
    loaded, (base, donor), pair = load(model, dtype="float32"), runs(given), pairs(given)
    sizes = geometry(loaded)
    loaded._module(**base, use_cache=False)

    def turn():
        with loaded.trace(**donor, use_cache=False):
            kept = save([read_z(layer, sizes.heads).clone() for layer in loaded.layers])
        result = torch.empty(len(pair), sizes.layers, sizes.heads)
        for layer in range(sizes.layers):
            for head in range(sizes.heads):
                values = kept[layer][:, :, head]
                with loaded.trace(**base, use_cache=False):
                    read_z(loaded.layers[layer], sizes.heads)[:, :, head] = values
                    logits = save(loaded.output.logits)
                result[:, layer, head] = difference(logits, pair)
        return result

    return turn


def plain_hooks(model: str, given: dict):
    """One forward per head with a forward hook, nothing of ours but the table of paths."""
    loaded, (base, donor), pair = load(model, dtype="float32"), runs(given), pairs(given)
    sizes, module = geometry(loaded), loaded._module
    projections = [layer.attention.projection._module for layer in loaded.layers]
    module(**base, use_cache=False)

    def turn():
        kept: dict[int, torch.Tensor] = {}
        handles = [
            projection.register_forward_pre_hook(lambda _, z, n=n: kept.__setitem__(n, z[0].clone()))
            for n, projection in enumerate(projections)
        ]
        module(**donor, use_cache=False)
        for handle in handles:
            handle.remove()
        result = torch.empty(len(pair), sizes.layers, sizes.heads)
        for layer in range(sizes.layers):
            for head in range(sizes.heads):

                def swap(_, arguments, layer=layer, head=head):
                    z = arguments[0].clone()
                    split_heads(z, sizes.heads)[:, :, head] = split_heads(kept[layer], sizes.heads)[:, :, head]
                    return (z, *arguments[1:])

                handle = projections[layer].register_forward_pre_hook(swap)
                result[:, layer, head] = difference(module(**base, use_cache=False).logits, pair)
                handle.remove()
        return result

    return turn


if __name__ == "__main__":
    serve({"nnheads": ours, "trace": one_trace_per_head, "hooks": plain_hooks}, "nnheads")

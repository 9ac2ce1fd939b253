"""nnheads, and the two ways to do without it: one nnsight trace per head, and plain hooks.

The latter two keep only the last position's logits, as a careful script would.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
import xarray as xr
from nnsight import save
from serve import accuracy, batches, difference, pairs, runs, serve

from nnheads.interventions.alignment import aligned, evaluate
from nnheads.interventions.counterfactuals import Pairs
from nnheads.interventions.positions import index
from nnheads.interventions.training import train
from nnheads.models.geometry import geometry
from nnheads.models.load import load
from nnheads.patching.patch import patch
from nnheads.trace.blocks import read_z, split_heads


def nnheads_patch(model, prompts: xr.Dataset):
    """logit difference [case, layer, head] with the clean head output in the corrupted run, at all
    positions.
    """
    return (
        patch(model, prompts, site="z")["logit_difference"]
        .transpose("batch", "layer", "head")
        .values
    )


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
            projection.register_forward_pre_hook(
                lambda _, z, n=n: kept.__setitem__(n, z[0].clone())
            )
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
                    split_heads(z, sizes.heads)[:, :, head] = split_heads(kept[layer], sizes.heads)[
                        :, :, head
                    ]
                    return (z, *arguments[1:])

                handle = projections[layer].register_forward_pre_hook(swap)
                result[:, layer, head] = difference(module(**base, use_cache=False).logits, pair)
                handle.remove()
        return result

    return turn


def counterfactual(given: dict, kind: str = "") -> Pairs:
    """Counterfactual pairs of the inputs."""
    place = ("batch", "position")
    base, source = (
        xr.Dataset({"token": (place, ids), "mask": (place, np.ones_like(ids))})
        for ids in (given[f"{kind}{name}"].numpy() for name in ("token", "source"))
    )
    return Pairs(base, (source,), given[f"{kind}answer"].long())


def align(model: str, given: dict):
    """Interchange accuracy [seed] on test pairs of a rotation that `train` found."""
    loaded, fit, test = (
        load(model, dtype="float32"),
        counterfactual(given),
        counterfactual(given, "test_"),
    )
    width, batch = geometry(loaded).d_model, int(given["batch"])

    def trained(seed: int) -> float:
        start = aligned(
            "resid_post",
            int(given["layer"]),
            index(-1),
            features=width,
            directions=int(given["rank"]),
            seed=seed,
        )
        found, _ = train(
            loaded,
            start,
            fit,
            steps=int(given["steps"]),
            batch_size=batch,
            learning_rate=2 * float(given["rate"]),
            seed=seed,
            held_out=0,
        )
        return float(evaluate(loaded, found, test, batch_size=batch)["score"].mean())

    return lambda: torch.tensor([trained(seed) for seed in given["seeds"].tolist()])


def align_by_hooks(model: str, given: dict):
    """The same with forward hooks and torch's own orthogonal parametrisation, nothing of ours."""
    loaded = load(model, dtype="float32")
    module, layer = loaded._module.requires_grad_(False), loaded.layers[int(given["layer"])]._module
    width, batch = geometry(loaded).d_model, int(given["batch"])

    def predicted(rotation, rows: torch.Tensor, kind: str) -> torch.Tensor:
        kept: list[torch.Tensor] = []

        def swap(_, __, output):
            weight, last = rotation.weight.T, output[:, -1]
            new = last + ((kept[0] - last) @ weight) @ weight.T
            return torch.cat([output[:, :-1], new[:, None]], 1)

        with torch.no_grad():
            handle = layer.register_forward_hook(lambda *call: kept.append(call[2][:, -1]))
            module(input_ids=given[f"{kind}source"][rows].long(), logits_to_keep=1, use_cache=False)
            handle.remove()
        handle = layer.register_forward_hook(swap)
        logits = module(
            input_ids=given[f"{kind}token"][rows].long(), logits_to_keep=1, use_cache=False
        ).logits[:, -1]
        handle.remove()
        return logits

    def trained(seed: int) -> float:
        torch.manual_seed(seed)
        linear = torch.nn.Linear(width, int(given["rank"]), bias=False)
        torch.nn.init.orthogonal_(linear.weight)
        rotation = torch.nn.utils.parametrizations.orthogonal(linear)
        optimizer = torch.optim.Adam(rotation.parameters(), lr=float(given["rate"]))
        with torch.enable_grad():
            for rows in batches(given, seed):
                optimizer.zero_grad()
                answer = given["answer"][rows].long()
                torch.nn.functional.cross_entropy(predicted(rotation, rows, ""), answer).backward()
                optimizer.step()
        return accuracy(given, partial(predicted, rotation), batch)

    return lambda: torch.tensor([trained(seed) for seed in given["seeds"].tolist()])


if __name__ == "__main__":
    serve(
        {
            "align": align,
            "align_hooks": align_by_hooks,
            "nnheads": ours,
            "trace": one_trace_per_head,
            "hooks": plain_hooks,
        },
        "nnheads",
    )

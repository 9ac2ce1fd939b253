"""pyvene: one intervenable model per head.

It is used as fast as its interface allows: the head outputs of the other run are collected once and
    handed to every
intervention, and only the last position's logits are computed. As in its tutorials, which run both
prompts for every head, it takes about twice as long.
"""

from __future__ import annotations

from functools import partial

import pyvene
import torch
from serve import accuracy, batches, difference, pairs, runs, serve
from transformers import AutoModelForCausalLM

SITE = {"component": "head_attention_value_output", "unit": "h.pos"}


def collected(module, clean: dict, places: list[list[int]]) -> list[torch.Tensor]:
    """Every layer's head outputs in a run."""
    layers, heads = module.config.num_hidden_layers, module.config.num_attention_heads
    kind = {"max_number_of_units": heads, "intervention_type": pyvene.CollectIntervention}
    config = [{**SITE, "layer": layer, **kind} for layer in range(layers)]
    where = [[list(range(heads))] * len(places), places]
    intervenable = pyvene.IntervenableModel(pyvene.IntervenableConfig(config), module)
    locations = {"sources->base": (None, [where] * layers)}
    return intervenable(clean, unit_locations=locations, use_cache=False)[0][1]


def sweep(model: str, given: dict):
    """logit difference [case, layer, head] with the clean head output in the corrupted run, at all
    positions.
    """
    module, pair = (
        AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval(),
        pairs(given),
    )
    layers, heads = module.config.num_hidden_layers, module.config.num_attention_heads
    cases, tokens = given["token"].shape
    corrupted, clean = runs(given)
    module(**corrupted, use_cache=False)
    places = [list(range(tokens))] * cases

    def turn():
        kept, result = collected(module, clean, places), torch.empty(cases, layers, heads)
        for layer in range(layers):
            for head in range(heads):
                config = pyvene.IntervenableConfig(
                    [{**SITE, "layer": layer}], pyvene.VanillaIntervention
                )
                intervenable = pyvene.IntervenableModel(config, module)
                _, output = intervenable(
                    corrupted,
                    unit_locations={"sources->base": (None, [[[[head]] * cases, places]])},
                    source_representations={intervenable.sorted_keys[0]: kept[layer][:, [head]]},
                    use_cache=False,
                )
                result[:, layer, head] = difference(output.logits, pair)
        return result

    return turn


def align(model: str, given: dict):
    """Interchange accuracy [seed] on test pairs of a low-rank rotation, trained in the loop of its
    tutorials, but that only the last position's logits are computed."""
    module = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    site = {
        "layer": int(given["layer"]),
        "component": "block_output",
        "low_rank_dimension": int(given["rank"]),
    }
    place, batch = given["token"].shape[1] - 1, int(given["batch"])

    def predicted(intervenable, rows: torch.Tensor, kind: str) -> torch.Tensor:
        base, source = (
            {"input_ids": given[f"{kind}{name}"][rows].long(), "logits_to_keep": 1}
            for name in ("token", "source")
        )
        _, output = intervenable(base, [source], {"sources->base": place}, use_cache=False)
        return output.logits[:, -1]

    def trained(seed: int) -> float:
        torch.manual_seed(seed)
        config = pyvene.IntervenableConfig([site], pyvene.LowRankRotatedSpaceIntervention)
        intervenable = pyvene.IntervenableModel(config, module)
        intervenable.disable_model_gradients()
        optimizer = torch.optim.Adam(
            intervenable.get_trainable_parameters(), lr=float(given["rate"])
        )
        with torch.enable_grad():
            for rows in batches(given, seed):
                loss = torch.nn.functional.cross_entropy(
                    predicted(intervenable, rows, ""), given["answer"][rows].long()
                )
                loss.backward()
                optimizer.step()
                intervenable.set_zero_grad()
        return accuracy(given, partial(predicted, intervenable), batch)

    return lambda: torch.tensor([trained(seed) for seed in given["seeds"].tolist()])


if __name__ == "__main__":
    serve({"sweep": sweep, "align": align}, "pyvene")

"""Folders as pyvene 0.1.8 writes them, and what it computes with them. Run where it is installed:
`python make.py`.
"""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import formula
import pyvene as pv
import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
BASE, SOURCE = torch.tensor(formula.BASE), torch.tensor(formula.SOURCE)
LAYER = {"layer": 1, "unit": "pos", "max_number_of_units": 1}


def vector(size: int) -> torch.Tensor:
    return torch.cos(torch.arange(float(size)))


def part(component: str, kind, **more) -> dict:
    return {**LAYER, "component": component, "intervention_type": kind, **more}


def constant(component: str, kind, size: int, **more) -> dict:
    return part(component, kind, source_representation=vector(size), **more)


ONE = {"sources->base": (1, 3)}
CASES = {
    "zero": ("llama", [part("block_output", pv.ZeroIntervention)], {"base": 2}, {}),
    "vanilla": ("llama", [part("mlp_output", pv.VanillaIntervention)], ONE, {}),
    "everywhere": (
        "llama",
        [
            constant("attention_value_output", pv.AdditionIntervention, 16),
            {**constant("attention_value_output", pv.AdditionIntervention, 16), "layer": 0},
        ],
        None,
        {},
    ),
    "subtract": (
        "llama",
        [constant("block_input", pv.SubtractionIntervention, 16)],
        {"base": [0, 2, 4]},
        {},
    ),
    "add-source": ("llama", [part("attention_output", pv.AdditionIntervention)], ONE, {}),
    "set": ("llama", [constant("mlp_input", pv.VanillaIntervention, 16)], {"base": 4}, {}),
    "heads": (
        "llama",
        [
            part(
                "head_attention_value_output",
                pv.VanillaIntervention,
                unit="h.pos",
                max_number_of_units=2,
            )
        ],
        {"sources->base": ([[[[0, 3]] * 2, [[2, 4]] * 2]], [[[[0, 3]] * 2, [[3, 5]] * 2]])},
        {},
    ),
    "head-constant": (
        "llama",
        [constant("head_attention_value_output", pv.AdditionIntervention, 4, unit="h.pos")],
        {"sources->base": (None, [[[[1]] * 2, [[2, 4]] * 2]])},
        {},
    ),
    "query": ("llama", [part("query_output", pv.VanillaIntervention)], ONE, {}),
    "key-head": (
        "llama",
        [part("head_key_output", pv.VanillaIntervention, unit="h.pos")],
        {"sources->base": ([[[[1]] * 2, [[2]] * 2]], [[[[1]] * 2, [[3]] * 2]])},
        {},
    ),
    "value": ("llama", [part("value_output", pv.ZeroIntervention)], {"base": 1}, {}),
    "activation": ("llama", [part("mlp_activation", pv.ZeroIntervention)], {"base": 5}, {}),
    "path": (
        "llama",
        [part("model.layers[1].mlp.down_proj.input", pv.VanillaIntervention)],
        ONE,
        {},
    ),
    "rotated": (
        "llama",
        [part("block_output", pv.RotatedSpaceIntervention, subspace_partition=[[0, 5], [5, 16]])],
        ONE,
        {"subspaces": [0]},
    ),
    "low-rank": (
        "llama",
        [part("block_output", pv.LowRankRotatedSpaceIntervention, low_rank_dimension=3)],
        ONE,
        {},
    ),
    "boundless": ("llama", [part("block_output", pv.BoundlessRotatedSpaceIntervention)], ONE, {}),
    "mask": ("llama", [part("block_output", pv.SigmoidMaskIntervention)], ONE, {}),
    "masked-rotation": (
        "llama",
        [part("block_output", pv.SigmoidMaskRotatedSpaceIntervention)],
        ONE,
        {},
    ),
    "collect": (
        "llama",
        [part("attention_input", pv.CollectIntervention, max_number_of_units=3)],
        {"base": [1, 3, 4]},
        {},
    ),
    "two": (
        "llama",
        [
            {**part("block_output", pv.VanillaIntervention), "layer": 0},
            part("mlp_output", pv.VanillaIntervention),
        ],
        {"sources->base": ([[[0]] * 2, [[2]] * 2], [[[1]] * 2, [[4]] * 2])},
        {},
    ),
    "linked": (
        "llama",
        [
            part(
                "block_output",
                pv.LowRankRotatedSpaceIntervention,
                low_rank_dimension=3,
                intervention_link_key=0,
            )
        ],
        ONE,
        {},
    ),
    "gpt2-key": ("gpt2", [part("key_output", pv.VanillaIntervention)], ONE, {}),
    "gpt2-head-query": (
        "gpt2",
        [part("head_query_output", pv.VanillaIntervention, unit="h.pos")],
        {"sources->base": ([[[[2]] * 2, [[2]] * 2]], [[[[2]] * 2, [[3]] * 2]])},
        {},
    ),
    "gpt2-activation": ("gpt2", [part("mlp_activation", pv.VanillaIntervention)], ONE, {}),
    "gpt2-attention": ("gpt2", [part("attention_input", pv.VanillaIntervention)], ONE, {}),
    "gpt2-heads": (
        "gpt2",
        [part("head_attention_value_output", pv.ZeroIntervention, unit="h")],
        {"base": 2},
        {},
    ),
    "gpt2-path": (
        "gpt2",
        [part("transformer.h[0].mlp.output", pv.ZeroIntervention)],
        {"base": 2},
        {},
    ),
}


def main():
    about, numbers = {}, {}
    for name, (family, parts, locations, options) in CASES.items():
        model = pv.IntervenableModel(
            pv.IntervenableConfig(parts), model=formula.network(family, attn_implementation="eager")
        )
        torch.manual_seed(0)
        for intervention in model.interventions.plain_values():
            if hasattr(intervention, "intervention_boundaries"):
                intervention.set_intervention_boundaries(0.4)
                intervention.set_temperature(torch.tensor(2.0))
            elif hasattr(intervention, "mask"):
                intervention.mask.data = vector(16)
                intervention.set_temperature(torch.tensor(0.3))
            elif hasattr(intervention, "masks"):
                intervention.masks.data = 3 * vector(16)
                intervention.set_temperature(torch.tensor(2.0))
        shutil.rmtree(HERE / name, ignore_errors=True)
        model.save(str(HERE / name))
        keys = [] if locations is None else [key for key in locations if key.startswith("sources")]
        needs = [
            not getattr(one, "is_source_constant", False)
            for one in model.interventions.plain_values()
        ]
        sources = (
            [{"input_ids": SOURCE}] * len(needs) if keys and any(needs) else [None] * len(needs)
        )
        with torch.no_grad():
            before, after = model(
                {"input_ids": BASE},
                sources,
                unit_locations=copy.deepcopy(locations),
                output_original_output=True,
                **options,
            )
        if model.return_collect_activations:
            numbers[f"{name}.collected"] = before[1][0].contiguous()
            before = before[0]
        numbers[name] = after.logits.contiguous()
        about[name] = {"family": family, "unit_locations": locations, **options}
        print(name, float((before.logits - after.logits).abs().max()))
    (HERE / "cases.json").write_text(json.dumps(about, indent=1) + "\n")
    save_file(numbers, HERE / "expected.safetensors")


if __name__ == "__main__":
    main()

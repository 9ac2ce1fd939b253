"""A grid of retrieval prompts: shared prefixes against answering and then measuring every prompt,
one run, same inputs.

Prints token-layers (tokens times layers that were computed, padding not counted) and seconds of
both ways, after
checking that their scores agree. Run: python benchmarks/bench_retrieval.py [--longest 2000]
    [--lengths 20]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from nnsight import TransformersModel
from other_tools import timed
from transformers import AutoConfig, AutoModelForCausalLM

from nnheads.generation.needle_answers import answer_needles
from nnheads.generation.prefixes import answer_and_measure
from nnheads.models.families import FAMILIES
from nnheads.prompts.needle import needle_grid
from nnheads.spans.measure import measure
from nnheads.spans.nulls import NULL


def build(given) -> TransformersModel:
    """A random Llama with the reference model's tokenizer."""
    from transformers import AutoTokenizer

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(
        Path(__file__).parent.parent / "nnheads" / "reference" / "model"
    )
    tokenizer.model_max_length = 1 << 14
    config = AutoConfig.for_model(
        "llama",
        num_hidden_layers=given.layers,
        hidden_size=given.width,
        intermediate_size=3 * given.width,
        num_attention_heads=given.heads,
        num_key_value_heads=given.heads // 2,
        vocab_size=len(tokenizer),
        max_position_embeddings=1 << 14,
        eos_token_id=None,
        bos_token_id=None,
    )
    module = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for parameter in module.parameters():
        if parameter.dim() > 1:
            parameter.mul_(3)  # rows of attention that differ from uniform ones
    return TransformersModel(module, tokenizer=tokenizer, rename=FAMILIES["llama"].rename())


def plain(model, prompts: xr.Dataset, size: int) -> xr.Dataset:
    """Slices of prompts of about the same length, as little padding as can be."""
    order = np.argsort(prompts["length"].values, kind="stable")
    parts = []
    for first in range(0, len(order), size):
        part = prompts.isel(batch=order[first : first + size])
        padding = int((part["mask"].values.sum(0) == 0).sum())
        spans = {name: part[name] - padding for name in ("key_start", "key_stop")}
        moved = part.isel(position=slice(padding, None)).assign(ask=part["ask"] - padding, **spans)
        parts.append(measure(model, answer_needles(model, moved)))
    kinds = max((part["kind"].values for part in parts), key=len)
    return xr.concat([part.reindex(kind=kinds) for part in parts], "batch").isel(
        batch=np.argsort(order)
    )


SIZES = {
    "layers": 4,
    "heads": 4,
    "width": 256,
    "lengths": 20,
    "depths": 10,
    "longest": 2000,
    "needles": 1,
    "batch": 8,
    "rounds": 1,
}


def grid(model, given) -> xr.Dataset:
    """Prompts of all lengths, with the needle at all depths."""
    steps = np.linspace(given.longest / given.lengths, given.longest, given.lengths)
    depths = np.linspace(0, 1, given.depths).tolist()
    lengths = steps.astype(int).tolist()
    return needle_grid(model.tokenizer, lengths=lengths, depths=depths, needles=given.needles)


def check(scores: dict[str, xr.Dataset]) -> None:
    """Fail unless both ways give the same scores.

    Which random keys are drawn depends on the prompts that are read together, and these differ.
    """
    kinds = scores["shared prefixes"]["kind"].values
    drawn = [kind for kind in kinds if not kind.endswith(NULL)]
    first, second = (one.sel(kind=drawn).drop_attrs() for one in scores.values())
    xr.testing.assert_allclose(first, second, atol=1e-4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    model = build(given)
    prompts = grid(model, given)
    ways = {
        "every prompt afresh": lambda: plain(model, prompts, given.batch),
        "shared prefixes": lambda: answer_and_measure(model, prompts),
    }
    times: dict[str, list[float]] = {}
    for _ in range(given.rounds):
        scores = timed(ways, times)
        check(scores)
    shared, lengths = scores["shared prefixes"], prompts["length"].values
    spent = dict(zip(ways, (shared.attrs["token_layers_plain"], shared.attrs["token_layers"])))
    print(
        f"{len(lengths)} prompts of {lengths.min()} to {lengths.max()} tokens,"
        f" {int(shared['copies'].sum())} copied tokens"
    )
    print("  scores agree to 1e-4")
    for name, taken in times.items():
        print(f"  {name:<20} {spent[name]:>10,} token-layers {min(taken):8.1f} s")
    tokens, seconds = (
        one[0] / one[1] for one in (list(spent.values()), [min(taken) for taken in times.values()])
    )
    print(f"  {tokens:.1f} times fewer token-layers, {seconds:.1f} times less time")


if __name__ == "__main__":
    main()

"""Patching every head of a GPT-2-small shape: one batch per layer against one forward per head.

Prints ratios measured side by side in one run, on the same random weights and prompts, after checking that
all ways give the same numbers. Run: make bench, or python benchmarks/bench_sweep.py [--cases 8] [--tokens 15].
"""

from __future__ import annotations

import argparse
import time

import torch
from nnsight import TransformersModel
from tokenizers import Tokenizer, models
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from nnheads.architectures import ARCHITECTURES
from nnheads.heads import read_z, split_heads
from nnheads.patching.patch import TOKENS_PER_FORWARD, one_at_a_time
from nnheads.patching.sweep import sweep


def build(layers: int, heads: int, width: int):
    torch.manual_seed(0)
    config = AutoConfig.for_model("gpt2", n_layer=layers, n_head=heads, n_embd=width, vocab_size=50257)
    module = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")), pad_token="a"
    )
    return TransformersModel(module, tokenizer=tokenizer, rename=ARCHITECTURES["gpt2"].rename()), module


def plain_hooks(module, base, donor, answers, layers, heads):
    """One forward per head with forward hooks, as a careful script would do it."""
    blocks, kept = module.transformer.h, {}
    handles = [
        block.attn.c_proj.register_forward_pre_hook(lambda _, a, n=n: kept.__setitem__(n, a[0].clone()))
        for n, block in enumerate(blocks)
    ]
    module(**donor, use_cache=False)
    for handle in handles:
        handle.remove()
    result = torch.empty(layers, heads, *answers.shape)
    for layer in range(layers):
        for head in range(heads):

            def swap(_, arguments, layer=layer, head=head):
                z = arguments[0].clone()
                split_heads(z, heads)[:, :, head] = split_heads(kept[layer], heads)[:, :, head]
                return (z, *arguments[1:])

            handle = blocks[layer].attn.c_proj.register_forward_pre_hook(swap)
            result[layer, head] = module(**base, use_cache=False).logits[:, -1].gather(-1, answers)
            handle.remove()
    return result


def one_trace_per_head(model, base, donor, answers, layers, heads):
    """One nnsight trace per head over the whole model."""
    from nnsight import save

    with model.trace(**donor, use_cache=False):
        kept = save([read_z(layer, heads).clone() for layer in model.layers])
    result = torch.empty(layers, heads, *answers.shape)
    for layer in range(layers):
        for head in range(heads):
            given = kept[layer]
            with model.trace(**base, use_cache=False):
                read_z(model.layers[layer], heads)[:, :, head] = given[:, :, head]
                logits = save(model.output.logits[:, -1].gather(-1, answers))
            result[layer, head] = logits
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=15)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--shared", type=int, default=9, help="tokens that clean and corrupted share at the start")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    model, module = build(given.layers, given.heads, given.width)
    ids = torch.randint(0, 50257, (2, given.cases, given.tokens))
    ids[1, :, : given.shared] = ids[0, :, : given.shared]
    base, donor = ({"input_ids": one, "attention_mask": torch.ones_like(one)} for one in ids)
    answers = torch.randint(0, 50257, (given.cases, 2))
    cells = one_at_a_time(given.tokens, given.heads, by_position=False)

    def ours(shared: int):
        layers = list(range(given.layers))
        rows = max(1, TOKENS_PER_FORWARD // given.tokens)
        return sweep(model, base, donor, answers, cells, layers, "z", given.heads, False, rows, shared=shared)[0]

    ways = {
        "sweep": lambda: ours(given.shared),
        "sweep, no shared prefix used": lambda: ours(0),
        "one trace per head": lambda: one_trace_per_head(model, base, donor, answers, given.layers, given.heads),
        "one forward per head, plain hooks": lambda: plain_hooks(
            module, base, donor, answers, given.layers, given.heads
        ),
    }  # fmt: skip
    times: dict[str, list[float]] = {name: [] for name in ways}
    expected = None
    with torch.no_grad():
        for _ in range(given.rounds):
            for name, way in ways.items():
                start = time.perf_counter()
                result = way()
                times[name].append(time.perf_counter() - start)
                expected = result if expected is None else expected
                torch.testing.assert_close(result.reshape(expected.shape), expected, atol=1e-4, rtol=0)
    best = min(times["sweep"])
    print(
        f"{given.layers} x {given.heads} heads, {given.cases} cases x {given.tokens} tokens, "
        f"{given.shared} of them shared; same numbers to 1e-4"
    )
    for name, taken in times.items():
        print(f"  {name:<34} {min(taken):7.2f} s   {min(taken) / best:5.1f} x the sweep")


if __name__ == "__main__":
    main()

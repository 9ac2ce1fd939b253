"""Scoring every head by where it looks: the measuring trace against whole eager patterns, one run,
same inputs.

Prints the time of each way over that of a plain forward without patterns (sdpa), after checking
that the scores agree, and the peak memory of each. Where TransformerLens is installed (make
bench-others), its head detector
reads the same text in turns with ours. Run: python benchmarks/bench_reading.py [--tokens 2048]
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import threading
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import torch
from nnsight import TransformersModel
from other_tools import (
    MISSING,
    Job,
    Taken,
    add_tools,
    compare,
    interpreter,
    started,
    timed,
    turn,
    versions,
    words,
)
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from nnheads.models.families import FAMILIES
from nnheads.prompts.repeated import KINDS, repeated
from nnheads.spans.measure import measure
from nnheads.spans.pattern_match import PATTERNS, match_text


def build(attention: str, given):
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "gpt2",
        n_layer=given.layers,
        n_head=given.heads,
        n_embd=given.width,
        vocab_size=given.vocabulary,
        n_positions=1 << 14,
        bos_token_id=None,
        eos_token_id=None,
    )
    module = (
        AutoModelForCausalLM.from_config(config, attn_implementation=attention)
        .eval()
        .requires_grad_(False)
    )
    return (
        TransformersModel(
            module, tokenizer=words(given.vocabulary), rename=FAMILIES["gpt2"].rename()
        ),
        module,
    )


def prompts_of(tokenizer, tokens: int):
    return repeated(tokenizer, 1, length=tokens // 2)


def plain(given, prompts):
    _, module = build("sdpa", given)
    ids = torch.from_numpy(prompts["token"].values).long()
    return lambda: module(ids, use_cache=False, logits_to_keep=1).logits


def ours(given, prompts, hit=False):
    model, _ = build("sdpa", given)
    return lambda: measure(model, prompts, kinds=list(KINDS), hit=hit)["mass"].values[0]


def eager(given, prompts):
    """What everybody does: keep all patterns, then take the mean over each kind's cells."""
    _, module = build("eager", given)
    ids = torch.from_numpy(prompts["token"].values).long()

    def score():
        patterns = module(ids, use_cache=False, logits_to_keep=1, output_attentions=True).attentions
        out = np.empty((given.layers, given.heads, len(KINDS)), np.float32)
        for number, kind in enumerate(KINDS):
            spans = prompts.isel(span=prompts["kind"].values == kind)
            query, key = (
                torch.from_numpy(spans[name].values[0]).long() for name in ("query", "key_start")
            )
            for layer, pattern in enumerate(patterns):
                out[layer, :, number] = pattern[0][:, query, key].mean(-1)
        return out

    return score


def matching(given, prompts):
    """Our match of three types with a text, a forward each."""
    model, _ = build("sdpa", given)
    text = " ".join(map(str, prompts["token"].values[0]))
    return lambda: np.stack([match_text(model, text, pattern).values for pattern in PATTERNS])


WAYS = {
    "plain forward": plain,
    "nnheads, five types": ours,
    "the same with strongest keys": partial(ours, hit=True),
    "eager with patterns": eager,
    "nnheads, match of three types": matching,
}
SQUARE = (
    "eager with patterns",
    "nnheads, match of three types",
)  # they hold matrices of tokens x tokens
DETECTORS = {  # the same three scores; in the second way its user asks for the patterns once
    "TransformerLens, three types": "detect",
    "the same from one run's patterns": "detect_shared",
}


def peak(name: str, given, queue) -> None:
    """Most memory beyond the loaded model and prompts while one way runs, sampled from a thread."""
    model, _ = build("sdpa", given)
    way = WAYS[name](given, prompts_of(model.tokenizer, given.tokens))
    process, samples, done = psutil.Process(), [], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            samples.append(process.memory_info().rss)

    with torch.no_grad():
        before = process.memory_info().rss
        thread = threading.Thread(target=watch)
        thread.start()
        way()
        done.set()
        thread.join()
    queue.put((max(samples) - before) / 2**20)


def memory(given, name: str) -> float:
    """MiB beyond the loaded model, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=peak, args=(name, given, queue))
    process.start()
    taken = queue.get(timeout=600)
    process.join()
    return taken


def detectors(given, folder: Path, prompts) -> list[Job]:
    """TransformerLens on the same weights and tokens."""
    _, module = build("sdpa", given)
    module.save_pretrained(folder / "model")
    words(given.vocabulary).save_pretrained(folder / "model")
    np.savez(folder / "inputs.npz", token=prompts["token"].values)
    python = interpreter("transformer-lens", given)
    return [Job(label, python, "run_transformer_lens", way) for label, way in DETECTORS.items()]


def compete(given, folder: Path) -> None:
    """Time all ways in turns, check that they agree, print the table."""
    prompts = prompts_of(words(given.vocabulary), given.tokens)
    ways = {name: way(given, prompts) for name, way in WAYS.items()}
    times: dict[str, list[float]] = {}
    with started(detectors(given, folder, prompts), folder, given) as others, torch.no_grad():
        taken = {other.label: Taken() for other in others if other.process is not None}
        for _ in range(given.rounds):
            scores = timed(ways, times)
            for other in others:
                if other.label in taken:
                    turn(other, taken[other.label])
    np.testing.assert_allclose(
        scores["nnheads, five types"], scores["eager with patterns"], atol=1e-5
    )
    compare(others, taken, scores["nnheads, match of three types"])
    base = min(times["plain forward"])
    print(
        f"{given.layers} x {given.heads} heads, {given.tokens} tokens, scores agree to 1e-5, other"
        " tools' to 1e-4"
    )
    for name, seconds in times.items():
        print(f"  {name:<32} {min(seconds):7.2f} s   {min(seconds) / base:5.2f} x a plain forward")
    for other in others:
        if other.label not in taken:
            print(f"  {other.label:<32} {MISSING}")
            continue
        best, mib = min(taken[other.label].seconds), taken[other.label].mib
        print(
            f"  {other.label:<32} {best:7.2f} s   {best / base:5.2f} x a plain forward,"
            f" {mib:.0f} MiB with its model{versions(other)}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (
        ("tokens", 2048),
        ("layers", 12),
        ("heads", 12),
        ("width", 768),
        ("vocabulary", 5000),
        ("rounds", 3),
        ("threads", 0),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--memory", type=int, nargs="*", default=[512, 1024, 2048, 4096, 8192])
    add_tools(parser)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        compete(given, Path(folder))
    given.layers = 2  # memory is per layer: nothing is kept from one to the next
    for tokens in given.memory:
        given.tokens = tokens
        row = {name: memory(given, name) for name in WAYS if name not in SQUARE or tokens <= 2048}
        print(
            f"  {tokens:>5} tokens, MiB beyond the model: "
            + ", ".join(f"{name} {value:.0f}" for name, value in row.items())
        )


if __name__ == "__main__":
    main()

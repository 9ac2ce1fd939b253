"""Patching every head of a model, in five ways: nnheads, one nnsight trace per head, plain hooks,
TransformerLens and pyvene. And the time that a machine needs for the multiplications alone that an
exact answer takes.

Every way runs in a process of its own on the same random weights and prompts, round after round in
turns; what they return has to agree before a second is printed. The ratios say how much slower a
way is than nnheads in the same run.
Run: make bench, or make bench-others for the other tools, or
    python benchmarks/bench_sweep.py [--full] [--only 8x15] [--transformer-lens PYTHON] [--pyvene
    PYTHON]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from other_tools import (
    MISSING,
    Job,
    add_tools,
    compare,
    interleave,
    interpreter,
    started,
    versions,
    words,
)
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

SLOW_TOKENS = (
    200  # prompts with more tokens in all: a round of the slow ways takes minutes, so they get one
)


@dataclass(frozen=True)
class Setting:
    """Prompts of one size: pairs, tokens of each, and how many of those both prompts of a pair
    start with.
    """

    model_type: str
    cases: int
    tokens: int
    shared: int
    full: bool = False

    @property
    def name(self) -> str:
        return f"{self.model_type}-{self.cases}x{self.tokens}-{self.shared}"


SETTINGS = (
    Setting("gpt2", 8, 15, 9),
    Setting("gpt2", 8, 15, 0),
    Setting("gpt2", 64, 15, 9),
    Setting("gpt2", 8, 64, 38),
    Setting("llama", 8, 15, 9),
    Setting("gpt2", 64, 64, 38, full=True),
)


def config_of(model_type: str, given):
    """GPT-2 small's shape, or a Llama of the same size whose query heads share key-value heads in
    groups.
    """
    special = {
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": 0,
        "vocab_size": given.vocabulary,
    }
    if model_type == "gpt2":
        return AutoConfig.for_model(
            "gpt2",
            n_layer=given.layers,
            n_head=given.heads,
            n_embd=given.width,
            n_positions=1024,
            **special,
        )
    return AutoConfig.for_model(
        "llama",
        num_hidden_layers=given.layers,
        hidden_size=given.width,
        intermediate_size=8 * given.width // 3,
        num_attention_heads=given.heads,
        num_key_value_heads=given.kv_heads,
        max_position_embeddings=1024,
        **special,
    )


def save_model(config, folder: Path) -> None:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).eval().save_pretrained(folder)
    words(config.vocab_size).save_pretrained(folder)


def save_inputs(setting: Setting, vocabulary: int, path: Path) -> None:
    """Random clean and corrupted prompts; answer and wrong answer."""
    generator = np.random.default_rng(0)
    ids = generator.integers(vocabulary, size=(2, setting.cases, setting.tokens))
    ids[1, :, : setting.shared] = ids[0, :, : setting.shared]
    answers = generator.integers(vocabulary, size=(2, setting.cases))
    np.savez(path, token=ids[0], corrupted=ids[1], answer=answers[0], wrong=answers[1])


def jobs(given) -> list[Job]:
    own = Path(sys.executable)
    return [
        Job("nnheads", own, "run_nnheads", "nnheads"),
        Job("one trace per head", own, "run_nnheads", "trace"),
        Job("one forward per head, plain hooks", own, "run_nnheads", "hooks"),
        Job(
            "TransformerLens",
            interpreter("transformer-lens", given),
            "run_transformer_lens",
            "sweep",
        ),
        Job("pyvene", interpreter("pyvene", given), "run_pyvene", "sweep"),
    ]


def least_operations(config, setting: Setting) -> int:
    """Floating-point operations (a multiplication and an addition are two) that no exact sweep can
    do without.

    Both runs once: the clean one only behind the shared prefix. Then for every head and case of
        layer l, at the tail
    positions behind the shared prefix: the head's slice of W_O and the MLP of layer l and all of
        layers l + 1 to L - 2.
    Of the last layer, in every run, keys and values, and the rest at the answer's position alone;
    and two columns of the unembedding. Norms, activations and softmax are not counted.
    """
    width, heads, layers = config.hidden_size, config.num_attention_heads, config.num_hidden_layers
    dim, kv = width // heads, getattr(config, "num_key_value_heads", heads)
    mlp = (
        2 * width * 4 * width
        if config.model_type == "gpt2"
        else 3 * width * config.intermediate_size
    )
    keys_values, query, out = 2 * width * kv * dim, width * width, width * width

    def attention(first: int) -> int:
        """Products of queries from `first` on with the keys that they see, and of those patterns
        with values.
        """
        return sum(2 * heads * dim * (place + 1) for place in range(first, setting.tokens))

    def whole(first: int) -> int:
        """One layer, from position `first` on."""
        return (setting.tokens - first) * (keys_values + query + out + mlp) + attention(first)

    tail, last = setting.tokens - setting.shared, setting.tokens - 1
    answer, readout = query + out + mlp + attention(last), 2 * width
    end = tail * keys_values + answer
    total = (
        (layers - 1) * (whole(0) + whole(setting.shared))
        + setting.tokens * keys_values
        + answer
        + end
        + 2 * readout
    )
    for layer in range(layers - 1):
        entry = tail * (dim * width + mlp)
        total += heads * (entry + (layers - 2 - layer) * whole(setting.shared) + end + readout)
    total += heads * (dim * width + mlp + readout)
    return 2 * setting.cases * total


def multiplications_per_second(config, setting: Setting, threads: int, tries: int = 9) -> float:
    """The best floating-point rate of any float32 product that the sweep consists of, in operations
    per second.
    """
    width = config.hidden_size
    inner = 4 * width if config.model_type == "gpt2" else config.intermediate_size
    rows = config.num_attention_heads * setting.cases * (setting.tokens - setting.shared)
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    best = 0.0
    for first, second in ((width, width), (width, inner), (inner, width)):
        left, right, out = (
            torch.randn(rows, first),
            torch.randn(first, second),
            torch.empty(rows, second),
        )
        for _ in range(tries):
            start = time.perf_counter()
            torch.mm(left, right, out=out)
            best = max(best, 2 * rows * first * second / (time.perf_counter() - start))
    torch.set_num_threads(before)
    return best


def run(setting: Setting, given, folder: Path) -> None:
    """One table."""
    config = config_of(setting.model_type, given)
    save_inputs(setting, config.vocab_size, folder / "inputs.npz")
    slow = given.rounds if setting.cases * setting.tokens <= SLOW_TOKENS else 1
    rates = [multiplications_per_second(config, setting, given.threads)]
    with started(jobs(given), folder, given) as ways:
        rounds = {way.label: given.rounds if way.label == "nnheads" else slow for way in ways}
        taken = interleave(ways, rounds)
    rates.append(multiplications_per_second(config, setting, given.threads))
    expected = taken["one forward per head, plain hooks"].values
    spread = float(np.ptp(expected, axis=(1, 2)).max())
    if spread < 1e-2:
        raise SystemExit(
            f"no head moves these answers by more than {spread:.2g}: agreement would say nothing"
        )
    off = compare(ways, taken, expected)
    best = min(taken["nnheads"].seconds)
    print(
        f"\n{setting.model_type}, {given.layers} layers x {given.heads} heads, width {given.width}:"
        f" {setting.cases} cases x {setting.tokens} tokens, {setting.shared} of them shared;"
        f" all within {off:.1g}, heads move answers by up to {spread:.2g}"
    )
    for way in ways:
        if way.label not in taken:
            print(f"  {way.label:<34} {MISSING}")
            continue
        seconds, mib = taken[way.label].seconds, taken[way.label].mib
        print(
            f"  {way.label:<34} {min(seconds):8.2f} s {min(seconds) / best:7.1f} x   {mib:6.0f} MiB"
            f" at most   best of {len(seconds)}{versions(way)}"
        )
    operations, rate = least_operations(config, setting), max(rates)
    print(
        f"  {'the multiplications alone':<34} {operations / rate:8.2f} s"
        f" {operations / rate / best:7.2f} x   {operations / 1e9:.1f} GFLOP at {rate / 1e9:.0f}"
        f" GFLOP/s, measured here; nnheads takes {best * rate / operations:.1f} times that"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = {
        "layers": 12,
        "heads": 12,
        "kv-heads": 4,
        "width": 768,
        "vocabulary": 50257,
        "rounds": 3,
    }
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument(
        "--threads", type=int, default=0, help="threads of every process; 0 is torch's own choice"
    )
    parser.add_argument(
        "--full", action="store_true", help="also the largest setting: hours for the slow ways"
    )
    parser.add_argument(
        "--only",
        nargs="*",
        metavar="WORD",
        help="settings with this in their name, such as 8x15 or llama",
    )
    add_tools(parser)
    given = parser.parse_args()
    chosen = [
        one
        for one in SETTINGS
        if (
            any(word in one.name for word in given.only)
            if given.only
            else given.full or not one.full
        )
    ]
    if not chosen:
        raise SystemExit(
            "--only: no such setting; there are"
            f" {', '.join(dict.fromkeys(one.name for one in SETTINGS))}"
        )
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as temporary:
        for model_type in dict.fromkeys(one.model_type for one in chosen):
            folder = Path(temporary) / model_type
            save_model(config_of(model_type, given), folder / "model")
            for setting in chosen:
                if setting.model_type == model_type:
                    run(setting, given, folder)


if __name__ == "__main__":
    main()

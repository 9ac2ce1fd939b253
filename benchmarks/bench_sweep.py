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
from pathlib import Path

import numpy as np
from other_tools import (
    MISSING,
    Job,
    Taken,
    Way,
    add_tools,
    compare,
    interleave,
    interpreter,
    started,
    versions,
)
from sweep_floor import least_operations, multiplications_per_second
from sweep_settings import SETTINGS, Setting, config_of, save_inputs, save_model
from transformers.utils.logging import disable_progress_bar

# Prompts with more tokens in all: a round of the slow ways takes minutes, so they get one.
SLOW_TOKENS = 200


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
    print(
        f"\n{setting.model_type}, {given.layers} layers x {given.heads} heads, width {given.width}:"
        f" {setting.cases} cases x {setting.tokens} tokens, {setting.shared} of them shared;"
        f" all within {off:.1g}, heads move answers by up to {spread:.2g}"
    )
    best = min(taken["nnheads"].seconds)
    print_ways(ways, taken, best)
    print_floor(least_operations(config, setting), max(rates), best)


def print_ways(ways: list[Way], taken: dict[str, Taken], best: float) -> None:
    """A line for each way; best: the seconds of nnheads."""
    for way in ways:
        if way.label not in taken:
            print(f"  {way.label:<34} {MISSING}")
            continue
        seconds, mib = taken[way.label].seconds, taken[way.label].mib
        print(
            f"  {way.label:<34} {min(seconds):8.2f} s {min(seconds) / best:7.1f} x   {mib:6.0f} MiB"
            f" at most   best of {len(seconds)}{versions(way)}"
        )


def print_floor(operations: int, rate: float, best: float) -> None:
    """A line for the multiplications alone; rate: operations per second of this machine."""
    print(
        f"  {'the multiplications alone':<34} {operations / rate:8.2f} s"
        f" {operations / rate / best:7.2f} x   {operations / 1e9:.1f} GFLOP at {rate / 1e9:.0f}"
        f" GFLOP/s, measured here; nnheads takes {best * rate / operations:.1f} times that"
    )


def options() -> argparse.Namespace:
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
    return parser.parse_args()


def chosen_settings(given: argparse.Namespace) -> list[Setting]:
    """The settings that the command line names."""
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
    return chosen


def main() -> None:
    given = options()
    chosen = chosen_settings(given)
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

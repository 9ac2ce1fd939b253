"""Distributed alignment search (DAS) in three ways: nnheads, plain hooks, and pyvene. Which finds
more, in how long?

On the shipped model, a running parity and the name of the indirect object: every way trains a
rotation of the same rank at the same place from the same seeds, for as many steps with as many
pairs at the same learning rate, and is tested on the same pairs, which it has not seen. nnheads
steps along the orthonormal matrices, twice as far: of a step of a parametrisation's free weights,
    as the others take, more is left after Adam than of its projection.
Run: make bench, or python benchmarks/bench_alignment.py [--pyvene PYTHON]
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from other_tools import MISSING, Job, add_tools, interleave, interpreter, started, versions
from transformers import AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from nnheads.interventions.causal_model import draw_counterfactuals
from nnheads.interventions.tasks import TASKS
from nnheads.models.shipped import FOLDER as PATH

APART = 1_000_000  # added to the seed of what is tested on


@dataclass(frozen=True)
class Setting:
    """A variable of a causal model that ships, and where it is looked for: behind this layer, at
    the last token.
    """

    task: str
    variable: str
    layer: int
    rank: int


SETTINGS = (Setting("parity", "state", 1, 1), Setting("ioi", "answer", 3, 16))


def save_inputs(setting: Setting, given, path: Path) -> None:
    """Pairs to train and to test on, as token ids of one length; and settings of the training."""
    task, tokenizer, arrays = TASKS[setting.task], AutoTokenizer.from_pretrained(PATH), {}
    seen: set[tuple] = set()
    length = 0
    for kind, count, seed in (("", given.pairs, 0), ("test_", given.tested, APART)):
        drawn = task.draw(tokenizer, count, seed)
        texts = drawn.texts()
        length = length or Counter(map(len, texts)).most_common(1)[0][0]
        drawn = drawn.rows(
            [
                number
                for number, text in enumerate(texts)
                if text not in seen and len(text) == length
            ]
        )
        seen |= set(texts)
        pairs = drawn.pairs(
            draw_counterfactuals(task.model, drawn.inputs, setting.variable, count, seed=seed)
        )
        for name, prompts in (("token", pairs.base), ("source", pairs.sources[0])):
            arrays[f"{kind}{name}"] = prompts["token"].values[:, -length:]
        arrays[f"{kind}answer"] = pairs.answer.numpy()
    settings = {name: getattr(given, name) for name in ("steps", "batch", "rate", "seeds")}
    settings |= {"layer": setting.layer, "rank": setting.rank}
    np.savez(path, **arrays, **{name: np.asarray(value) for name, value in settings.items()})


def run(setting: Setting, given, folder: Path) -> None:
    """One table."""
    own = Path(sys.executable)
    jobs = [
        Job("nnheads", own, "run_nnheads", "align"),
        Job("plain hooks", own, "run_nnheads", "align_hooks"),
        Job("pyvene", interpreter("pyvene", given), "run_pyvene", "align"),
    ]
    save_inputs(setting, given, folder / "inputs.npz")
    with started(jobs, folder, given) as ways:
        taken = interleave(ways, {way.label: given.rounds for way in ways})
    print(
        f"{setting.variable} of {setting.task}, layer {setting.layer}, rank {setting.rank}:"
        f" {given.steps} steps of {given.batch} pairs at rate {given.rate:g}, {given.tested} test"
        " pairs"
    )
    best = min(taken["nnheads"].seconds) / len(given.seeds)
    for way in ways:
        if way.label not in taken:
            print(f"  {way.label:<14} {MISSING}")
            continue
        found, seconds = taken[way.label].values, min(taken[way.label].seconds) / len(given.seeds)
        each = " ".join(f"{value:.3f}" for value in found)
        print(
            f"  {way.label:<14} {seconds:6.2f} s a training {seconds / best:6.2f} x   interchange"
            f" accuracy {found.mean():.3f} (seeds {each}){versions(way)}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, value in {
        "steps": 100,
        "batch": 32,
        "pairs": 512,
        "tested": 256,
        "rounds": 3,
        "threads": 0,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--rate", type=float, default=0.01, help="learning rate")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    add_tools(parser)
    given = parser.parse_args()
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as temporary:
        shutil.copytree(PATH, Path(temporary) / "model")
        for setting in SETTINGS:
            run(setting, given, Path(temporary))


if __name__ == "__main__":
    main()

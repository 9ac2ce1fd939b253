"""The far side of a benchmark: a process that loads one tool and runs one timed round for every
line it reads.

    python run_TOOL.py WAY MODEL INPUTS VALUES THREADS
MODEL is a folder of save_pretrained, INPUTS an .npz file, VALUES the .npy file that each round
writes. The process
answers on stdout in lines of JSON: once when it is ready, then after every round. It imports torch
    and numpy alone, so
that it works in the environment of any tool.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch


def serve(ways: dict, package: str) -> None:
    """Prepare one of `ways` (a function of the model's folder and the inputs that returns a round
    to be timed), then run a round per line until stdin ends. A round returns an array or a
    tensor."""
    way, model, inputs, values, threads = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a tool prints is no answer
    if int(threads):
        torch.set_num_threads(int(threads))
    torch.set_grad_enabled(False)
    with np.load(inputs) as arrays:
        turn = ways[way](model, {name: torch.from_numpy(arrays[name]) for name in arrays.files})
    packages = (package, "transformers", "torch")
    print(json.dumps({"packages": {name: version(name) for name in packages}}), file=answers)
    for _ in sys.stdin:
        forget_peak()
        start = time.perf_counter()
        result = turn()
        seconds = time.perf_counter() - start
        np.save(values, np.asarray(result))
        print(json.dumps({"seconds": seconds, "peak_mib": peak()}), file=answers)


def accuracy(
    given: dict[str, torch.Tensor],
    predicted: Callable[[torch.Tensor, str], torch.Tensor],
    size: int,
) -> float:
    """Return how often `predicted(rows, "test_")` puts the answer first, over all tested rows."""
    tested = torch.arange(len(given["test_answer"])).split(size)
    right = [
        predicted(rows, "test_").argmax(-1) == given["test_answer"][rows].long() for rows in tested
    ]
    return float(torch.cat(right).float().mean())


def forget_peak() -> None:
    """Let the peak start from what is held now, not from what loading took. Only Linux can."""
    marks = Path("/proc/self/clear_refs")
    if marks.exists():
        marks.write_text("5")


def peak() -> float:
    """Most memory that this process held, in MiB. Linux hands getrusage's number down from the
    process that started this one, so there the process's own mark is read instead."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1]) / 2**10
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


def runs(given: dict[str, torch.Tensor]) -> list[dict]:
    """The corrupted and the clean run's arguments, for logits of the last position alone.

    That position is a tensor because a slice of the hidden states is not contiguous: where weights
    need no gradient, torch then reads the unembedding once per case, which is several times slower.
    """
    last = torch.tensor([given["token"].shape[1] - 1])
    return [
        {"input_ids": given[name].long(), "logits_to_keep": last} for name in ("corrupted", "token")
    ]


def difference(logits: torch.Tensor, pair: torch.Tensor) -> torch.Tensor:
    """logit(answer) - logit(wrong) [case] at the last position of `logits` [case, position,
    vocabulary].
    """
    own = logits[:, -1].gather(-1, pair)
    return own[:, 0] - own[:, 1]


def pairs(given: dict[str, torch.Tensor]) -> torch.Tensor:
    """Answer and wrong answer of every case [case, 2]."""
    return torch.stack([given["answer"], given["wrong"]], 1).long()


def batches(given: dict[str, torch.Tensor], seed: int) -> list[torch.Tensor]:
    """Rows of every step of a training: all pairs once before any comes again, but for those that
    fill no batch.
    """
    size, steps = int(given["batch"]), int(given["steps"])
    generator, found = torch.Generator().manual_seed(seed), []
    while len(found) < steps:
        found += torch.randperm(len(given["answer"]), generator=generator).split(size)
        found = [rows for rows in found if len(rows) == size]
    return found[:steps]

"""Other tools beside ours: each in a process of its own, with its own environment, on the same
weights and inputs.

A tool may need other versions of the libraries than we do, so it is started by its own interpreter:
the one that `--transformer-lens` or `--pyvene` names, or the one in .venv-transformer-lens or
.venv-pyvene (`make bench-others`). The processes load once and then take turns, a round each, so
that whatever else the machine does hits all of them alike. The far side is `others/serve.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

HERE = Path(__file__).parent
TOOLS = {"transformer-lens": "TransformerLens", "pyvene": "pyvene"}
MISSING = "not installed: make bench-others"


def timed(ways: dict[str, Callable[[], Any]], times: dict[str, list[float]]) -> dict[str, Any]:
    """Run each way once, note its seconds in `times`, and return what each gave."""
    results = {}
    for name, way in ways.items():
        start = time.perf_counter()
        results[name] = way()
        times.setdefault(name, []).append(time.perf_counter() - start)
    return results


@dataclass(frozen=True)
class Job:
    """What to start: a way of a script in others/, by an interpreter that has its tool (None where
    there is none).
    """

    label: str
    python: Path | None
    script: str
    way: str
    tolerance: float = 1e-4


@dataclass(frozen=True)
class Way:
    """One way of doing the job: a process that waits for its turn.

    `process` is None where its tool is missing.
    """

    label: str
    tolerance: float = 1e-4
    process: subprocess.Popen | None = None
    values: Path = Path()
    log: Path = Path()
    packages: dict[str, str] = field(default_factory=dict)


@dataclass
class Taken:
    """What the rounds of one way took."""

    seconds: list[float] = field(default_factory=list)
    mib: float = 0.0
    values: np.ndarray | None = None


def add_tools(parser: argparse.ArgumentParser) -> None:
    for tool, name in TOOLS.items():
        parser.add_argument(
            f"--{tool}", type=python, metavar="PYTHON", help=f"interpreter that has {name}"
        )


def python(path: str) -> Path:
    """An interpreter named on the command line. Links are kept: an environment's Python is one."""
    if not Path(path).is_file():
        raise argparse.ArgumentTypeError(
            f"{path} is no file; name the Python of an environment that has the tool"
        )
    return Path(path).absolute()


def interpreter(tool: str, given: argparse.Namespace) -> Path | None:
    """The Python that has this tool, or None."""
    asked = getattr(given, tool.replace("-", "_"))
    found = HERE.parent / f".venv-{tool}" / "bin" / "python"
    return asked or (found if found.is_file() else None)


def words(vocabulary: int) -> PreTrainedTokenizerFast:
    """A tokenizer that reads and writes token ids as numbers, but for token 0, which is padding: a
    special token is found inside words too, and would cut every number with its digit."""
    table = {"padding": 0, **{str(token): token for token in range(1, vocabulary)}}
    tokenizer = Tokenizer(models.WordLevel(table, unk_token="padding"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="padding")


def start(job: Job, folder: Path, given) -> Way:
    """Start a way on `folder`, which holds model/ and inputs.npz, and wait until it has loaded."""
    if job.python is None:
        return Way(job.label)
    values, log = (folder / f"{job.script}-{job.way}.{ending}" for ending in ("npy", "log"))
    command = [
        job.python,
        HERE / "others" / f"{job.script}.py",
        job.way,
        folder / "model",
        folder / "inputs.npz",
        values,
    ]
    with log.open("w") as errors:
        process = subprocess.Popen(
            [*map(str, command), str(given.threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"},
        )
    return Way(job.label, job.tolerance, process, values, log)


@contextlib.contextmanager
def started(jobs: list[Job], folder: Path, given) -> Iterator[list[Way]]:
    """All ways, loaded and waiting; their processes end with the block, whatever happens."""
    ways: list[Way] = []
    try:
        for job in jobs:
            show(f"loading {job.label}")
            ways.append(start(job, folder, given))
            if ways[-1].process is not None:
                ways[-1].packages.update(answer(ways[-1])["packages"])
        yield ways
    finally:
        show("")
        for way in ways:
            if way.process is not None:
                stop(way.process)


def stop(process: subprocess.Popen) -> None:
    process.stdin.close()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


def answer(way: Way) -> dict:
    """The next answer of a way, or the end of its log if it died.

    Tools may greet on stdout while they are imported.
    """
    line = next((line for line in way.process.stdout if line.startswith("{")), "")
    if not line:
        last = "\n".join(way.log.read_text().strip().splitlines()[-12:])
        raise SystemExit(f"{way.label} stopped with exit code {way.process.wait()}:\n{last}")
    return json.loads(line)


def turn(way: Way, taken: Taken) -> None:
    """Let a way run one round while all others wait."""
    print("go", file=way.process.stdin, flush=True)
    said = answer(way)
    taken.seconds.append(said["seconds"])
    taken.mib = max(taken.mib, said["peak_mib"])
    taken.values = np.load(way.values)


def interleave(ways: list[Way], rounds: dict[str, int]) -> dict[str, Taken]:
    """Round by round, every way that is installed and has rounds left; label -> what it took."""
    taken = {way.label: Taken() for way in ways if way.process is not None}
    for number in range(max(rounds[label] for label in taken)):
        for way in ways:
            if way.process is not None and number < rounds[way.label]:
                show(f"round {number + 1}: {way.label}")
                turn(way, taken[way.label])
    show("")
    return taken


def versions(way: Way) -> str:
    """What another tool ran with; of ours the constraints tell."""
    known = {} if "nnheads" in way.packages else way.packages
    return "".join(f", {name} {number}" for name, number in known.items())


def show(what: str) -> None:
    """One changing line for who waits at a terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{what}", end="", file=sys.stderr, flush=True)


def compare(ways: list[Way], taken: dict[str, Taken], expected: np.ndarray) -> float:
    """The largest distance of any way's numbers from `expected`. A way that is further off than its
    tolerance ends
    the benchmark: the seconds of a wrong answer mean nothing."""
    most = 0.0
    for way in ways:
        if way.label not in taken:
            continue
        values = taken[way.label].values
        if values.shape != expected.shape:
            raise SystemExit(
                f"{way.label} returned numbers of shape {values.shape}; expected {expected.shape}"
            )
        off = float(np.abs(values - expected).max())
        if not off <= way.tolerance:
            raise SystemExit(
                f"{way.label} differs by {off:.2g} from the reference; at most {way.tolerance:g} is"
                " right"
            )
        most = max(most, off)
    return most

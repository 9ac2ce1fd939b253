"""What each command costs on a real language model: `make cost` measures and writes docs/cost.md.

    python docs/cost.py [--truthfulqa FILE] [--longest SECONDS] [COMMAND...]

Each command runs once in a process of its own, with its defaults and with --quick. Seconds are wall
time, model loading and pictures included; memory is the most that the process held (resident set).
A command that takes longer than --longest is ended, and the table says so.
TruthfulQA.csv is not part of the project; rows that need it keep what they say without.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).parent / "cost.md"
MODEL = "smollm2"
LONGEST = 600  # seconds after which a command is ended
DATA = "TruthfulQA.csv"
CLI = Path(__file__).parents[1] / "cli.py"

# what is run, with MODEL where the model's name belongs
COMMANDS = (
    "inspect Paris MODEL",
    "patch MODEL",
    "match one,two,one MODEL",
    "detect induction MODEL",
    "detect retrieval MODEL",
    "detect all MODEL",
    "ioi MODEL",
    "ioi MODEL --roles",
    "path MODEL",
    "attribute MODEL",
    "knockout MODEL",
    "circuit MODEL",
    "writes MODEL",
    "function-vectors MODEL",
    "das MODEL",
    "steer MODEL --toward glad.txt --away sad.txt --prompt Today",
    "drift MODEL",
    "detect truthfulness MODEL --data TruthfulQA.csv",
    "iti fit MODEL --data TruthfulQA.csv",
    "iti evaluate MODEL --data TruthfulQA.csv",
    "verify MODEL",
)
GLAD = "This is wonderful|I love it here|What a happy day|They sang with joy|She smiled at me"
SAD = "This is terrible|I hate it here|What a sad day|They wept with grief|She frowned at me"
FILES = {"glad.txt": GLAD, "sad.txt": SAD}
WITHOUT_QUICK = ("inspect", "match", "patch", "verify")  # as quick at their defaults
OPENING = """\
# What a command costs

Measured on SmolLM2-135M-Instruct (30 layers of 9 heads, float32) on two processor cores, each
command once in a process of its own. Seconds are wall time with loading and pictures; memory is the
most that the process held. A row with > was ended after so many seconds, and its memory is what it
held so far. `make cost` measures again. What takes more than a minute says
while it runs how long it will take; `ioi`, `knockout` and `iti evaluate` say it before with
`--plan`; `--quick` gives a first answer. A command that is not in the table was not measured.
Rows with * are of another machine of two cores, about half as fast: there `detect all` took 146
seconds instead of 72, and with `--quick` 66 instead of 27.

| command | seconds | GiB | `--quick`: seconds | GiB |
|---|--:|--:|--:|--:|"""


class Cost(NamedTuple):
    """Wall time in seconds and the largest resident set in bytes; ended: not by itself."""

    seconds: float
    peak: int
    ended: bool = False


def measured(line: str, truthfulqa: str, longest: float = LONGEST) -> Cost:
    """Return what a command costs in a process of its own.

    Raises:
        SystemExit: the command failed; its last words are printed.
    """
    words = [truthfulqa if word == DATA else word for word in line.replace("MODEL", MODEL).split()]
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as said:
        for name, text in FILES.items():
            Path(folder, name).write_text(text.replace("|", "\n"))
        started = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, CLI, *words, "--quiet", "--output", folder],
            cwd=folder,
            stdout=said,
            stderr=said,
        )
        alarm = threading.Timer(longest, process.terminate)
        alarm.start()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        alarm.cancel()
        if status and seconds >= longest:
            return Cost(longest, usage.ru_maxrss * 1024, ended=True)
        if status:
            said.seek(0)
            raise SystemExit(f"nnheads {line} failed:\n{said.read().decode()[-2000:]}")
    return Cost(seconds, usage.ru_maxrss * 1024)


def row(line: str, truthfulqa: str, longest: float = LONGEST) -> str:
    """Measure a command with its defaults and with --quick, and return its row."""
    columns = cells(measured(line, truthfulqa, longest))
    if line.split()[0] in WITHOUT_QUICK:
        columns += ["", ""]
    else:
        columns += cells(measured(f"{line} --quick", truthfulqa, longest))
    return f"| {label(line)} | {' | '.join(columns)} |"


def cells(cost: Cost) -> list[str]:
    return [f"{'> ' if cost.ended else ''}{cost.seconds:,.0f}", f"{cost.peak / 2**30:.1f}"]


def label(line: str) -> str:
    """Return how a command is named in the table."""
    return f"`nnheads {line.replace('MODEL', MODEL)}`"


def written() -> dict[str, str]:
    """Return the rows that the page has already, by label."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""
    return {
        row[1]: row[0] for row in re.finditer(r"^\| (`nnheads [^`]+`) \|.*$", text, re.MULTILINE)
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--truthfulqa", help="TruthfulQA.csv", type=Path)
    parser.add_argument("--longest", help="seconds", type=float, default=LONGEST)
    parser.add_argument("commands", nargs="*", help="the first words of those to measure; all")
    options = parser.parse_args(arguments)
    rows = written()
    for line in COMMANDS:
        if options.commands and not any(line.startswith(one) for one in options.commands):
            continue
        if DATA in line and not options.truthfulqa:
            continue
        file = str(options.truthfulqa.resolve()) if DATA in line else ""
        rows[label(line)] = row(line, file, options.longest)
        print(rows[label(line)], flush=True)
        kept = [rows[label(one)] for one in COMMANDS if label(one) in rows]
        PAGE.write_text("\n".join([OPENING, *kept]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""What was sent to a server: a line for each job of a run, written before it is awaited.

A ledger belongs to a run. The model that a run works with holds it while the run lasts
(`place.Place`), so that the jobs of its traces are written there; another process that opens the
same folder goes on with the same jobs.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

LEDGER = "jobs.jsonl"
_WRITTEN: list[dict] = []  # by this process since its command began, to whichever ledger


@dataclass
class Ledger:
    """The jobs of a run: in a file if it has a folder, so that another process can go on. `run` is
    where the record of that run is."""

    folder: Path | None = None
    run: Path | None = None
    part: str = "run"
    number: int = 0
    lines: list[dict] = field(default_factory=list)

    def __post_init__(self) -> None:
        path = self.path
        if path is not None and path.is_file():
            for text in path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(
                    ValueError
                ):  # a line that was cut when its writer was killed
                    self.lines.append(json.loads(text))

    @property
    def path(self) -> Path | None:
        return None if self.folder is None else self.folder / LEDGER

    def key(self, digest: str) -> str:
        """Return the name of the next job: which of its part it is, and what it says."""
        self.number += 1
        return f"{self.part}#{self.number} {digest}"

    def sent(self, key: str) -> str | None:
        """Return the id under which a job was sent, if it was."""
        found = [line["job"] for line in self.lines if line.get("key") == key and "job" in line]
        return found[-1] if found else None

    def note(self, **line) -> None:
        """Write down what this process sent or received."""
        _WRITTEN.append(line)
        self.keep(line)

    def keep(self, line: dict) -> None:
        """Write a line, so that it is on the disk before anything else happens."""
        self.lines.append(line)
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n" + json.dumps(line) + "\n")  # the line before it may have been cut
                file.flush()
                os.fsync(file.fileno())

    @contextlib.contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Count the jobs of one part of a run by themselves, so that parts may finish in any order."""
        before = self.part, self.number
        self.part, self.number = part, 0
        try:
            yield
        finally:
            self.part, self.number = before

    @property
    def totals(self) -> dict[str, int]:
        """Jobs, and bytes sent and received, of all processes that worked on the run."""
        return totals(self.lines)


def totals(lines: list[dict]) -> dict[str, int]:
    """Count jobs, and bytes sent and received, in some lines of a ledger."""
    return {
        "jobs": sum("job" in line for line in lines),
        "bytes_up": sum(line.get("up", 0) for line in lines),
        "bytes_down": sum(line.get("down", 0) for line in lines),
    }


def start_counting() -> None:
    """Begin a command: nothing was sent yet."""
    _WRITTEN.clear()


def sent_now(job: str) -> bool:
    """Return whether this command sent a job, and not one before it."""
    return any(line.get("job") == job for line in _WRITTEN)


def counted() -> dict[str, int]:
    """Count jobs and bytes of this command."""
    return totals(_WRITTEN)

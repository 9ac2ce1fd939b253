"""What was sent to a server: a line for each job of a run, written before it is awaited.

    sent = []
    with counting(sent):    # a command
        run = Run(...)      # owns a ledger
        run.jobs_of(model)  # the model's jobs are written there
    totals(sent)            # what the command sent and received

A ledger belongs to a run. The model that a run works with holds it while the run lasts
(`place.Place`), so that the jobs of its traces are written there; another process that opens the
same folder goes on with the same jobs. A line that was cut when its writer was killed counts as
none.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LEDGER = "jobs.jsonl"
Line = dict[str, Any]
_COMMAND: ContextVar[list[Line] | None] = ContextVar("lines of the command that runs", default=None)


@dataclass
class Ledger:
    """The jobs of a run.

    folder: where they are written, so that another process can go on; None keeps them in memory.
    run: the folder that holds the run's record.
    part, number: which part of the run is worked on, and how many jobs it had so far.
    lines: all that was written, by whichever process. own: those of this object.
    begin: what is done before anything is written.
    """

    folder: Path | None = None
    run: Path | None = None
    part: str = "run"
    number: int = 0
    lines: list[Line] = field(default_factory=list)
    own: list[Line] = field(default_factory=list)
    begin: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        path = self.path
        if path is not None and path.is_file():
            for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
                # a line that was cut when its writer was killed
                with contextlib.suppress(ValueError, RecursionError):
                    line = json.loads(text)
                    self.lines += [line] if isinstance(line, dict) else []

    @property
    def path(self) -> Path | None:
        """The file of the ledger, if it has one."""
        return None if self.folder is None else self.folder / LEDGER

    def key(self, digest: str) -> str:
        """Return the name of the next job: which of its part it is, and what it says."""
        self.number += 1
        return f"{self.part}#{self.number} {digest}"

    def sent(self, key: str) -> str | None:
        """Return the id under which a job was sent, if it was."""
        found = [line["job"] for line in self.lines if line.get("key") == key and "job" in line]
        return found[-1] if found else None

    def sent_here(self, job: str) -> bool:
        """Return whether this object sent a job, and not another process before it."""
        return any(line.get("job") == job for line in self.own)

    def note(self, **line: Any) -> None:
        """Write down what was sent or received just now."""
        counted = _COMMAND.get()
        if counted is not None:
            counted.append(line)
        self._keep(line)

    def take_over(self, other: Ledger) -> None:
        """Write what another ledger, which has no folder, sent before this one was opened."""
        for line in other.own if other.folder is None else ():
            self._keep(line)

    def _keep(self, line: Line) -> None:
        """Write a line, so that it is on the disk before anything else happens."""
        self.lines.append(line)
        self.own.append(line)
        if self.path is not None:
            if self.begin is not None:
                self.begin()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n" + json.dumps(line) + "\n")  # the line before it may have been cut
                file.flush()
                os.fsync(file.fileno())

    @contextlib.contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Count the jobs of one part of a run apart, so that parts may finish in any order."""
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


def totals(lines: list[Line]) -> dict[str, int]:
    """Count jobs, and bytes sent and received, in some lines of a ledger."""
    return {
        "jobs": sum("job" in line for line in lines),
        "bytes_up": sum(line.get("up", 0) for line in lines),
        "bytes_down": sum(line.get("down", 0) for line in lines),
    }


@contextlib.contextmanager
def counting(lines: list[Line]) -> Iterator[None]:
    """Add to `lines` what is sent and received meanwhile, to whichever ledger it is written."""
    before = _COMMAND.set(lines)
    try:
        yield
    finally:
        _COMMAND.reset(before)

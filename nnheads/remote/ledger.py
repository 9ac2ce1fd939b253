"""What was sent to a server: a line for each job of a run, written before it is awaited."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

LEDGER = "jobs.jsonl"


@dataclass
class Book:
    """What a run has sent: in a file if it has a folder, so that another process can go on."""

    folder: Path | None = None
    run: Path | None = None
    waiting: bool = True
    part: str = "run"
    number: int = 0
    lines: list[dict] = field(default_factory=list)

    def __post_init__(self):
        path = self.path
        if path is not None and path.is_file():
            for text in path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError):  # a line that was cut when its writer was killed
                    self.lines.append(json.loads(text))

    @property
    def path(self) -> Path | None:
        return None if self.folder is None else self.folder / LEDGER

    def key(self, digest: str) -> str:
        """The name of the next job: which of its part it is, and what it says."""
        self.number += 1
        return f"{self.part}#{self.number} {digest}"

    def sent(self, key: str) -> str | None:
        """The id under which a job was sent, if it was."""
        found = [line["job"] for line in self.lines if line.get("key") == key and "job" in line]
        return found[-1] if found else None

    def note(self, **line) -> None:
        _Open.written.append(line)
        self.keep(line)

    def keep(self, line: dict) -> None:
        self.lines.append(line)
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n" + json.dumps(line) + "\n")  # the line before it may have been cut
                file.flush()
                os.fsync(file.fileno())

    @contextlib.contextmanager
    def of(self, part: str) -> Iterator[None]:
        """The jobs of one part of a run are counted by themselves, so that parts may finish in any order."""
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
    """Jobs, and bytes sent and received, in some lines of a ledger."""
    return {
        "jobs": sum("job" in line for line in lines),
        "bytes_up": sum(line.get("up", 0) for line in lines),
        "bytes_down": sum(line.get("down", 0) for line in lines),
    }


class _Open:
    book = Book()
    written: ClassVar[list[dict]] = []  # by this command, to whichever book


def book() -> Book:
    """Where jobs are written down now."""
    return _Open.book


def open_book(folder: Path | None = None, run: Path | None = None) -> Book:
    """From now on jobs belong to the run whose parts are in `folder`, as do those sent before any run was opened; None:
    to nothing that is kept. `run` is where the record of that run is."""
    before, _Open.book = _Open.book, Book(folder, run, waiting=_Open.book.waiting)
    for line in before.lines if before.folder is None else ():
        _Open.book.keep(line)
    return _Open.book


def start_counting() -> None:
    """A command begins: nothing was sent yet."""
    _Open.written.clear()
    _Open.book = Book()


def sent_now(job: str) -> bool:
    """Whether this command sent a job, and not one before it."""
    return any(line.get("job") == job for line in _Open.written)


def counted() -> dict[str, int]:
    """Jobs and bytes since then."""
    return totals(_Open.written)


def wait(on: bool) -> None:
    """Whether results are waited for. If not, they are taken where they are there, and `Pending` is raised else."""
    _Open.book.waiting = on


@contextlib.contextmanager
def not_waiting() -> Iterator[None]:
    """Meanwhile results are not waited for."""
    before = _Open.book.waiting
    _Open.book.waiting = False
    try:
        yield
    finally:
        _Open.book.waiting = before

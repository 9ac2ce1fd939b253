"""What `nnheads rerun` says of a result and its repetition."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from nnheads.recipes._terminal import say, shown

if TYPE_CHECKING:
    from nnheads.compare.repeat import Change

WORST = 12  # variables shown of a file; all are in rerun.json
NAMED = 6  # variables named in the last line
CODE = ("nnheads had", "commit of")  # how lines about our own code begin


@dataclass(frozen=True)
class Comparison:
    """One file and its repetition: each variable, and what differed when the two were made."""

    file: str
    changes: list[Change]
    circumstances: list[str]

    @property
    def moved(self) -> list[Change]:
        """Return the variables that are not exact."""
        return [change for change in self.changes if change.verdict != "exact"]


def report(file: Path, found: list[Comparison], output: Path | None, exact_prompts: bool) -> None:
    """Say each variable that is not exact, and why, and sum up in a last line.

    Raises:
        Exit: code 1, where a variable is different.
    """
    for one in found:
        say_changes(one)
    lines = list(dict.fromkeys(line for one in found for line in one.circumstances))
    say("what differed when they were made:" if lines else "nothing that is recorded differed")
    for line in lines:
        say(f"  {line}")
    if output is not None:
        say(shown(recorded(output, file, found)))
    every = [change for one in found for change in one.changes]
    different = sorted({change.name for change in every if not change.same})
    if different:
        say(verdict(different, lines, exact_prompts))
        raise typer.Exit(1)
    drifted = any(change.verdict == "drift" for change in every)
    say("the same but for rounding" if drifted else "the same to the last bit")


def say_changes(one: Comparison) -> None:
    """Say the variables of a file that are not exact, the worst first."""
    exact, count = len(one.changes) - len(one.moved), len(one.changes)
    say(f"{one.file}: {exact} of {count} variables are exact")
    for change in sorted(one.moved, key=by_size)[:WORST]:
        say(f"  {line_of(change)}")
    if len(one.moved) > WORST:
        say(f"  ... and {len(one.moved) - WORST} more")


def by_size(change: Change) -> tuple[bool, float]:
    """Return what changes are ordered by: different ones first, then by how far they moved."""
    known = change.relative == change.relative  # NaN has no order
    return change.same, -change.relative if known else 0


def recorded(output: Path, file: Path, found: list[Comparison]) -> Path:
    """Write every change to rerun.json."""
    from nnheads.runs import store

    record = {"of": str(file.name), "files": [dataclasses.asdict(one) for one in found]}
    text = json.dumps(record, indent=1) + "\n"
    return store.write(output / "rerun.json", lambda path: path.write_text(text))


def verdict(different: list[str], lines: list[str], exact_prompts: bool) -> str:
    """Return what a reader should make of a difference."""
    named = f"different: {', '.join(different[:NAMED])}"
    if len(different) > NAMED:
        named += f" and {len(different) - NAMED} more"
    causes = [line for line in lines if not line.startswith(CODE)]
    if causes:
        return f"{named}; the first reason to look at is {causes[0]}"
    if exact_prompts:
        return (
            f"{named}; its prompts one by one (scores.nc) are exact: heads are reduced from them in"
            " another way now, or the file was changed"
        )
    if lines:
        return (
            f"{named}; nothing else that is recorded changed: the code of nnheads did, or the file"
        )
    return (
        f"{named}; no reason is recorded: another device, more threads, or a change to the code or"
        " the file"
    )


def line_of(change: Change) -> str:
    """Return a variable that is not exact in one line."""
    if change.verdict == "missing":
        return f"{change.name}: not in the new result"
    if change.verdict == "new":
        return f"{change.name}: only in the new result"
    text = f"{change.name}: {change.verdict}; {change.cells} of {change.size} values"
    if change.largest != change.largest:
        return text if change.cells != change.size else f"{text} or its shape"
    text += f", by at most {change.largest:.3g} ({change.relative:.2g} of the largest)"
    if change.rank_correlation != change.rank_correlation:
        return text
    return f"{text}; rank correlation {change.rank_correlation:.4f}"

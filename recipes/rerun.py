"""Repeat a result from what it records about itself, and explain every difference."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from nnheads.recipes import _issued
from nnheads.recipes import _options as options

from nnheads.errors import BadInput, RunError

PROMPTS = "scores.nc"  # what was measured prompt by prompt, from which the other files are reduced
WORST = 12  # variables shown of a file; all are in rerun.json


def main(
    file: Annotated[Path, typer.Argument(help="A result: a .nc file, or the folder of a run.")],
    changed: Annotated[
        list[str] | None,
        typer.Argument(help="After --: options to repeat it with, as in -- --dtype bfloat16."),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Change, over a variable's largest value, that is drift; default: by dtype."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", file_okay=False, help="Keep the new results in this folder."
        ),
    ] = None,
    traceback: options.Traceback = False,
) -> None:
    """Repeat a result from what it records about itself, and explain every difference.

    The command that made it is issued again, into a folder of its own, and every variable is
    compared: exact (to the last bit), drift (as rounding makes it), or different. Then all that is
        recorded and has changed: weights, dtype,
    attention, tokenizer, prompts, options, versions. Exit code 1 if a variable is different. With
    --output also writes rerun.json.
    """
    if tolerance is not None and not 0 <= tolerance < float("inf"):
        raise BadInput(
            f"--tolerance {tolerance} is not possible; it must be a number that is at least 0"
        )
    words, files = made_by(file)
    more = list(changed or [])
    _issued.check_repeatable(file, words, more)
    for word in more:
        if word.split("=")[0] in (*_issued.REFUSED, *_issued.WITH_VALUE, *_issued.DROPPED):
            raise BadInput(
                f"{word.split('=')[0]} cannot follow --; it says where results go, or does more"
                " than compute"
            )
    with contextlib.ExitStack() as stack:
        place = output or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="nnheads-rerun-"))
        )
        if output is not None and output.is_dir() and any(output.iterdir()):
            raise BadInput(f"{output} is not empty; name a new folder with --output")
        options.say(f"repeating: {shlex.join([*words, *more])}")
        issue(words, more, place)
        found = compared(files, place, tolerance)
        report(file, found, output, prompts_exact(file, found, place, tolerance))


def made_by(file: Path) -> tuple[list[str], list[Path]]:
    """The words of the command that made a result, and the files that are compared."""
    from nnheads.runs import store

    if file.is_dir():
        words, _ = _issued.command_in(file)
        files = sorted(file.glob("*.nc"))
        if not files:
            raise BadInput(
                f"{file} holds no .nc file, so there is nothing to compare; was the run finished?"
            )
        return words, files
    if not file.exists():
        raise BadInput(f"no file {str(file)!r}; expected a result, or the folder of a run")
    return _issued.command_of_file(file, store.load(file).attrs), [file]


def issue(words: list[str], more: list[str], place: Path) -> None:
    """Run the command with its results in another folder; what it says is kept to itself."""
    from nnheads.recipes import command

    arguments = [*_issued.for_folder(words), *more]
    before, sys.argv = sys.argv, [*words, *more]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            command(arguments[0])(
                args=[*arguments[1:], "--output", str(place)],
                prog_name=f"nnheads {arguments[0]}",
                standalone_mode=False,
            )
    except RunError:
        if not finished(place):  # a claim that fails is a result too
            raise
    finally:
        sys.argv = before


def finished(place: Path) -> bool:
    """Whether there are results, and none was left half done."""
    records = [json.loads(path.read_bytes()) for path in place.rglob("run.json")]
    return bool(records) and all(record["complete"] for record in records)


def compared(files: list[Path], place: Path, tolerance: float | None) -> list[dict]:
    """Each file beside its repetition: what is the same, and what differed when they were made."""
    from nnheads.compare import repeat
    from nnheads.runs import store

    found = []
    for path in files:
        first = store.load(path)
        second = store.load(counterpart(path, first, place))
        changes = repeat.compare(first, second, tolerance=tolerance)
        found.append(
            {
                "file": path.name,
                "changes": changes,
                "circumstances": repeat.circumstances(first, second),
            }
        )
    return found


def prompts_exact(file: Path, found: list[dict], place: Path, tolerance: float | None) -> bool:
    """Whether what was measured prompt by prompt is there, in the same folder, and is the same to
    the last bit.
    """
    own = [one for one in found if one["file"] == PROMPTS]
    beside = file.parent / PROMPTS
    if file.is_file() and beside.is_file() and not own:
        with contextlib.suppress(BadInput, RunError):  # it was not asked for
            own = compared([beside], place, tolerance)
    return bool(own) and all(change.verdict == "exact" for one in own for change in one["changes"])


def counterpart(path: Path, first, place: Path) -> Path:
    """The new file that repeats an old one: of that name and, where a command makes several, most
    alike.
    """
    from nnheads.compare import repeat
    from nnheads.runs import store

    candidates = sorted(place.rglob(path.name))
    if not candidates:
        made = ", ".join(sorted({one.name for one in place.rglob("*.nc")})) or "no results"
        raise RunError(f"the command makes no {path.name} any more; it made {made}")
    if len(candidates) == 1:
        return candidates[0]
    own = repeat.arguments_of(first)

    def alike(one: Path) -> tuple[int, int]:
        found = store.load(one)
        attributes, new = found.attrs, repeat.arguments_of(found)
        return attributes.get("title") == first.attrs.get("title"), sum(
            new.get(key) == own[key] for key in own
        )

    return max(candidates, key=alike)


def report(file: Path, found: list[dict], output: Path | None, exact_prompts: bool) -> None:
    """A line for each variable that is not exact, why, and a last line that sums up."""
    from nnheads.runs import store

    for one in found:
        changes = one["changes"]
        moved = [change for change in changes if change.verdict != "exact"]
        options.say(
            f"{one['file']}: {len(changes) - len(moved)} of {len(changes)} variables are exact"
        )
        moved.sort(
            key=lambda change: (
                change.same,
                -change.relative if change.relative == change.relative else 0,
            )
        )
        for change in moved[:WORST]:
            options.say(f"  {line_of(change)}")
        if len(moved) > WORST:
            options.say(f"  ... and {len(moved) - WORST} more")
    lines = list(dict.fromkeys(line for one in found for line in one["circumstances"]))
    options.say(
        "what differed when they were made:" if lines else "nothing that is recorded differed"
    )
    for line in lines:
        options.say(f"  {line}")
    every = [change for one in found for change in one["changes"]]
    different = sorted({change.name for change in every if not change.same})
    if output is not None:
        record = [
            {**one, "changes": [dataclasses.asdict(change) for change in one["changes"]]}
            for one in found
        ]
        text = json.dumps({"of": str(file.name), "files": record}, indent=1) + "\n"
        options.say(
            options.shown(store.write(output / "rerun.json", lambda path: path.write_text(text)))
        )
    if different:
        options.say(verdict(different, lines, exact_prompts))
        raise typer.Exit(1)
    drifted = any(change.verdict == "drift" for change in every)
    options.say("the same but for rounding" if drifted else "the same to the last bit")


def verdict(different: list[str], lines: list[str], exact_prompts: bool) -> str:
    """What a reader should make of a difference."""
    names = ", ".join(different[:6]) + (
        f" and {len(different) - 6} more" if len(different) > 6 else ""
    )
    causes = [line for line in lines if not line.startswith(("nnheads had", "commit of"))]
    if causes:
        return f"different: {names}; the first reason to look at is {causes[0]}"
    if exact_prompts:
        return (
            f"different: {names}; its prompts one by one ({PROMPTS}) are exact: heads are reduced"
            " from them in another way now, or the file was changed"
        )
    if lines:
        return (
            f"different: {names}; nothing else that is recorded changed: the code of nnheads did,"
            " or the file"
        )
    return (
        f"different: {names}; no reason is recorded: another device, more threads, or a change to"
        " the code or the file"
    )


def line_of(change) -> str:
    """A variable that is not exact, in one line."""
    if change.verdict in ("missing", "new"):
        return (
            f"{change.name}:"
            f" {'not in the new result' if change.verdict == 'missing' else 'only in the new result'}"
        )
    if change.largest != change.largest:
        shape = "" if change.cells != change.size else " or its shape"
        return f"{change.name}: {change.verdict}; {change.cells} of {change.size} values{shape}"
    rank = (
        ""
        if change.rank_correlation != change.rank_correlation
        else f"; rank correlation {change.rank_correlation:.4f}"
    )
    return (
        f"{change.name}: {change.verdict}; {change.cells} of {change.size} values, by at most"
        f" {change.largest:.3g} ({change.relative:.2g} of the largest){rank}"
    )

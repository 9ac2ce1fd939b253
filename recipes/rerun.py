"""Repeat a result from what it records about itself, and explain every difference."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from nnheads.recipes import _issued, _rerun
from nnheads.recipes._options import Traceback
from nnheads.recipes._rerun_model import with_model
from nnheads.recipes._terminal import say

from nnheads.errors import BadInput, RunError

if TYPE_CHECKING:
    import xarray as xr

PROMPTS = "scores.nc"  # what was measured prompt by prompt, from which the other files are reduced
FIXED = (*_issued.REFUSED, *_issued.WITH_VALUE, *_issued.DROPPED)  # what cannot follow --

File = Annotated[Path, typer.Argument(help="A result: a .nc file, or the folder of a run.")]
Changed = Annotated[
    list[str] | None,
    typer.Argument(help="After --: options to repeat it with, as in -- --dtype bfloat16."),
]
Model = Annotated[Path | None, typer.Option(help="Where the folder or file of its weights is now.")]
Tolerance = Annotated[
    float | None,
    typer.Option(help="Share of the largest value that is drift; default: by dtype."),
]
Kept = Annotated[
    Path | None,
    typer.Option("--output", "-o", file_okay=False, help="Keep the new results in this folder."),
]


def main(
    file: File,
    changed: Changed = None,
    model: Model = None,
    tolerance: Tolerance = None,
    output: Kept = None,
    traceback: Traceback = False,
) -> None:
    """Repeat a result from what it records about itself, and explain every difference.

    The command that made it is issued again, into a folder of its own, and every variable is
    compared: exact (to the last bit), drift (as rounding makes it), or different. Then all that is
    recorded and has changed: weights, dtype, attention, tokenizer, prompts, options, versions.
    A model that was a folder is looked for from here and beside the result, or --model says where
    it is; other weights are refused. Exit code 1 if a variable is different. With --output also
    writes rerun.json.
    """
    from nnheads.runs import store

    check_tolerance(tolerance)
    words, files = made_by(file)
    more = list(changed or [])
    _issued.check_repeatable(file, words, more)
    check_changed(more)
    words = with_model(words, store.load(files[0]).attrs, file, model)
    with folder_for(output) as place:
        say(f"repeating: {shlex.join([*words, *more])}")
        issue(words, more, place)
        found = compared(files, place, tolerance)
        _rerun.report(file, found, output, prompts_exact(file, found, place, tolerance))


def check_tolerance(tolerance: float | None) -> None:
    """Refuse a tolerance that is no number from 0 on."""
    if tolerance is not None and not 0 <= tolerance < float("inf"):
        raise BadInput(
            f"--tolerance {tolerance} is not possible; it must be a number that is at least 0"
        )


def check_changed(more: list[str]) -> None:
    """Refuse options that say where results go, or that do more than compute."""
    for word in more:
        name = _issued.name_of(word)
        if name in FIXED:
            raise BadInput(
                f"{name} cannot follow --; it says where results go, or does more than compute"
            )


@contextlib.contextmanager
def folder_for(output: Path | None) -> Iterator[Path]:
    """Yield the folder for the new results: a new or empty one, or one that is removed again."""
    if output is None:
        with tempfile.TemporaryDirectory(prefix="nnheads-rerun-") as place:
            yield Path(place)
        return
    if output.is_dir() and any(output.iterdir()):
        raise BadInput(f"{output} is not empty; name a new folder with --output")
    yield output


def made_by(file: Path) -> tuple[list[str], list[Path]]:
    """Return the words of the command that made a result, and the files that are compared."""
    from nnheads.runs import store

    if file.is_dir():
        words, _ = _issued.command_in(file)
        return words, files_in(file)
    if not file.exists():
        raise BadInput(f"no file {str(file)!r}; expected a result, or the folder of a run")
    return _issued.command_of_file(file, store.load(file).attrs), [file]


def files_in(run: Path) -> list[Path]:
    """Return the results in a run's folder."""
    files = sorted(run.glob("*.nc"))
    if not files:
        raise BadInput(
            f"{run} holds no .nc file, so there is nothing to compare; was the run finished?"
        )
    return files


def issue(words: list[str], more: list[str], place: Path) -> None:
    """Run the command with its results in another folder; what it says is kept to itself."""
    from nnheads.recipes import command

    arguments: list[str] = [*_issued.for_folder(words), *more, "--output", str(place)]
    name = arguments.pop(0)
    before, sys.argv = sys.argv, [*words, *more]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            command(name)(args=arguments, prog_name=f"nnheads {name}", standalone_mode=False)
    except RunError:
        if not finished(place):  # a claim that fails is a result too
            raise
    finally:
        sys.argv = before


def finished(place: Path) -> bool:
    """Return whether there are results, and none was left half done."""
    records = [json.loads(path.read_bytes()) for path in place.rglob("run.json")]
    return bool(records) and all(record["complete"] for record in records)


def compared(files: list[Path], place: Path, tolerance: float | None) -> list[_rerun.Comparison]:
    """Compare each file with its repetition: variables, and how the two were made."""
    from nnheads.compare import repeat
    from nnheads.runs import store

    found = []
    for path in files:
        first = store.load(path)
        second = store.load(counterpart(path, first, place))
        changes = repeat.compare(first, second, tolerance=tolerance)
        found.append(_rerun.Comparison(path.name, changes, repeat.circumstances(first, second)))
    return found


def prompts_exact(
    file: Path, found: list[_rerun.Comparison], place: Path, tolerance: float | None
) -> bool:
    """Return whether what was measured prompt by prompt is there, in the same folder, and is the
    same to the last bit.
    """
    by_prompt = [one for one in found if one.file == PROMPTS]
    beside = file.parent / PROMPTS
    if file.is_file() and beside.is_file() and not by_prompt:
        with contextlib.suppress(BadInput, RunError):  # it was not asked for
            by_prompt = compared([beside], place, tolerance)
    return bool(by_prompt) and not any(one.moved for one in by_prompt)


def counterpart(path: Path, first: xr.Dataset, place: Path) -> Path:
    """Return the new file that repeats an old one: of that name and, where a command makes several,
    the most alike.
    """
    from nnheads.runs import store

    candidates = sorted(place.rglob(path.name))
    if not candidates:
        made = ", ".join(sorted({one.name for one in place.rglob("*.nc")})) or "no results"
        raise RunError(f"the command makes no {path.name} any more; it made {made}")
    if len(candidates) == 1:
        return candidates[0]
    return max(candidates, key=lambda one: likeness(first, store.load(one)))


def likeness(first: xr.Dataset, second: xr.Dataset) -> tuple[bool, int]:
    """Return whether two results have one title, and how many arguments they share."""
    from nnheads.compare.repeat import arguments_of

    old, new = arguments_of(first), arguments_of(second)
    shared = sum(new.get(name) == value for name, value in old.items())
    return first.attrs.get("title") == second.attrs.get("title"), shared

"""Run anything over slices of a prompt dataset: progress, resume, concatenate.

Each finished slice is a file of its own, so a run that is killed at any moment loses at most the slice
that was running, and the same command takes up the rest.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import xarray as xr

from nnheads import results
from nnheads.errors import BadInput
from nnheads.provenance import prompts_hash


def run(
    function: Callable[[xr.Dataset], xr.Dataset],
    prompts: xr.Dataset,
    *,
    size: int = 16,
    parts: Path | None = None,
    name: str = "part",
    quiet: bool = False,
    title: str = "",
) -> xr.Dataset:
    """Apply `function` to slices of `size` prompts along `batch` and concatenate what it returns.

    Args:
        parts: folder for finished slices; those that are there already are read, not computed. Parts are
            keyed by the prompts in them, so a changed prompt set never meets an old part.
    """
    if size < 1:
        raise BadInput(f"--batch-size {size} is not possible; it must be at least 1")
    total = prompts.sizes["batch"]
    if total == 0:
        raise BadInput("there are no prompts to run")
    done = []
    with progress(title or name, total, quiet) as advance:
        for first in range(0, total, size):
            part = prompts.isel(batch=slice(first, first + size))
            done.append(_one(function, part, parts, name))
            advance(part.sizes["batch"])
    return xr.concat(done, "batch", data_vars="minimal", coords="minimal", compat="override", combine_attrs="override")


def _one(function: Callable, part: xr.Dataset, parts: Path | None, name: str) -> xr.Dataset:
    if parts is None:
        return function(part)
    labelled = part.assign(number=part["batch"])  # the same prompt may come twice, under two numbers
    path = parts / f"{name}-{prompts_hash(labelled)[:16]}.nc"
    if path.exists():
        with contextlib.suppress(BadInput):  # a part that cannot be read is computed again
            return results.load(path)
    result = function(part)
    results.save(path, result)
    return result


@contextlib.contextmanager
def progress(title: str, total: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar with rate and time left on stderr; silent when quiet or not on a terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total, rate="")

        def advance(count: int) -> None:
            bar.advance(task, count)
            speed = bar.tasks[0].speed
            bar.update(task, rate=f"{speed:.1f}/s" if speed else "")

        yield advance

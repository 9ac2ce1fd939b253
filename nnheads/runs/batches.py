"""Run anything over slices of a prompt dataset: progress, resume, concatenate.

Each finished slice is a file of its own, so a run that is killed at any moment loses at most the
slice that was running, and the same command takes up the rest. On a server a slice is a job, or a
few.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import xarray as xr

from nnheads.errors import BadInput, Pending, RunError
from nnheads.remote.ledger import Ledger
from nnheads.remote.place import Place, place_of
from nnheads.runs import store
from nnheads.runs.provenance import prompts_hash

JOB_TOKENS = 1 << 16  # of a job on a server, where each job costs a wait in a queue
JOB_BYTES = 1 << 26  # that a job may send back


def run(
    function: Callable[[xr.Dataset], xr.Dataset],
    prompts: xr.Dataset,
    *,
    size: int = 16,
    parts: Path | None = None,
    name: str = "part",
    quiet: bool = False,
    title: str = "",
    model=None,
    row_bytes: int = 1,
) -> xr.Dataset:
    """Apply `function` to slices of `size` prompts along `batch` and concatenate what it returns.

    Args:
        parts: folder for finished slices; those that are there already are read, not computed.
            Parts are keyed by the prompts in them, so a changed prompt set never meets an old part.
        model: that `function` runs. On a server slices are larger, up to JOB_TOKENS tokens, so that
            there are few jobs; and one that fails there does not keep the others from being
            finished.
        row_bytes: that come back for each prompt, if many.

    Raises:
        RunError: slices that a server could not do, after all others are done. Pending: slices that
            it has not done.
    """
    if size < 1:
        raise BadInput(f"--batch-size {size} is not possible; it must be at least 1")
    total = prompts.sizes["batch"]
    if total == 0:
        raise BadInput("there are no prompts to run")
    place = Place(None) if model is None else place_of(model)
    if place.remote and "position" in prompts.sizes:
        size = max(size, min(JOB_TOKENS // prompts.sizes["position"], JOB_BYTES // row_bytes))
    own = place.ledger
    if (
        place.remote
        and parts is not None
        and (own.folder is None or not parts.is_relative_to(own.folder))
    ):
        place.belong_to(Ledger(parts, own.run))
    slices = [prompts.isel(batch=slice(first, first + size)) for first in range(0, total, size)]
    if place.remote not in (False, "local") and len(slices) > 1 and place.waiting:
        send_all(function, slices, parts, name, place)
    done, pending, failed = [], 0, []
    with progress(title or name, total, quiet) as advance:
        for part in slices:
            try:
                done.append(_one(function, part, parts, name, place))
            except Pending:
                pending += 1
            except RunError as error:
                if not place.remote:
                    raise
                failed.append(error)
            advance(part.sizes["batch"])
    if failed and len(slices) == 1:
        raise failed[0]
    if failed:
        raise RunError(
            f"{len(failed)} of {len(slices)} batches failed ({failed[0]}); the others are kept, and"
            " the same command tries these again"
        )
    if pending:
        raise Pending(f"{pending} of {len(slices)} batches are not finished", place.ledger.run)
    return xr.concat(
        done,
        "batch",
        data_vars="minimal",
        coords="minimal",
        compat="override",
        combine_attrs="override",
    )


def send_all(
    function: Callable, slices: list[xr.Dataset], parts: Path | None, name: str, place: Place
) -> None:
    """Send what every slice has to wait for, so that they wait in the queue together and not one
    after the other.
    """
    with place.not_waiting():
        for part in slices:
            try:
                _one(function, part, parts, name, place)
            except Pending:
                continue
            except RunError:  # it will be said when this slice's turn comes
                return


def _one(
    function: Callable, part: xr.Dataset, parts: Path | None, name: str, place: Place
) -> xr.Dataset:
    labelled = part.assign(
        number=part["batch"]
    )  # the same prompt may come twice, under two numbers
    key = f"{name}-{prompts_hash(labelled)[:16]}"
    path = None if parts is None else parts / f"{key}.nc"
    if path is not None and path.exists():
        with contextlib.suppress(BadInput):  # a part that cannot be read is computed again
            return store.load(path)
    with place.ledger.of(key):
        result = function(part)
    if path is not None:
        store.save(path, result)
    return result


@contextlib.contextmanager
def progress(title: str, total: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar with rate and time left on stderr; silent when quiet or not on a terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
    )
    with Progress(
        *columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task(title, total=total, rate="")

        def advance(count: int) -> None:
            bar.advance(task, count)
            speed = bar.tasks[0].speed
            bar.update(task, rate=f"{speed:.1f}/s" if speed else "")

        yield advance

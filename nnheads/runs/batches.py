"""Run anything over slices of a prompt dataset: progress, resume, concatenate.

    scores = run(lambda part: patch(model, part), prompts, size=16, parts=folder, model=model)

Each finished slice is a file of its own, so a run that is killed at any moment loses at most the
slice that was running, and the same command takes up the rest. On a server a slice is a job, or a
few. A slice that fails there does not keep the others from being finished; the error comes after
them.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from nnheads.errors import BadInput, Pending, RunError
from nnheads.remote.ledger import Ledger
from nnheads.remote.place import Place, place_of
from nnheads.runs import store
from nnheads.runs.progress import progress
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
    model: Any = None,
    row_bytes: int = 1,
    order: np.ndarray | None = None,
) -> xr.Dataset:
    """Apply `function` to slices of `size` prompts along `batch` and concatenate what it returns.

    Args:
        parts: folder for finished slices; those that are there already are read, not computed.
            Parts are keyed by the prompts in them, so a changed prompt set never meets an old part.
        model: that `function` runs. On a server slices are larger, up to JOB_TOKENS tokens, so that
            there are few jobs.
        row_bytes: that come back for each prompt, if many.
        order: in which prompts are taken (numbers); the result is in their own.

    Raises:
        BadInput: no prompts, or a size below 1.
        RunError: slices that a server could not do, after all others are done.
        Pending: slices that it has not done.
    """
    if size < 1:
        raise BadInput(f"--batch-size {size} is not possible; it must be at least 1")
    total = prompts.sizes["batch"]
    if total == 0:
        raise BadInput("there are no prompts to run")
    place = Place(None) if model is None else place_of(model)
    if place.remote:
        size = max(size, _rows_of_a_job(prompts, row_bytes))
        _keep_jobs_beside(parts, place)
    if place.on_server and row_bytes > 1:
        _say_size(title or name, total, row_bytes)
    work = _Work(function, parts, name, place)
    taken = np.arange(total) if order is None else order
    slices = [prompts.isel(batch=taken[first : first + size]) for first in range(0, total, size)]
    if place.on_server and place.waiting and len(slices) > 1:
        work.send_all(slices)
    with progress(title or name, total, quiet, size) as shown:
        here = contextlib.nullcontext() if model is None or place.remote else shown.watching(model)
        with here:
            for part in slices:
                work.do(part)
                shown(part.sizes["batch"])
    found = work.whole()
    return found if order is None else found.isel(batch=np.argsort(order))


def _rows_of_a_job(prompts: xr.Dataset, row_bytes: int) -> int:
    """Return how many prompts a job on a server may hold; 0 for prompts without positions."""
    if "position" not in prompts.sizes:
        return 0
    return min(JOB_TOKENS // prompts.sizes["position"], JOB_BYTES // row_bytes)


def _say_size(title: str, rows: int, row_bytes: int) -> None:
    """Say how much a server will send back, where that is more than scores."""
    size = f"{rows * row_bytes / 1e6:,.1f} MB ({row_bytes / 1e3:,.1f} kB a prompt)"
    print(f"note: {title}: a server sends back {size}", file=sys.stderr, flush=True)


def _keep_jobs_beside(parts: Path | None, place: Place) -> None:
    """Write jobs down where the parts are, unless the run that they belong to holds the parts."""
    own = place.ledger
    if parts is None or (own.folder is not None and parts.is_relative_to(own.folder)):
        return
    place.belong_to(Ledger(parts, own.run))


@dataclass
class _Work:
    """What is done with each slice, and what came of it."""

    function: Callable[[xr.Dataset], xr.Dataset]
    parts: Path | None
    name: str
    place: Place
    done: list[xr.Dataset] = field(default_factory=list)
    failed: list[RunError] = field(default_factory=list)
    pending: int = 0

    def do(self, part: xr.Dataset) -> None:
        """Compute a slice; on a server what fails or is not there yet is kept for later.

        Raises:
            RunError: a slice that failed here.
        """
        try:
            self.done.append(self._result(part))
        except Pending:
            self.pending += 1
        except RunError as error:
            if not self.place.remote:
                raise
            self.failed.append(error)

    def send_all(self, slices: list[xr.Dataset]) -> None:
        """Send what every slice has to wait for, so that all wait in the queue together."""
        with self.place.not_waiting():
            for part in slices:
                try:
                    self._result(part)
                except Pending:
                    continue
                except RunError:  # it will be said when this slice's turn comes
                    return

    def whole(self) -> xr.Dataset:
        """Return all slices, one behind the other.

        Raises:
            RunError: slices that failed. Pending: slices that are not done.
        """
        self._check()
        return xr.concat(
            self.done,
            "batch",
            data_vars="minimal",
            coords="minimal",
            compat="override",
            combine_attrs="override",
        )

    def _check(self) -> None:
        """Raise RunError or Pending unless every slice is done."""
        count = len(self.done) + len(self.failed) + self.pending
        if self.failed and count == 1:
            raise self.failed[0]
        if self.failed:
            raise RunError(
                f"{len(self.failed)} of {count} batches failed ({self.failed[0]}); the others are"
                " kept, and the same command tries these again"
            )
        if self.pending:
            run_folder = self.place.ledger.run
            raise Pending(f"{self.pending} of {count} batches are not finished", run_folder)

    def _result(self, part: xr.Dataset) -> xr.Dataset:
        """Return the result of a slice: from its file if there is one, else computed and kept."""
        labelled = part.assign(number=part["batch"])  # the same prompt may come under two numbers
        key = f"{self.name}-{prompts_hash(labelled)[:16]}"
        path = None if self.parts is None else self.parts / f"{key}.nc"
        if path is not None:
            found = store.kept(path, key)
            if found is not None:
                return found
        with self.place.ledger.of(key):
            result = self.function(part)
        if path is not None:
            store.keep(path, result, key)
        return result

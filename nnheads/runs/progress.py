"""Say how far something is and how long it will take, on a terminal's bar or in a line.

    with progress("heads", 100, quiet=False, size=20) as shown:
        with shown.watching(model):      # sweeps of the model say how far they are within a batch
            ...
        shown(20)                        # so many more are done

A bar has a rate and the time left. Off a terminal there is one line, and only where it takes long:
as soon as a sweep of the first batch can tell, and once more when a batch is done.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from nnheads.trace.session import TOLD

LONG = 60.0  # seconds left from which it is said how long something takes
SOON = 3.0  # seconds of a sweep after which its share tells how long it will take
ENOUGH = 0.05  # share of a sweep below which it does not: first parts may be the slow ones
AT_ONCE = 0.01  # seconds for each that is done, below which it was there already


@contextlib.contextmanager
def progress(title: str, total: int, quiet: bool, size: int = 1) -> Iterator[Progress]:
    """Show a bar with rate and time left on stderr, off a terminal a line if it takes long.

    Nothing when quiet.

    Args:
        total: how many are to be done. size: how many are done at once.
    """
    if quiet:
        yield Progress(total, size)
    elif not sys.stderr.isatty():
        yield Announced(title, total, size)
    else:
        with _bar(title, total) as told:
            yield Bar(total, size, told)


class Progress:
    """Count what is done, and what a sweep says of itself. This one shows nothing.

    within: the share of the present batch that its present sweep has done, from 0 to 1.
    """

    def __init__(self, total: int, size: int = 1) -> None:
        self.total, self.size, self.done, self.within = total, size, 0, 0.0

    def __call__(self, count: int) -> None:
        """Count so many as done."""
        self.done, self.within = self.done + count, 0.0
        self.show_done(count)

    def sweep(self, share: float) -> None:
        """Take what a sweep of the present batch says: the share of it that is done."""
        begun = share < self.within or not self.within
        self.within = share
        self.show_sweep(begun)

    @contextlib.contextmanager
    def watching(self, model: Any) -> Iterator[None]:
        """Meanwhile let sweeps of a model that runs here say how far they are."""
        vars(model)[TOLD] = self.sweep
        try:
            yield
        finally:
            vars(model).pop(TOLD, None)

    def show_done(self, count: int) -> None:
        """Show that so many more are done."""

    def show_sweep(self, begun: bool) -> None:
        """Show how far the present sweep is; begun: it is another than before."""


class Announced(Progress):
    """Say in a line how long it will take, if that is long."""

    def __init__(self, title: str, total: int, size: int = 1) -> None:
        super().__init__(total, size)
        self.title, self.guessed, self.told = title, False, False
        self.started = self.step = self.swept = time.monotonic()
        self.swept_share = 0.0
        self.before = 0  # that were there already

    def show_done(self, count: int) -> None:
        """Say once, when something is done, how long the others will take."""
        now = time.monotonic()
        if now - self.step < AT_ONCE * count:
            self.started, self.before = now, self.done
        self.step = self.swept = now
        made = self.done - self.before
        left = (now - self.started) / made * (self.total - self.done) if made else 0.0
        if left > LONG and not self.told:
            self.told = True
            self.say(f"about {left / 60:.0f} min left")

    def show_sweep(self, begun: bool) -> None:
        """Say once, before anything is done, how long this sweep will take in all batches."""
        now = time.monotonic()
        if begun:  # what lies before its first part is no part of it
            self.swept, self.swept_share = now, self.within
        spent, share = now - self.swept, self.within - self.swept_share
        if self.guessed or self.told or spent < SOON or share < ENOUGH:
            return
        batches = math.ceil((self.total - self.done) / self.size)
        left = spent / share * (batches - self.within)
        if left > LONG:
            self.guessed = True
            self.say(f"about {left / 60:.0f} min left, more if other sweeps follow")

    def say(self, text: str) -> None:
        """Print a line on stderr."""
        print(f"{self.title}: {text}", file=sys.stderr, flush=True)


class Bar(Progress):
    """Move a bar, within a batch too."""

    def __init__(self, total: int, size: int, told: Callable[[float], None]) -> None:
        super().__init__(total, size)
        self.told, self.furthest = told, 0.0

    def show_done(self, count: int) -> None:
        """Move the bar to what is done."""
        self.furthest = max(self.furthest, float(self.done))
        self.told(self.furthest)

    def show_sweep(self, begun: bool) -> None:
        """Move the bar to where the sweep is, never back: a batch may have several."""
        inside = self.within * min(self.size, self.total - self.done)
        self.furthest = max(self.furthest, self.done + inside)
        self.told(self.furthest)


@contextlib.contextmanager
def _bar(title: str, total: int) -> Iterator[Callable[[float], None]]:
    """Draw a bar and return what moves it."""
    from rich import progress as rich_progress
    from rich.console import Console

    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.TextColumn("{task.completed:.0f}/{task.total}"),
        rich_progress.TextColumn("{task.fields[rate]}"),
        rich_progress.TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with rich_progress.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=total, rate="")

        def told(done: float) -> None:
            bar.update(task, completed=done)
            speed = bar.tasks[0].speed
            bar.update(task, rate=f"{speed:.1f}/s" if speed else "")

        yield told

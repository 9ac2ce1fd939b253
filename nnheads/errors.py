"""The errors that nnheads raises on purpose: one line each, what was got, what was expected, what
to do.
"""

from __future__ import annotations

from pathlib import Path


class NNHeadsError(Exception):
    """Something that nnheads refuses or cannot do. Its text is the one line that a user reads."""


class BadInput(NNHeadsError, ValueError):
    """An argument, a file or a prompt that cannot be used. The command line exits with 2."""


class ModelError(BadInput):
    """A model that cannot be loaded: unknown family, no folder, gated repository, no network."""


class RunError(NNHeadsError, RuntimeError):
    """A run that started and could not be finished. The command line exits with 1."""


class Pending(NNHeadsError):
    """Jobs were sent and are not finished; whoever asked did not want to wait. `run`: the folder of
    the run that they belong to, if they belong to one."""

    def __init__(self, text: str, run: Path | None = None) -> None:
        super().__init__(text)
        self.run = run


def first_line(error: BaseException) -> str:
    """Return what another library's error says, in one line; its name if it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__

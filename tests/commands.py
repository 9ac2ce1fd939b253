"""Issue commands as a user does, inside the process of the tests."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from matplotlib.figure import Figure
from nnheads.recipes import _app

from nnheads.runs.folder import Run


class Issued(NamedTuple):
    """What a command left: exit code, and the texts on standard output and standard error."""

    code: int
    out: str
    err: str


def issue(*words: object) -> Issued:
    """Run a command line; what it prints is returned, and printed again for pytest to keep."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as stop,
    ):
        _app.app([str(word) for word in words])
    sys.stdout.write(out.getvalue())
    sys.stderr.write(err.getvalue())
    return Issued(stop.value.code, out.getvalue(), err.getvalue())


def command(*words: object) -> str:
    """Run a command line that must succeed without a word on standard error; return its output."""
    code, out, err = issue(*words)
    assert (code, err) == (0, "")
    return out


def refused(*words: object) -> str:
    """Run a command line that must fail with one line; return its exit code and that line."""
    code, out, err = issue(*words)
    assert out == "" and len(err.splitlines()) == 1
    return f"{code} {err}"


def folder_of(out: str) -> Path:
    """Return the folder of a run from what the command printed last."""
    return Path(out.splitlines()[-1]).parent


def study(factory: pytest.TempPathFactory, *words: object) -> tuple[str, Path]:
    """Run a command that must succeed; return what it printed, and the folder of its run."""
    out = command(*words, "--output", factory.mktemp(str(words[0])))
    return out, folder_of(out)


def pictures_in(monkeypatch) -> dict[str, Figure]:
    """Return where every picture that a run saves is found by its name, as a figure."""
    figures: dict[str, Figure] = {}
    save = Run.picture

    def kept(run: Run, name: str, figure: Figure) -> Path:
        figures[name] = figure
        return save(run, name, figure)

    monkeypatch.setattr(Run, "picture", kept)
    return figures


@contextlib.contextmanager
def untouched(folder: Path, monkeypatch) -> Iterator[None]:
    """Fail where a model reads anything, or a file of this finished run is written again."""

    def read(*_, **__):
        pytest.fail("a finished run was computed again")

    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    with monkeypatch.context() as patched:
        patched.setattr(torch.nn.Embedding, "forward", read)
        yield
    assert before == {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}

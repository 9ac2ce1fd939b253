"""What is said while something runs: in a line off a terminal, on a bar on one."""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pytest
from random_models import tiny

import nnheads
from nnheads.patching.patch import patch
from nnheads.runs import batches, progress
from nnheads.trace.session import TOLD


@pytest.fixture
def clock(monkeypatch):
    """Set the clock to a value, by clock(seconds)."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def at(seconds: float) -> None:
        now[0] = seconds

    return at


def test_what_takes_long_is_told_once_off_a_terminal(capsys, clock):
    with progress.progress("heads", 6, quiet=False) as shown:
        for seconds in (100.0, 200.0, 300.0):
            clock(seconds)
            shown(1)
    assert capsys.readouterr().err == "heads: about 8 min left\n", "100 s each, five to go"


def test_nothing_is_told_of_what_is_soon_done_or_quiet(capsys, clock):
    for quiet, step in ((False, 1.0), (True, 100.0)):
        clock(0.0)
        with progress.progress("heads", 6, quiet=quiet) as shown:
            clock(step)
            shown.sweep(0.1)
            shown(1)
            clock(2 * step)
            shown(1)
    assert capsys.readouterr().err == ""


def test_a_sweep_of_the_only_batch_tells_how_long_it_takes(capsys, clock):
    with progress.progress("heads", 4, quiet=False, size=20) as shown:
        clock(30.0)
        shown.sweep(0.01)  # loading and plain runs are no part of the rate
        clock(32.0)
        shown.sweep(0.07)
        assert capsys.readouterr().err == "", "too soon to tell"
        clock(40.0)
        shown.sweep(0.11)
        clock(50.0)
        shown.sweep(0.2)
    said = "heads: about 1 min left, more if other sweeps follow\n"
    assert capsys.readouterr().err == said, "10 s for a tenth, 89 s left; said once"


def test_a_second_sweep_of_a_batch_counts_from_its_own_start(capsys, clock):
    with progress.progress("heads", 4, quiet=False, size=4) as shown:
        clock(2.0)
        shown.sweep(1.0)
        clock(100.0)
        shown.sweep(0.01)  # what lies between the sweeps is not the second one's
        clock(110.0)
        shown.sweep(0.07)
    said = "heads: about 3 min left, more if other sweeps follow\n"
    assert capsys.readouterr().err == said, "10 s for 6 %"


def test_what_was_there_already_says_nothing_of_the_rest(capsys, clock):
    with progress.progress("heads", 60, quiet=False, size=20) as shown:
        clock(0.1)
        shown(20)
        clock(100.1)
        shown(20)
    assert capsys.readouterr().err == "heads: about 2 min left\n", "100 s for the last twenty"


def test_a_bar_moves_within_a_batch_and_never_back(monkeypatch):
    moved = []
    bar = progress.Bar(10, 4, moved.append)
    for act in (0.5, 1.0, 0.25, 4, 0.5, 4, 0.5, 2):
        bar(act) if isinstance(act, int) else bar.sweep(act)
    assert moved == [2.0, 4.0, 4.0, 4.0, 6.0, 8.0, 9.0, 10.0]


def test_a_bar_is_drawn_on_a_terminal_alone(capfd, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress.progress("heads", 10, quiet=False) as shown:
        shown(4)
        shown(6)
    out, err = capfd.readouterr()
    assert out == "" and "heads" in err and "10/10" in err


def test_a_sweep_says_its_share_to_whoever_watches_and_to_nobody_else(monkeypatch):
    model, _ = tiny("llama")
    prompts, said = nnheads.ioi(model.tokenizer, 4), []
    monkeypatch.setattr("nnheads.patching.prepared.suitable_tokens", lambda *_, **__: 64)
    monkeypatch.setattr(progress.Progress, "sweep", lambda self, share: said.append(share))
    silent = patch(model, prompts)
    assert said == []
    watched = batches.run(lambda part: patch(model, part), prompts, size=4, model=model)
    assert len(said) > 2 and said[-1] == 1.0
    assert all(first < second for first, second in itertools.pairwise(said))
    assert TOLD not in vars(model)
    np.testing.assert_array_equal(watched["effect"], silent["effect"])

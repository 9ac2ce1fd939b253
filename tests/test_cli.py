"""The command line itself: quick help, one command a file, and what typing mistakes get."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import warm
from nnheads.recipes import _app as cli
from nnheads.recipes._remote_option import with_place, without_place

import nnheads
from nnheads.errors import BadInput

ROOT = Path(__file__).parent.parent
RECIPES = sorted(cli.recipes())


def call(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        cli.app(list(arguments))
    out, err = capsys.readouterr()
    return done.value.code, re.sub(r"\x1b\[[0-9;]*m", "", out), err


def test_every_recipe_is_a_file_with_one_line_about_it():
    assert {"ioi", "inspect", "patch"} <= set(RECIPES)
    for name, line in cli.recipes().items():
        assert (ROOT / "recipes" / f"{name.replace('-', '_')}.py").is_file()
        assert line.endswith((".", "?", "one.", "at once.")) and len(line) <= 120, name


def test_help_lists_every_recipe_in_one_line(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    code, out, err = call(capsys, "--help")
    assert (code, err) == (0, "")
    for name, line in cli.recipes().items():
        assert re.search(rf"(?m)^\W*{name}\s+{re.escape(line)}\W*$", out), name


def test_nothing_at_all_shows_the_help(capsys):
    assert call(capsys) == call(capsys, "--help")


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_explains_itself(name, capsys):
    code, out, err = call(capsys, name, "--help")
    assert (code, err) == (0, "") and f"nnheads {name}" in out
    assert "--traceback" in out or "COMMAND" in out, "a command, or a group of them"


LINES = [["--help"], *([name, "--help"] for name in RECIPES), ["no-such-command"]]
HEAVY = {"torch", "transformers", "xarray", "matplotlib", "numpy", "nnsight", "scipy"}
# Prints, for each command line, which large libraries it is the first to load.
ONE_AFTER_THE_OTHER = f"""
import contextlib, io, json, sys
from nnheads.recipes import _app as cli
heavy, known, loaded = {HEAVY!r}, set(), {{}}
for line in {LINES!r}:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        with contextlib.suppress(SystemExit):
            cli.app(list(line))
    loaded[" ".join(line)] = sorted((heavy & set(sys.modules)) - known)
    known |= heavy & set(sys.modules)
print(json.dumps(loaded))
"""


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    """Large libraries that a command line loads: a fresh process issues them all."""
    line = [sys.executable, "-c", ONE_AFTER_THE_OTHER]
    return json.loads(subprocess.run(line, capture_output=True, cwd=ROOT, check=True).stdout)


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_help_and_typing_mistakes_load_no_library(line, loaded):
    assert loaded[" ".join(line)] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["iio"], "error: No such command 'iio'.*nnheads --help shows what there is"),
        (["--nonsense"], "error: No such option: --nonsense; nnheads --help"),
        (
            ["ioi", "--nonsense"],
            "error: No such option: --nonsense.*; nnheads ioi --help shows what there is",
        ),
        (["ioi", "--limit"], "error: Option '--limit' requires an argument; nnheads ioi --help"),
        (
            ["ioi", "--limit", "many"],
            "error: Invalid value for '--limit' / '-n': .*valid integer.*; nnheads ioi --help",
        ),
        (
            ["ioi", "one", "two"],
            r"error: Got unexpected extra argument(\(s\))? \(two\); nnheads ioi --help",
        ),
        (["ioi", "--limit", "a\nb"], "error: Invalid value for '--limit'"),
        (["_options"], "error: No such command '_options'"),
    ],
)
def test_a_typing_mistake_is_one_line_and_exit_code_2(arguments, message, capsys):
    code, out, err = call(capsys, *arguments)
    assert (code, out) == (2, "") and len(err.splitlines()) == 1 and re.match(message, err)


def test_an_argument_that_is_no_text_is_one_line(capsys):
    code, out, err = call(capsys, "inspect", "a\udcff")
    assert (code, out) == (2, "") and re.match(
        r"error: argument 'a\\udcff' is not UTF-8 text\n$", err
    )


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["ioi", "--remote"], ["ioi", "--remote=ndif"]),
        (["ioi", "--remote", "--limit", "3"], ["ioi", "--remote=ndif", "--limit", "3"]),
        (["ioi", "--remote", "gpt2"], ["ioi", "--remote=ndif", "gpt2"]),
        (["ioi", "--remote", "smollm2"], ["ioi", "--remote=ndif", "smollm2"]),
        (["ioi", "--remote", "owner/Name-3.1"], ["ioi", "--remote=ndif", "owner/Name-3.1"]),
        (["ioi", "--remote", "local/name"], ["ioi", "--remote=ndif", "local/name"]),
        (["ioi", "--remote", "../model"], ["ioi", "--remote=ndif", "../model"]),
        (["ioi", "--remote", str(ROOT)], ["ioi", "--remote=ndif", str(ROOT)]),
        (["ioi", "--remote", "localhost"], ["ioi", "--remote", "localhost"]),
        (["ioi", "--remote", "host:80/a"], ["ioi", "--remote", "host:80/a"]),
        (["ioi", "--remote", ""], ["ioi", "--remote", ""]),
        (["ioi", "--remote", "banana"], ["ioi", "--remote", "banana"]),
        (["ioi", "--remote", "local"], ["ioi", "--remote", "local"]),
        (["ioi", "--remote", "ndif"], ["ioi", "--remote", "ndif"]),
        (
            ["ioi", "--remote", "http://127.0.0.1:5000"],
            ["ioi", "--remote", "http://127.0.0.1:5000"],
        ),
        (["ioi", "--remote", "https://host"], ["ioi", "--remote", "https://host"]),
        (["ioi", "--remote=local"], ["ioi", "--remote=local"]),
        (["ioi"], ["ioi"]),
        ([], []),
    ],
)
def test_remote_alone_means_ndif(given, wanted):
    """What names no model behind it is its value, and not a model by that name."""
    assert with_place(given) == wanted


@pytest.mark.parametrize(
    "place",
    [["--remote"], ["--remote=local"], ["--remote", "http://127.0.0.1:5000"], ["--remote", "odd"]],
)
def test_a_command_is_the_same_without_its_place(place):
    """What is behind a bare --remote is no place, and stays."""
    assert without_place(["ioi", *place, "owner/name"]) == ["ioi", "owner/name"]
    assert without_place(["ioi", "smollm2", *place, "-n", "4"]) == ["ioi", "smollm2", "-n", "4"]
    assert without_place(["ioi", *place]) == ["ioi"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("ioi", "--remote", "banana"),
        ("ioi", "--remote=banana"),
        ("ioi", "--remote", ""),
        ("ioi", "--remote", "localhost:5000"),
        ("ioi", "--remote", "htp://host"),
        ("detect", "--remote", "induction", "gpt2"),
        ("inspect", "--remote", "The cat sat on the"),
        ("remote", "status", "--remote", "banana"),
        ("remote", "collect", "results", "--remote", "banana"),
    ],
)
def test_a_word_behind_remote_that_is_no_place_is_refused(arguments, capsys):
    code, out, err = call(capsys, *arguments)
    assert (code, out) == (2, "") and len(err.splitlines()) == 1
    assert re.search(r"use ndif, local or a URL; .* MODEL --remote ndif", err)


def test_a_command_without_remote_says_so_whatever_follows(capsys):
    code, _, err = call(capsys, "das", "--remote", "banana")
    assert code == 2 and "No such option: --remote" in err


def recipe_that(monkeypatch, effect) -> None:
    """Put a recipe in place of ioi that does nothing but `effect`."""
    import types

    module = types.ModuleType("nnheads.recipes.ioi")

    def main(traceback: bool = False) -> None:
        effect()

    main.__annotations__ = {"traceback": bool, "return": None}
    module.main = main
    monkeypatch.setitem(sys.modules, "nnheads.recipes.ioi", module)


def raising(error: BaseException):
    def effect():
        raise error

    return effect


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (
            KeyboardInterrupt(),
            1,
            "interrupted; finished batches are kept, and the same command goes on from there",
        ),
        (
            ZeroDivisionError("a\nb"),
            1,
            r"unexpected error: ZeroDivisionError: a \(--traceback shows where\)",
        ),
        (KeyError(), 1, r"unexpected error: KeyError:  ?\(--traceback shows where\)"),
    ],
)
def test_whatever_a_recipe_raises_is_one_line(error, code, message, monkeypatch, capsys):
    recipe_that(monkeypatch, raising(error))
    got, out, err = call(capsys, "ioi")
    assert (got, out) == (code, "") and re.fullmatch(message + "\n", err)


def test_traceback_shows_where(monkeypatch):
    recipe_that(monkeypatch, raising(ZeroDivisionError("x")))
    with pytest.raises(ZeroDivisionError):
        cli.app(["ioi", "--traceback"])


@pytest.mark.parametrize("buffering", ["", "1"])
def test_a_full_disk_behind_stdout_is_one_line(buffering):
    line, how = (
        [sys.executable, "cli.py", "--help"],
        {"cwd": ROOT, "env": {**os.environ, "PYTHONUNBUFFERED": buffering}},
    )
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            line, stdout=full, stderr=subprocess.PIPE, text=True, check=False, **how
        )
    assert (
        done.returncode == 1
        and len(done.stderr.splitlines()) == 1
        and "No space left" in done.stderr
    )


@pytest.mark.parametrize("buffering", ["", "1"])
def test_a_reader_that_goes_away_is_no_error_message(buffering):
    line, how = (
        [sys.executable, "cli.py", "--help"],
        {"cwd": ROOT, "env": {**os.environ, "PYTHONUNBUFFERED": buffering}},
    )
    process = subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how
    )
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=60) == 1


def test_a_command_from_python_says_all_on_stdout_and_leaves_the_process_as_it_was(
    tmp_path, capsys, monkeypatch
):
    import sys

    import nnheads

    monkeypatch.setattr(sys, "argv", ["notebook"])
    nnheads.command(f"match 'Mary saw John and Mary' --top 1 -q -o '{tmp_path}/with blanks'")
    said = capsys.readouterr()
    assert "heads.nc" in said.out and "exit code" not in said.out and not said.err
    assert sys.argv == ["notebook"]
    (record,) = (tmp_path / "with blanks").rglob("run.json")
    assert "nnheads match" in record.read_text(), "a run names the command, not the notebook"
    nnheads.command("match --pattern none")
    said = capsys.readouterr()
    assert said.out.endswith("(exit code 2)\n") and said.out.startswith("error: ") and not said.err


@pytest.mark.parametrize("name", RECIPES)
def test_help_flows_with_the_terminal(name):
    from nnheads.recipes import command

    found = command(name)
    for one in (found, *getattr(found, "commands", {}).values()):
        assert one.help and "\n" not in one.help.replace("\n\n", ""), (
            "lines of a docstring are no lines of a terminal"
        )


def test_version(capsys):
    import nnheads

    assert call(capsys, "--version") == (0, f"nnheads {nnheads.__version__}\n", "")


def test_a_line_with_an_open_quote_is_no_command():
    with pytest.raises(BadInput, match="not a command line"):
        nnheads.command("ioi 'unclosed")


def test_what_the_terminal_cannot_show_is_escaped_and_no_error():
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="cp1252") for _ in range(2))
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as stop,
    ):
        cli.app(["detect", "☃"])
    err.flush()
    assert stop.value.code == 2 and out.buffer.getvalue() == b""
    assert b"'\\u2603'" in err.buffer.getvalue() and out.errors == "backslashreplace"


def test_a_command_that_lost_the_signal_to_end_is_told_again(monkeypatch, capsys):
    """An exception that is raised inside a callback of a library goes nowhere."""

    def busy():
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        time.sleep(10)

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGALRM)
    monkeypatch.setattr(cli, "AGAIN", 0.1)
    recipe_that(monkeypatch, busy)
    begin = time.monotonic()
    code, _, err = call(capsys, "ioi")
    assert code == 1 and err.startswith("interrupted; ") and time.monotonic() - begin < 9
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGALRM)) == before
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_sigterm_is_one_line_as_ctrl_c_is(tmp_path):
    line = ["cli.py", "detect", "all", "-n", "200", "-q", "-o", tmp_path]
    process = warm.Program(*line, cwd=ROOT)
    end = time.monotonic() + 100
    while not list(tmp_path.glob("*/*/*/parts/*.nc")) and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    done = process.wait(timeout=60)
    err = done.stderr
    assert (done.returncode, done.stdout) == (1, "")
    assert err.startswith("interrupted; finished batches are kept") and err.count("\n") == 1


def test_what_is_printed_holds_no_key_and_moves_no_cursor(monkeypatch, capsys):
    from nnheads.recipes._terminal import say

    monkeypatch.setenv("NDIF_API_KEY", "key-of-somebody")
    say("a\x1b[2J b\r c\x9b d\u202e key-of-somebody http://me:word@host/x\nnext")
    said = capsys.readouterr().out
    assert said == "a\\x1b[2J b\\r c\\x9b d\\u202e *** http://***@host/x\\nnext\n"


def test_errors_are_not_longer_than_anybody_reads():
    from nnheads.errors import LONGEST_LINE, BadInput, one_error_line

    assert len(one_error_line("x" * 5000)) == LONGEST_LINE
    assert str(BadInput("see http://me:word@host/")) == "see http://***@host/"

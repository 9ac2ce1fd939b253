"""Run the command line: one command per file in this folder, imported only when it runs.

An expected failure is one line on stderr, and exit code 1 (the run) or 2 (the arguments).
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import redirect_stderr
from typing import Annotated, NoReturn

import typer
from nnheads.recipes import command as study
from nnheads.recipes import recipes
from nnheads.recipes._errors import explained
from nnheads.recipes._remote_option import with_place
from typer.core import TyperGroup

INTERRUPTED = 130  # what typer returns for ctrl-C
AGAIN = 5.0  # seconds after which a command that was told to end, and has not, is told again


class Recipes(TyperGroup):
    """Find commands as files."""

    def list_commands(self, ctx) -> list[str]:
        return list(recipes())

    def resolve_command(self, ctx, args):
        ctx.meta["nnheads.recipe"] = args[0]
        return super().resolve_command(ctx, args)

    def get_command(self, ctx, cmd_name: str):
        summaries = recipes()
        if cmd_name not in summaries:
            return None
        if ctx.meta.get("nnheads.recipe") != cmd_name:  # a list needs a line each, not the modules
            return typer.main.get_command(_stub(cmd_name, summaries[cmd_name]))
        return study(cmd_name)


def _stub(name: str, summary: str) -> typer.Typer:
    """Return what stands for a recipe in the list of commands."""
    app = typer.Typer(add_completion=False)

    def nothing() -> None: ...

    app.command(name, help=summary, short_help=summary)(nothing)
    return app


main = typer.Typer(
    cls=Recipes,
    add_completion=False,
    pretty_exceptions_enable=False,
    help=(
        "Which attention heads do this, and how sure are we? Every command runs without arguments"
        " on a small model that ships with nnheads."
    ),
)


def _version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        import nnheads

        sys.stdout.write(f"nnheads {nnheads.__version__}\n")
        raise typer.Exit


@main.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Which nnheads is this?"),
    ] = False,
) -> None: ...


def app(arguments: list[str] | None = None) -> None:
    """Run the command line; an expected failure is one line on stderr and exit code 1 or 2."""
    from nnheads.errors import Pending
    from nnheads.remote.ledger import counting

    if arguments is not None:
        sys.argv = ["nnheads", *arguments]  # what a run's record says that it was made with
    words = with_place(sys.argv[1:]) or ["--help"]
    _print_anything()
    sent: list[dict] = []
    try:
        _check_text(words)
        with counting(sent), _ended_gently():
            code = main(args=words, prog_name="nnheads", standalone_mode=False) or 0
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        _say_jobs(sent)
        sys.stdout.flush()  # what is buffered fails here, where it can be said, and not at exit
    except KeyboardInterrupt:
        _fail("interrupted; finished batches are kept, and the same command goes on from there", 1)
    except BrokenPipeError:  # the reader has gone, as in `nnheads heads | head -1`
        _drop_stdout_if_broken()
        raise SystemExit(1) from None
    except Exception as error:
        if "--traceback" in words:
            raise
        if isinstance(error, Pending):
            _say_jobs(sent)
        hosts = [str(line["host"]) for line in sent if "host" in line]
        _fail(*explained(error, words[0], hosts[-1] if hosts else ""))
    raise SystemExit(code)


def _print_anything() -> None:
    """Print what the terminal's encoding lacks as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def _ended_gently() -> Iterator[None]:
    """Meanwhile end at SIGTERM as at ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> NoReturn:
        # what is raised inside a callback of a library is lost: until this has ended, once more
        signal.setitimer(signal.ITIMER_REAL, AGAIN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGALRM)}
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_text(arguments: list[str]) -> None:
    """Refuse bytes that are no text, which could not be printed or written."""
    from nnheads.errors import BadInput

    for argument in arguments:
        if not argument.isascii() and argument != argument.encode("utf-8", "replace").decode():
            raise BadInput(f"argument {argument!a} is not UTF-8 text")


def command(line: str) -> None:
    """Issue a command in this process, as a notebook likes to.

    All that it says goes to stdout, and behind it an exit code other than 0.

    Args:
        line: the command as it is typed, without `nnheads`.

    Raises:
        BadInput: a line that is none, such as one with an open quote.

    Example:
        >>> nnheads.command("--version")
        nnheads ...
    """
    from nnheads.errors import BadInput

    before = sys.argv
    try:
        words = shlex.split(str(line))
    except ValueError as error:
        raise BadInput(f"not a command line: {line!r} ({error})") from None
    try:
        with redirect_stderr(sys.stdout):
            app(words)
    except SystemExit as end:
        if end.code:
            sys.stdout.write(f"(exit code {end.code})\n")
    finally:
        sys.argv = before


def _say_jobs(lines: list[dict]) -> None:
    """Print what servers did for a run, if they did anything."""
    from nnheads.remote.ledger import totals

    sent = totals(lines)
    if sent["jobs"]:
        up, down = (f"{sent[name] / 1000:,.1f} kB" for name in ("bytes_up", "bytes_down"))
        jobs = "1 job" if sent["jobs"] == 1 else f"{sent['jobs']} jobs"
        sys.stderr.write(f"{jobs} on a server, {up} sent, {down} received\n")


def _fail(text: str, code: int) -> NoReturn:
    """Print one line on stderr and end with an exit code."""
    from nnheads.errors import one_error_line

    sys.stderr.write(one_error_line(text) + "\n")
    _drop_stdout_if_broken()
    raise SystemExit(code)


def _drop_stdout_if_broken() -> None:
    """Send what could not be printed nowhere, or Python complains of it once more at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

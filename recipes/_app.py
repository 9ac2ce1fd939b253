"""The command line: one command per file in this folder, imported only when it runs."""

from __future__ import annotations

import errno
import os
import shlex
import sys
from contextlib import redirect_stderr
from typing import Annotated

import typer
from nnheads.recipes import command as study
from nnheads.recipes import recipes
from typer.core import TyperGroup

INTERRUPTED = 130  # what typer returns for ctrl-C
REMOTE_VALUES = ("ndif", "local", "http://", "https://")


class Recipes(TyperGroup):
    """A command group that finds its commands as files."""

    def list_commands(self, ctx) -> list[str]:
        return list(recipes())

    def resolve_command(self, ctx, args):
        ctx.meta["nnheads.recipe"] = args[0]
        return super().resolve_command(ctx, args)

    def get_command(self, ctx, cmd_name: str):
        summaries = recipes()
        if cmd_name not in summaries:
            return None
        if (
            ctx.meta.get("nnheads.recipe") != cmd_name
        ):  # a list of commands needs a line each, not the modules
            return typer.main.get_command(_stub(cmd_name, summaries[cmd_name]))
        return study(cmd_name)


def _stub(name: str, summary: str) -> typer.Typer:
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


def _version(asked: bool) -> None:
    if asked:
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
    from nnheads.errors import BadInput, NNHeadsError, Pending
    from nnheads.remote.ledger import counting

    sent: list[dict] = []
    if arguments is not None:
        sys.argv = ["nnheads", *arguments]  # what a run's record says that it was made with
    arguments = _bare_remote(list(sys.argv[1:] if arguments is None else arguments)) or ["--help"]
    for argument in arguments:
        if not argument.isascii() and argument != argument.encode("utf-8", "replace").decode():
            _fail(f"error: argument {argument!a} is not UTF-8 text", 2)
    try:
        with counting(sent):
            code = main(args=arguments, prog_name="nnheads", standalone_mode=False) or 0
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        _say_jobs(sent)
        sys.stdout.flush()  # what is buffered fails here, where it can be said, and not at exit
        raise SystemExit(code)
    except KeyboardInterrupt:
        _fail("interrupted; finished batches are kept, and the same command goes on from there", 1)
    except BrokenPipeError:  # the reader has gone, as in `nnheads heads | head -1`
        _drop_stdout_if_broken()
        raise SystemExit(1) from None
    except Exception as error:
        if "--traceback" in arguments:
            raise
        if hasattr(error, "format_message"):  # the command line itself does not parse
            name = f" {arguments[0]}" if arguments[0] in recipes() else ""
            said = " ".join(error.format_message().split()).rstrip(".")
            _fail(f"error: {said}; nnheads{name} --help shows what there is", 2)
        if isinstance(error, Pending):
            _say_jobs(sent)
            from nnheads.recipes._options import shown

            where = (
                ""
                if error.run is None
                else f"; nnheads remote collect {shown(error.run)} fetches what is done"
            )
            _fail(f"{error}{where}", 0)
        if isinstance(error, NNHeadsError):
            _fail(f"error: {error}", 2 if isinstance(error, BadInput) else 1)
        reason = (str(error).strip().splitlines() or [""])[0]
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            _fail(f"error: {error.strerror}; free some and issue the same command again", 1)
        if isinstance(error, ConnectionError) or "Connect" in type(error).__name__:
            _fail(
                f"error: the server of --remote cannot be reached ({reason}); is it running at that"
                " address?",
                1,
            )
        _fail(f"unexpected error: {type(error).__name__}: {reason} (--traceback shows where)", 1)


def command(line: str) -> None:
    """Issue a command in this process, as a notebook likes to: `nnheads.command("detect all --limit
    16")`.

    All that it says goes to stdout, and behind it an exit code other than 0.
    """
    before = sys.argv
    try:
        with redirect_stderr(sys.stdout):
            app(shlex.split(line))
    except SystemExit as end:
        if end.code:
            sys.stdout.write(f"(exit code {end.code})\n")
    finally:
        sys.argv = before


def _say_jobs(lines: list[dict]) -> None:
    """What servers did for a run, if they did anything."""
    from nnheads.remote.ledger import totals

    sent = totals(lines)
    if sent["jobs"]:
        up, down = (f"{sent[name] / 1000:,.1f} kB" for name in ("bytes_up", "bytes_down"))
        jobs = "1 job" if sent["jobs"] == 1 else f"{sent['jobs']} jobs"
        sys.stderr.write(f"{jobs} on a server, {up} sent, {down} received\n")


def _fail(text: str, code: int) -> None:
    sys.stderr.write(text + "\n")
    _drop_stdout_if_broken()
    raise SystemExit(code)


def _drop_stdout_if_broken() -> None:
    """Send what could not be printed nowhere, or Python complains of it once more at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _bare_remote(arguments: list[str]) -> list[str]:
    """`--remote` alone means NDIF."""
    for index, argument in enumerate(arguments):
        following = arguments[index + 1] if index + 1 < len(arguments) else ""
        if argument == "--remote" and not following.startswith(REMOTE_VALUES):
            arguments[index] = "--remote=ndif"
    return arguments

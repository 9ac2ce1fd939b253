"""The command line: one command per file in recipes/, imported only when it runs."""

from __future__ import annotations

import ast
import errno
import importlib
import os
import sys
from pathlib import Path

import typer
from typer.core import TyperGroup

RECIPES = Path(__file__).parent / "recipes"
INTERRUPTED = 130  # what typer returns for ctrl-C
REMOTE_VALUES = ("ndif", "local", "http://", "https://")


def recipes() -> dict[str, str]:
    """Recipe name -> first line of its docstring, read without importing it."""
    found = {}
    for path in sorted(RECIPES.glob("[!_]*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        found[path.stem.replace("_", "-")] = docstring.partition("\n")[0]
    return found


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
        if ctx.meta.get("nnheads.recipe") != cmd_name:  # a list of commands needs a line each, not the modules
            return typer.main.get_command(_stub(cmd_name, summaries[cmd_name]))
        module = importlib.import_module(f"recipes.{cmd_name.replace('-', '_')}")
        app = getattr(module, "app", None)
        if app is None:
            app = typer.Typer(add_completion=False)
            app.command(cmd_name)(module.main)
        command = typer.main.get_command(app)
        command.name = cmd_name
        return command


def _stub(name: str, summary: str) -> typer.Typer:
    app = typer.Typer(add_completion=False)

    def command() -> None: ...

    app.command(name, help=summary, short_help=summary)(command)
    return app


main = typer.Typer(
    cls=Recipes,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Which attention heads do this, and how sure are we? Every command runs without arguments on a small "
    "model that ships with nnheads.",
)


@main.callback()
def _root() -> None: ...


def app(arguments: list[str] | None = None) -> None:
    """Run the command line; an expected failure is one line on stderr and exit code 1 or 2."""
    from nnheads.errors import BadInput, NNHeadsError

    arguments = _bare_remote(list(sys.argv[1:] if arguments is None else arguments)) or ["--help"]
    for argument in arguments:
        if not argument.isascii() and argument != argument.encode("utf-8", "replace").decode():
            _fail(f"error: argument {argument!a} is not UTF-8 text", 2)
    try:
        code = main(args=arguments, prog_name="nnheads", standalone_mode=False) or 0
        if code == INTERRUPTED:
            raise KeyboardInterrupt
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
        if isinstance(error, NNHeadsError):
            _fail(f"error: {error}", 2 if isinstance(error, BadInput) else 1)
        reason = (str(error).strip().splitlines() or [""])[0]
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            _fail(f"error: {error.strerror}; free some and issue the same command again", 1)
        if isinstance(error, ConnectionError) or "Connect" in type(error).__name__:
            _fail(f"error: the server of --remote cannot be reached ({reason}); is it running at that address?", 1)
        _fail(f"unexpected error: {type(error).__name__}: {reason} (--traceback shows where)", 1)


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


if __name__ == "__main__":
    app()

"""One study per file: `nnheads <file name>` runs its `main`, or its `app`.

Files that start with _ are shared.
"""

from __future__ import annotations

import ast
import functools
import importlib
from inspect import cleandoc  # by name: `recipes.inspect` is a command
from pathlib import Path

import typer


@functools.cache
def recipes() -> dict[str, str]:
    """Recipe name -> first line of its docstring, read without importing it."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        found[path.stem.replace("_", "-")] = docstring.partition("\n")[0]
    return found


def command(name: str):
    """A recipe as a command; its module is imported now."""
    module = importlib.import_module(f"nnheads.recipes.{name.replace('-', '_')}")
    app = getattr(module, "app", None)
    if app is None:
        app = typer.Typer(add_completion=False)
        app.command(name)(module.main)
    found = typer.main.get_command(app)
    found.name = name
    for one in (found, *getattr(found, "commands", {}).values()):
        one.help = flowed(one.help or "")
    return found


def flowed(text: str) -> str:
    """A docstring for a terminal of any width: each paragraph on one line, which typer then wraps."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in cleandoc(text).split("\n\n"))

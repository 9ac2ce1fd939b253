"""Find the studies, one per file: `nnheads <file name>` runs its `main`, or its `app`.

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
    """Return the first line of each recipe's docstring by its name, without importing any."""
    summaries = {}
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        summaries[path.stem.replace("_", "-")] = docstring.partition("\n")[0]
    return summaries


def command(name: str):
    """Return a recipe as a command; its module is imported now."""
    module = importlib.import_module(f"nnheads.recipes.{name.replace('-', '_')}")
    app = getattr(module, "app", None)
    if app is None:
        app = typer.Typer(add_completion=False)
        app.command(name)(module.main)
    recipe = typer.main.get_command(app)
    recipe.name = name
    for one in (recipe, *getattr(recipe, "commands", {}).values()):
        one.help = flowed(one.help or "")
    return recipe


def flowed(text: str) -> str:
    """Return a docstring with each paragraph on one line, which typer wraps to any width."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in cleandoc(text).split("\n\n"))

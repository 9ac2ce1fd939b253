"""The user's own functions in edits: found by their import path, and known by their source.

A file keeps a function as a path and a hash of its source. Finding the source runs nothing.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from nnheads.errors import BadInput, first_line
from nnheads.interventions.operations import Combine, Function
from nnheads.interventions.schema import Edit


def functions_of(edits: Sequence[Edit]) -> dict[str, Callable]:
    """Return the user's own functions of some edits, by the names that edits have as data.

    Raises:
        BadInput: a path that leads to no function.
    """
    return {
        function_name(number): function_at(edit.do.function)
        for number, edit in enumerate(edits)
        if isinstance(edit.do, (Function, Combine))
    }


def function_name(number: int) -> str:
    """Return the name of the function of an edit with this number, among its tensors."""
    return f"function {number}"


def function_at(function: str | Callable) -> Callable:
    """Return a function by its import path, or itself."""
    if not isinstance(function, str):
        return function
    module, _, name = function.partition(":")
    try:
        target = importlib.import_module(module)
        for part in name.split("."):
            target = getattr(target, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise _not_found(function, error) from None
    if not callable(target):
        raise BadInput(f"{function!r} is a {type(target).__name__} and no function")
    return target


def path_of(function: str | Callable) -> str:
    """Return the import path of a function.

    Raises:
        BadInput: a function that nobody else could import.
    """
    if isinstance(function, str):
        return function
    path = f"{getattr(function, '__module__', None)}:{getattr(function, '__qualname__', None)}"
    if "<" in path or path.startswith(("__main__", "None")):
        raise BadInput(
            f"{path} cannot be saved: put the function in a module of its own and name it"
            " 'module:function'"
        )
    return path


def source_hash(function: str) -> str:
    """Return SHA-256 of the source of a function `package.module:name`, read from its file."""
    module, _, name = function.partition(":")
    try:
        text = _file_of(module).read_text(encoding="utf-8")
        source = _source(text, name.split("."))
    except (ImportError, AttributeError, OSError, ValueError, SyntaxError) as error:
        raise _not_found(function, error) from None
    return hashlib.sha256(source.encode()).hexdigest()


def _not_found(function: str, error: Exception) -> BadInput:
    return BadInput(f"function {function!r} cannot be found by its path: {first_line(error)}")


def _file_of(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        raise ImportError(f"no source file for module {module!r}")
    return Path(spec.origin)


def _source(text: str, names: list[str]) -> str:
    """Return the source of a function, or of the assignment of one, with its decorators."""
    node: ast.AST = ast.parse(text)
    for name in names:
        defined = [one for one in getattr(node, "body", []) if _defines(one, name)]
        if not defined:
            raise AttributeError(f"no {name!r} in its source")
        node = defined[-1]
    marks = [node, *getattr(node, "decorator_list", [])]
    first = min(mark.lineno for mark in marks)  # type: ignore[attr-defined]
    return "\n".join(text.splitlines()[first - 1 : node.end_lineno])  # type: ignore[attr-defined]


def _defines(node: ast.AST, name: str) -> bool:
    if getattr(node, "name", None) == name:
        return True
    targets = node.targets if isinstance(node, ast.Assign) else []
    return any(getattr(target, "id", None) == name for target in targets)


def check_functions(edits: Iterable[Edit], trust: bool) -> None:
    """Refuse functions that are not trusted, or not what they were when they were saved."""
    for edit in edits:
        if isinstance(edit.do, (Function, Combine)):
            _check_function(str(edit.do.function), edit.do.sha256, trust)


def _check_function(function: str, sha256: str, trust: bool) -> None:
    if not trust:
        raise BadInput(
            f"it runs your function {function!r}; load with trust=True if you trust its author"
        )
    if source_hash(function) != sha256:
        raise BadInput(
            f"function {function!r} is not the one that was saved: its source has changed"
        )

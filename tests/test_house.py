"""The rules of the house that a machine can check: who may import whom, how long things are, what
ships.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# A room may import from itself and from those before it, function-local imports included.
ROOMS = [
    "errors",
    "trace",
    "remote",
    "stats",
    "plot",
    "models",
    "runs",
    "spans",
    "prompts",
    "generation",
    "reference",
    "writing",
    "interventions",
    "patching",
    "truth",
    "interchange",
    "detectors",
    "compare",
    "claims",
    "page",
    "recipes",
]
SOURCES = sorted([*ROOT.glob("nnheads/**/*.py"), *ROOT.glob("recipes/*.py"), ROOT / "cli.py"])
FRONT = {"nnheads", "cli"}  # the front doors may name everything


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(("nnheads", *parts) if parts[0] == "recipes" else parts)


MODULES = {name_of(path): path for path in SOURCES}


def room_of(module: str) -> str:
    return module.split(".")[1]


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path) -> set[str]:
    """The modules that a file imports anywhere; names that it takes from a module count as the
    module.
    """
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = (f"{node.module}.{alias.name}" for alias in node.names)
            found |= {name if name in MODULES else node.module for name in whole}
    return found


def functions(path: Path):
    return [
        node
        for node in ast.walk(tree_of(path))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]


def test_there_are_at_most_twenty_rooms_and_the_recipes():
    rooms = {room_of(name) for name in MODULES if name not in FRONT}
    assert rooms == set(ROOMS) and len(ROOMS) <= 21


def test_a_room_imports_only_from_rooms_before_it():
    offenders = [
        f"{name} imports {module}"
        for name, path in MODULES.items()
        if name not in FRONT
        for module in imports(path)
        if module in MODULES and module not in FRONT
        if ROOMS.index(room_of(module)) > ROOMS.index(room_of(name))
    ]
    assert not offenders, "\n".join(offenders)


def test_no_module_imports_itself_in_a_circle():
    graph = {
        name: imports(path) & set(MODULES) for name, path in MODULES.items() if name not in FRONT
    }
    while graph:  # take away what imports nothing that is left, until a circle is all that remains
        leaves = {name for name, targets in graph.items() if not targets & set(graph) - {name}}
        assert leaves, f"a circle among {', '.join(sorted(graph))}"
        graph = {name: targets for name, targets in graph.items() if name not in leaves}


def test_everything_in_trace_needs_torch_and_nnsight_alone():
    allowed = {"torch", "nnsight", "jaxtyping", "__future__", *sys.stdlib_module_names}
    for name, path in MODULES.items():
        if room_of(f"{name}.") != "trace":
            continue
        for module in imports(path):
            inside = module.startswith("nnheads.trace")
            assert inside or module.split(".")[0] in allowed, (
                f"{name} imports {module}, which does not travel"
            )
        for node in functions(path):
            assert not node.decorator_list, f"{name}.{node.name}: nnsight drops wrappers silently"


def test_drawing_stays_in_plot_and_typer_in_the_recipes():
    for name, path in MODULES.items():
        used = {module.split(".")[0] for module in imports(path)}
        if room_of(f"{name}.") != "plot":
            assert not used & {"seaborn", "matplotlib"}, path
        if room_of(f"{name}.") != "recipes" and name != "nnheads.runs.progress":
            assert not used & {"typer", "rich"}, path


def test_annotations_are_not_evaluated():
    for path in SOURCES:
        text = path.read_text()
        assert "from __future__ import annotations" in text or not re.search(
            r"^(def|class|import|from) ", text, re.M
        ), path


def test_importing_nnheads_is_light():
    code = (
        "import sys, nnheads; print({'torch', 'transformers', 'xarray', 'matplotlib'} &"
        " set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "set()"


def test_public_names_resolve():
    import nnheads

    # a module of the same name would take the place of the function once it is imported
    assert not set(nnheads.__all__) & set(ROOMS)
    for name in nnheads.__all__:
        assert getattr(nnheads, name) is not None
    with pytest.raises(AttributeError, match="no_such_thing"):
        nnheads.no_such_thing  # noqa: B018


# What a first line begins with that names a thing instead of saying what is done.
NOUNS = set("A All An Each Every Heads How Mean One Per Share Texts The Two What Which Who".split())


def test_first_lines_of_docstrings_say_what_is_done():
    wrong = []
    for path in sorted((ROOT / "nnheads").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef) or any(
                "property" in ast.unparse(one) for one in node.decorator_list
            ):
                continue
            first, *_ = [*(ast.get_docstring(node) or "Nothing").split()]
            asks = path.parent.name == "recipes" and node.name in ("main", "evaluate")
            if not asks and (first in NOUNS or not first[0].isupper()):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} {first}")
    assert not wrong, "\n".join(wrong)

"""The rules of the house that a machine can check: who may import whom, how long things are, what ships."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*ROOT.glob("nnheads/**/*.py"), *ROOT.glob("recipes/*.py"), ROOT / "cli.py"])
# A module may import from its own rank and below.
RANKS = [
    {
        "nnheads.errors",
        "nnheads.models.families",
        "nnheads.prompts.ioi_words",
        "nnheads.stats.logistic",
        "nnheads.remote.jobs",
        "nnheads.remote.server",
        "nnheads.remote.ledger",
        "nnheads.remote.endpoint",
    },
    {"nnheads.models.loading", "nnheads.models.load", "nnheads.reference", "nnheads.runs.provenance"},
    {"nnheads.trace.blocks", "nnheads.trace.rows", "nnheads.trace.readout", "nnheads.trace.spans"},
    {"nnheads.prompts", "nnheads.models.inputs", "nnheads.stats", "nnheads.plot", "nnheads.runs.folder", "nnheads.runs.find"},
    {
        "nnheads.runs.batches",
        "nnheads.models.answers",
        "nnheads.writing.logit_lens",
        "nnheads.spans.measure",
        "nnheads.spans.pattern_match",
        "nnheads.generation.greedy",
        "nnheads.detectors._stimulus",
        "nnheads.generation.prefixes",
    },
    {
        "nnheads.detectors",
        "nnheads.patching",
        "nnheads.interventions",
        "nnheads.truth",
        "nnheads.trace.writes",
        "nnheads.writing.logit_attribution",
        "nnheads.writing.copy_score",
        "nnheads.writing.succession",
        "nnheads.trace.composition",
        "nnheads.writing.composition",
    },
    {"nnheads.detectors._detect", "nnheads.patching.roles"},
    {"nnheads.compare.drift", "nnheads.interchange", "nnheads.claims", "nnheads.compare.repeat"},
    {"nnheads.compare.entries"},
    {"nnheads.compare.stability", "nnheads.compare.atlas", "nnheads.page"},
    {"recipes"},
    {"cli"},
]
SHIPPED = (
    "heads",
    "readout",
    "rows",
    "spans",
    "patching/sites",
    "patching/sweep",
    "patching/carry",
    "patching/backward",
    "interventions/apply",
    "interventions/decode",
    "interventions/operations",
    "truth/reading",
    "writes",
    "factors",
)


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def rank_of(module: str) -> int | None:
    """The rank of a module: that of its longest listed prefix."""
    listed = [
        (len(name), rank) for rank, names in enumerate(RANKS) for name in names if f"{module}.".startswith(f"{name}.")
    ]
    return max(listed)[1] if listed else None


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_point_downwards(path):
    own = rank_of(name_of(path))
    if name_of(path) == "nnheads":
        return  # the front door imports lazily and may name everything
    assert own is not None, f"{name_of(path)} has no rank: say in test_house.py where it belongs"
    for module in imports(path):
        rank = rank_of(module)
        assert rank is None or rank <= own, f"{name_of(path)} imports {module}, which stands above it"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_files_and_functions_stay_short(path):
    text = path.read_text()
    assert text.count("\n") <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = node.end_lineno - node.body[0].lineno + 1
            assert length <= 60, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_annotations_are_not_evaluated(path):
    text = path.read_text()
    assert "from __future__ import annotations" in text or not re.search(r"^(def|class|import|from) ", text, re.M)


@pytest.mark.parametrize("name", SHIPPED)
def test_what_is_shipped_imports_only_torch_and_nnsight_and_wears_no_decorator(name):
    path = ROOT / "nnheads" / f"{name}.py"
    if not path.exists():
        pytest.fail(f"{name} is listed as shipped but does not exist")
    for module in imports(path):
        if module.startswith("nnheads."):
            shipped = tuple(f"nnheads.{other.replace('/', '.')}" for other in SHIPPED)
            assert module.startswith(shipped), f"{name} imports {module}, which does not travel"
        else:
            assert module.split(".")[0] in {"torch", "math", "copy", "jaxtyping", "nnsight", "__future__"}, module
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            assert not node.decorator_list, f"{node.name}: nnsight drops wrappers silently"


def test_drawing_stays_in_plot_and_typer_in_the_recipes():
    for path in SOURCES:
        used = {module.split(".")[0] for module in imports(path)}
        if name_of(path) != "nnheads.plot":
            assert not used & {"seaborn", "matplotlib"}, path
        if not name_of(path).startswith(("recipes", "cli", "nnheads.runs.batches")):
            assert not used & {"typer", "rich"}, path


def test_importing_nnheads_is_light():
    code = "import sys, nnheads; print({'torch', 'transformers', 'xarray', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "set()"


def test_public_names_resolve():
    import nnheads

    # a module of the same name would take the place of the function once it is imported
    assert not {name for name in nnheads.__all__ if (ROOT / "nnheads" / f"{name}.py").exists()}
    for name in nnheads.__all__:
        assert getattr(nnheads, name) is not None
    with pytest.raises(AttributeError, match="no_such_thing"):
        nnheads.no_such_thing  # noqa: B018

"""Every notebook runs from top to bottom on the reference model, and its two forms say the same."""

from __future__ import annotations

import sys
from pathlib import Path

import jupytext
import nbformat
import pytest
from documents import DOCS, script
from nnheads.recipes import recipes

NOTEBOOKS = sorted((DOCS.parent / "notebooks").glob("*.py"))
# jupyter's own dependencies warn; nothing of ours runs in this process.
pytestmark = pytest.mark.filterwarnings("ignore")


def test_every_command_has_a_notebook_and_none_stands_in_for_a_module_of_python():
    named = {"look": "inspect"}
    assert {named.get(path.stem, path.stem) for path in NOTEBOOKS} == {
        name.replace("-", "_") for name in recipes()
    }
    assert not {path.stem for path in NOTEBOOKS} & set(sys.stdlib_module_names)


# What a notebook shows is drawn as users see it, what its commands only save as in other tests.
COARSE = """
import pathlib, sys
if {tests!r} not in sys.path:
    sys.path.append({tests!r})
    import nnheads.plot, pictures
    nnheads.plot.render = pictures.once(pathlib.Path({drawn!r}))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run a notebook in a folder; one kernel does for all."""
    runner, drawn = script("notebooks"), tmp_path_factory.mktemp("pictures")
    before = COARSE.format(tests=str(Path(__file__).parent), drawn=str(drawn))
    with runner.kernel() as manager:
        yield lambda path, folder: runner.executed(path, folder, manager, before)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, run, tmp_path):
    notebook = run(path, tmp_path)
    assert all(
        cell.get("outputs") is not None for cell in notebook.cells if cell.cell_type == "code"
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_ipynb_holds_the_same_cells(path):
    ours = [(cell.cell_type, cell.source) for cell in jupytext.read(path).cells]
    theirs = [
        (cell.cell_type, cell.source)
        for cell in nbformat.read(path.with_suffix(".ipynb"), as_version=4).cells
    ]
    assert ours == theirs


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_ipynb_shows_results_and_no_machine(path):
    cells = [
        cell
        for cell in nbformat.read(path.with_suffix(".ipynb"), as_version=4).cells
        if cell.cell_type == "code"
    ]
    outputs = [output for cell in cells for output in cell.outputs]
    shown = {kind for output in outputs for kind in output.get("data", {})}
    assert shown & {"image/png", "text/html"}, "neither a picture nor a table"
    assert not [output for output in outputs if output.get("name") == "stderr"], (
        "warnings name folders"
    )
    assert "site-packages" not in path.with_suffix(".ipynb").read_text(encoding="utf-8")

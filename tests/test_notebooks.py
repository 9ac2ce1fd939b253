"""Every notebook runs from top to bottom on the reference model, and its two forms say the same."""

from __future__ import annotations

from pathlib import Path

import jupytext
import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.py"))
# jupyter's own dependencies warn; nothing of ours runs in this process.
pytestmark = pytest.mark.filterwarnings("ignore")


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path):
    from nbclient import NotebookClient

    notebook = jupytext.read(path)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    assert all(cell.get("outputs") is not None for cell in notebook.cells if cell.cell_type == "code")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_ipynb_holds_the_same_cells(path):
    ours = [(cell.cell_type, cell.source) for cell in jupytext.read(path).cells]
    theirs = [(cell.cell_type, cell.source) for cell in nbformat.read(path.with_suffix(".ipynb"), as_version=4).cells]
    assert ours == theirs


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_ipynb_shows_results_and_no_machine(path):
    cells = [cell for cell in nbformat.read(path.with_suffix(".ipynb"), as_version=4).cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output.get("name") == "stderr"], "warnings name folders"
    assert "site-packages" not in path.with_suffix(".ipynb").read_text(encoding="utf-8")

"""Execute notebooks: `make notebooks` for all, `python docs/notebooks.py NAME...` for some."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import jupytext
from nbclient import NotebookClient

FOLDER = Path(__file__).parent.parent / "notebooks"


def executed(path: Path, folder: str | Path):
    """The notebook of a percent script, run from top to bottom in a folder, with `nnheads` at hand
    as a command.
    """
    notebook = jupytext.read(path)
    where = {"metadata": {"path": str(folder)}}
    search = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where)
    plain = {
        "NO_COLOR": "1",
        "COLUMNS": "120",
        "PYTHONWARNINGS": "ignore:IProgress not found",
    }  # no bars in a notebook
    plain["OMP_NUM_THREADS"] = "1"  # two threads on a busy machine wait for each other
    client.execute(env={**os.environ, "PATH": search, **plain})
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when each cell ran is of no use to a reader
    notebook.metadata.pop("language_info", None)
    return notebook


def main(names: list[str]) -> None:
    for path in [FOLDER / f"{name}.py" for name in names] or sorted(FOLDER.glob("*.py")):
        with tempfile.TemporaryDirectory() as folder:
            jupytext.write(executed(path, folder), path.with_suffix(".ipynb"), fmt="ipynb")
        print(path.stem)


if __name__ == "__main__":
    main(sys.argv[1:])

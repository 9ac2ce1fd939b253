"""Execute notebooks: `make notebooks` for all, `python docs/notebooks.py NAME...` for some.

One kernel runs them all, one after the other, each in a folder and with names of its own: what they
import is loaded once.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jupytext
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

FOLDER = Path(__file__).parent.parent / "notebooks"
AFRESH = """
import os
import matplotlib.pyplot
matplotlib.pyplot.close("all")
os.chdir({folder!r})
get_ipython().reset(new_session=True)
__import__("gc").freeze()  # what is left are libraries, which every later reset would search
"""


@contextlib.contextmanager
def kernel() -> Iterator[KernelManager]:
    """Start a kernel in which `nnheads` is at hand as a command, and stop it in the end."""
    search = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    plain = {
        "NO_COLOR": "1",
        "COLUMNS": "120",
        "PYTHONWARNINGS": "ignore:IProgress not found",  # no bars in a notebook
        "OMP_NUM_THREADS": "1",  # two threads on a busy machine wait for each other
    }
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(env={**os.environ, "PATH": search, **plain})
    try:
        yield manager
    finally:
        manager.shutdown_kernel(now=True)


def executed(path: Path, folder: str | Path, manager: KernelManager, before: str = ""):
    """Return the notebook of a percent script, run from top to bottom in a folder.

    Args:
        before: code that the kernel runs first.
    """
    notebook = jupytext.read(path)
    notebook.cells.insert(0, new_code_cell(AFRESH.format(folder=str(folder)) + before))
    client = NotebookClient(notebook, timeout=300, km=manager)
    try:
        client.execute()
    finally:
        if client.kc is not None:
            client.kc.stop_channels()
    del notebook.cells[0]
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when each cell ran is of no use to a reader
        if cell.get("execution_count"):
            cell.execution_count -= 1
    notebook.metadata.pop("language_info", None)
    return notebook


def main(names: list[str]) -> None:
    with kernel() as manager:
        for path in [FOLDER / f"{name}.py" for name in names] or sorted(FOLDER.glob("*.py")):
            with tempfile.TemporaryDirectory() as folder:
                found = executed(path, folder, manager)
            jupytext.write(found, path.with_suffix(".ipynb"), fmt="ipynb")
            print(path.stem)


if __name__ == "__main__":
    main(sys.argv[1:])

"""What is installed: one name in site-packages, whatever lies in the user's own folder."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*line: str | Path, folder: Path | None = None, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        list(map(str, line)),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **options,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of a copy of what is tracked and new, so that nothing is left in the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    listed = run("git", "ls-files", "-co", "--exclude-standard", folder=ROOT).stdout.splitlines()
    if not listed:
        pytest.skip("not a git checkout")
    for name in listed:
        if (ROOT / name).is_file() and not name.startswith(("tests", "notebooks", "docs")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    options = ("--no-deps", "--no-build-isolation", "--quiet", "-w", folder)
    built = run(sys.executable, "-m", "pip", "wheel", *options, source)
    assert built.returncode == 0, built.stderr[-2000:]
    (found,) = folder.glob("nnheads-*.whl")
    return found


def test_a_wheel_holds_nnheads_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"nnheads"}
    assert {"nnheads/py.typed", "nnheads/recipes/ioi.py"} <= set(names)
    assert "nnheads/reference/model/model.safetensors" in names
    ours = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "nnheads").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert ours <= set(names), "a package or a file of data is missing from pyproject.toml"


def test_a_command_runs_where_a_stranger_has_a_cli_of_his_own(wheel, tmp_path):
    environment, folder = tmp_path / "environment", tmp_path / "folder"
    folder.mkdir()
    for name in ("cli.py", "recipes.py"):
        (folder / name).write_text("raise SystemExit('this is not nnheads')\n")
    assert run(sys.executable, "-m", "venv", "--without-pip", environment).returncode == 0
    python = environment / "bin" / "python"
    (site,) = environment.glob("lib/python*/site-packages")
    install = (sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target", site)
    assert run(*install, wheel).returncode == 0
    lists = [path for path in sys.path if path.endswith("site-packages")]
    (site / "packages.pth").write_text("\n".join(lists) + "\n")
    code = """
import nnheads
print(nnheads.__file__)
nnheads.command("heads")
nnheads.command("ioi -n 4 -q")
"""
    done = run(python, "-P", "-c", code, folder=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    where, *printed = done.stdout.splitlines()
    assert Path(where).is_relative_to(site) and any("induction" in line for line in printed)
    assert any("kept 4 of 4" in line for line in printed)
    assert (folder / "results" / "ioi" / "reference").is_dir()
    # the folder itself is searched first where Python is not told otherwise
    done = run(
        python, "-c", "from nnheads.recipes import _app; print(_app.__file__)", folder=folder
    )
    assert done.returncode == 0 and Path(done.stdout.strip()).is_relative_to(site)

"""What `make lint` checks is part of what the tests check: style, format and types."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GATES = {
    "style": ("ruff", "check", "."),
    "format": ("ruff", "format", "--check", "."),
    "types": ("mypy",),
}


@pytest.mark.parametrize("name", GATES)
def test_the_tree_passes(name):
    done = subprocess.run(
        [sys.executable, "-m", *GATES[name]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


def test_nothing_is_kept_from_the_formatter_but_a_handful_of_tables():
    here = Path(__file__).name
    folders = ("nnheads", "recipes", "tests", "docs", "benchmarks")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    kept = [str(path) for path in files if path.name != here and "fmt: " in path.read_text()]
    assert len(kept) <= 5, kept

"""The shapes in the annotations are true: the tests of everything that traces run again with
beartype on them.

In a process of its own, because beartype has to be imported before nnsight, and without the
rehearsals, because nnsight ships source and the checks wrap it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
CODE = """
import sys
import beartype
from jaxtyping import install_import_hook
rooms = ["nnheads.trace", "nnheads.models.inputs", "nnheads.models.labels"]
install_import_hook(rooms, "beartype.beartype")
import pytest
plain = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "ignore", "--assert=plain"]
sys.exit(pytest.main([*plain, *sys.argv[1:]]))
"""
FILES = [
    "tests/trace",
    "tests/writing/test_logit_attribution.py",
    "tests/writing/test_copy_score.py",
    "tests/patching/test_path_patching.py",
    "tests/patching/test_attribution.py",
    "tests/models/test_families.py",
]
# Another text of a sweep, or a text swapped into itself, has the same shapes.
SOME = "gpt_oss and not (rehearsed or nothing or itself)"


def test_annotated_shapes_hold():
    line = [sys.executable, "-c", CODE, "-k", SOME, *FILES]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert " failed" not in done.stdout and "[100%]" in done.stdout

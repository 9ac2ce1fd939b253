"""The guide does what it says: its files, changes and commands, in its order, on a copy of the
repository.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
import warm
from documents import assert_alike

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+) ?([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
QUIET = "-p no:anyio -W ignore::pytest.PytestAssertRewriteWarning"  # libraries are loaded already
COPIED = ("nnheads", "recipes", "tests", "cli.py", "pyproject.toml")


def change(text: str, lines: list[str]) -> str:
    """Apply lines of a diff, each of which starts with a space, - or +."""
    before, after = (
        "".join(f"{line[1:]}\n" for line in lines if line[:1] in kept) for kept in (" -", " +")
    )
    assert text.count(before) == 1, f"the guide changes what is not there once:\n{before}"
    return text.replace(before, after)


def issue(lines: list[str], folder: Path) -> list[str]:
    """What commands say, one after the other; those of nnheads in one process, which spares loading
    it for each.
    """
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTEST_ADDOPTS": QUIET}
    said = []
    for own, group in itertools.groupby(lines, lambda line: line.startswith("nnheads ")):
        each = [line.removeprefix("nnheads ") for line in group]
        program = f"import nnheads\nfor line in {each!r}:\n    nnheads.command(line)\n"
        for words in [["-c", program]] if own else [shlex.split(one)[1:] for one in each]:
            done = warm.run(*words, cwd=folder, env=environment, timeout=240)
            assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
            said += [*done.stdout.splitlines(), *done.stderr.splitlines()]
    return said


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guide")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name)  # with what Python compiled of it
        else:
            shutil.copy(ROOT / name, folder)
    # where an install has it
    (folder / "nnheads" / "recipes").symlink_to(folder / "recipes", target_is_directory=True)
    return folder


def test_the_guide_from_top_to_bottom(copy):
    said: list[str] = []
    for language, name, body in BLOCK.findall(GUIDE):
        if language == "python":
            (copy / name).write_text(body, encoding="utf-8")
        elif language == "diff":
            first, *lines = body.splitlines()
            path = copy / first.removeprefix("--- ")
            path.write_text(change(path.read_text(encoding="utf-8"), lines), encoding="utf-8")
        elif language == "sh":
            said = issue(body.splitlines(), copy)
            refused = [line for line in said if "exit code" in line]
            assert len(refused) == body.count("--limit 0") and set(refused) <= {"(exit code 2)"}, (
                said
            )
            ended = [line for line in said if " passed" in line]
            assert len(ended) == body.count("pytest") and not any(
                "failed" in line for line in ended
            ), said
        elif language == "text":
            for line in body.splitlines():
                near = [one for one in said if one.split()[:1] == line.split()[:1]]
                assert near, f"{line!r} is not among:\n" + "\n".join(said)
                said = said[said.index(near[0]) + 1 :]  # lines come in their order
                assert_alike(near[0], line)


def test_a_change_that_does_not_fit_is_found_out():
    with pytest.raises(AssertionError, match="not there once"):
        change("a\nb\n", [" b", "+c", " a"])
    assert change("a\nb\n", [" a", "-b", "+c"]) == "a\nc\n"

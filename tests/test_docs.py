"""What the README says, runs; what it lists, exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from nnheads.recipes import _app as cli

from nnheads.detectors._catalog import types
from nnheads.models.families import FAMILIES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_python_in_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for code in blocks("python"):
        exec(compile("from __future__ import annotations\n" + code, "README.md", "exec"), names)
    # what the comments in the README say of the shapes
    assert names["scores"]["effect"].dims == ("batch", "layer", "head")
    assert {"mass", "mass_low", "null", "p_value", "q_value", "flag"} <= set(
        names["heads"].data_vars
    )
    assert (names["result"].edited != names["result"].original).any()


def test_results_readme_opens_what_is_shipped():
    text = (ROOT / "results" / "README.md").read_text()
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    names: dict = {}
    exec(code.replace('"results/', f'"{ROOT}/results/'), names)
    with names["heads"] as heads:
        assert heads["effect"].sizes == {"layer": 4, "head": 8} and bool(
            heads["effect"].notnull().all()
        )


def test_the_shipped_run_is_of_the_shipped_model_and_can_be_repeated(tmp_path):
    import json

    import numpy as np

    from nnheads.models.shipped import FOLDER as PATH
    from nnheads.runs import store
    from nnheads.runs.provenance import folder_fingerprint

    folder = ROOT / "results" / "ioi" / "reference" / "shipped"
    assert json.loads((folder / "run.json").read_text())["arguments"][
        "weights"
    ] == folder_fingerprint(PATH)
    with pytest.raises(SystemExit) as stop:
        cli.app(["ioi", "--output", str(tmp_path)])
    assert stop.value.code == 0
    again = store.load(tmp_path / "ioi" / "reference" / "shipped" / "heads.nc")
    np.testing.assert_allclose(
        again["effect"], store.load(folder / "heads.nc")["effect"], atol=1e-4
    )


def test_every_command_in_the_readme_exists():
    commands = [
        shlex.split(line, comments=True) for block in blocks("sh") for line in block.splitlines()
    ]
    named = [words[1] for words in commands if words[:1] == ["nnheads"] and len(words) > 1]
    assert named and set(named) <= set(cli.recipes())


def test_every_target_in_the_readme_is_in_the_makefile():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
    assert set(re.findall(r"make (demo|test|bench|lint|docs|notebooks)", README)) <= set(targets)
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_the_readme_lists_every_head_type_and_family():
    for name in [*types(), *FAMILIES]:
        assert f"`{name}`" in README, name


def test_every_link_of_the_readme_leads_somewhere():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("https://") or (ROOT / link).exists(), link

"""docs/families.md is what `make families` writes: every type is there, and what it says holds."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from nnheads.models.families import FAMILIES
from nnheads.models.proven import types

DOCS = Path(__file__).parents[1] / "docs"
SOME = ("apertus", "deepseek_v3", "gpt_oss", "mamba", "qwen3_next", "starcoder2", "whisper")


def rows() -> dict[str, str]:
    """What the page says of each type."""
    text = (DOCS / "families.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| ([\w-]+) \| (.+) \|$", text, re.MULTILINE))


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("docs_families", DOCS / "families.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_type_of_transformers_is_on_the_page():
    assert list(rows()) == types(), "make families"
    table = {kind for kind, said in rows().items() if said == "proven, in the table"}
    assert table == set(FAMILIES), "every row of the table is proven"


@pytest.mark.parametrize("kind", SOME)
def test_what_it_says_is_so(kind, script, tmp_path, monkeypatch):
    monkeypatch.setenv("NNHEADS_CACHE", str(tmp_path))
    assert script.verdict(kind) == rows()[kind], "make families"

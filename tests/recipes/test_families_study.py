"""`nnheads families` as a user issues it: the table, one proof, and a tour of all types."""

from __future__ import annotations

import functools

import commands
import pytest

from nnheads.models import proven
from nnheads.models.families import FAMILIES
from nnheads.models.proof import SAYS

command = functools.partial(commands.command, "families")
refused = functools.partial(commands.refused, "families")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setenv("NNHEADS_CACHE", str(tmp_path / "cache"))


def test_without_a_model_the_table_is_listed():
    assert command().split() == sorted(FAMILIES)


def test_a_model_and_a_type_are_proven_line_by_line():
    lines = command("reference").splitlines()
    assert lines == [
        *(f"holds  {says}" for says in SAYS.values()),
        "llama: in the table, and proven",
    ]
    assert command("olmo3").endswith("olmo3: derived from the model, and proven\n")


def test_a_line_that_does_not_hold_is_shown_and_refused():
    code, out, err = commands.issue("families", "granite_swa")
    failed = f"FAILS  {SAYS['rows_again']}\n       block 0: rows computed again"
    assert code == 2 and failed in out and out.count("FAILS") == 1
    assert err.startswith("error: model family 'granite_swa': not so: attention rows")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mamba", "model family 'mamba': no attention goes through"),
        ("gemma4_assistant", "it has no usual configuration"),
        ("owner/nothing", "no such folder here, and the Hub cannot be reached"),
        ("./nowhere", "no model folder './nowhere'"),
    ],
)
def test_what_is_no_family_is_refused_in_one_line(name, message):
    said = refused(name)
    assert said.startswith("2 ") and message in said


def test_all_types_are_said_to_be_proven_or_why_not(monkeypatch):
    monkeypatch.setattr(proven, "types", lambda: ["gemma4_assistant", "glm4", "mamba"])
    first, second, third, count = command("--all").splitlines()
    assert first.startswith("gemma4_assistant: it has no usual configuration (")
    assert second == "glm4: proven" and third.startswith("mamba: no attention goes through")
    assert count == "1 of 3 types are proven"

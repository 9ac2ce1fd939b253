"""`--quick`: fewer prompts, said in a line, in a folder that is in nobody's way."""

from __future__ import annotations

import json

import pytest
from commands import command, issue

LINES = {
    "ioi": ("ioi", "--limit 8"),
    "attribute": ("attribute", "--limit 12"),
    "das": ("das", "quick: at END alone"),
}


def record(folder) -> dict:
    (path,) = folder.rglob("run.json")
    return json.loads(path.read_text())


@pytest.mark.parametrize("name", ["ioi", "attribute", "das"])
def test_a_quick_study_says_what_is_less_and_lies_apart(name, tmp_path, capsys):
    line, said = LINES[name]
    command(*line.split(), "--quick", "-q", "-o", tmp_path)
    printed = capsys.readouterr().out
    assert printed.startswith("quick: ") and said in printed
    assert record(tmp_path / "quick")["arguments"]["limit"] in (8, 12, 32)


def test_what_was_given_stays(tmp_path, capsys):
    command("ioi", "--quick", "-n", "3", "-q", "-o", tmp_path)
    assert "quick:" not in capsys.readouterr().out
    assert record(tmp_path / "quick")["arguments"]["limit"] == 3
    command("knockout", "--heads", "L1H1", "--length", "10", "--quick", "-q", "-o", tmp_path / "k")
    assert "--top" not in capsys.readouterr().out, "a list of heads is not cut"


def test_the_whole_study_is_not_in_its_way(tmp_path, capsys):
    command("ioi", "--quick", "-n", "3", "-q", "-o", tmp_path)
    command("ioi", "-n", "4", "-q", "-o", tmp_path)
    assert len(list(tmp_path.rglob("run.json"))) == 2


def test_quick_claims_read_attention(tmp_path, capsys):
    command("verify", "--quick", "-q", "-o", tmp_path)
    printed = capsys.readouterr().out
    assert printed.startswith("quick: --only detect") and "fail" not in printed


def test_a_command_that_writes_one_file_has_no_such_option(tmp_path):
    code, _, err = issue("report", tmp_path, "--quick", "-o", tmp_path / "page.html")
    assert code == 2 and "--quick" in err and not (tmp_path / "page.html").exists()


def test_a_quick_search_for_backups_has_shorter_and_fewer_prompts(tmp_path, capsys):
    command("knockout", "--heads", "L1H1", "--quick", "--backup", "-q", "-o", tmp_path)
    assert "quick: --limit 2 --length 16 --draws 4" in capsys.readouterr().out
    kept = record(tmp_path / "quick")["arguments"]
    assert kept["limit"] == 2 and kept["length"] == 16

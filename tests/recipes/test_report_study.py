"""`nnheads report` as a user issues it."""

from __future__ import annotations

import functools
import json
import re

import commands
import pytest
from headruns import detected, planted, png, recorded
from nnheads.recipes import _app as cli

from nnheads.page import pictures
from nnheads.runs import columns

call = functools.partial(commands.issue, "report")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Runs of the shipped model: what heads write, what they change, and one inspected."""
    folder = tmp_path_factory.mktemp("runs")
    for arguments in (
        ["writes", "-n", "30"],
        ["ioi", "-n", "6"],
        ["inspect", "--head", "1.0"],
        ["ioi", "-n", "6", "--roles"],
    ):
        with pytest.raises(SystemExit) as stop:
            cli.app([*arguments, "-q", "-o", str(folder)])
        assert stop.value.code == 0
    return folder


def page_in(path) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(), re.S).group(1))


def test_one_command_makes_one_page(made, tmp_path):
    target = tmp_path / "page.html"
    code, out, err = call(str(made), "-o", str(target))
    assert (
        (code, err) == (0, "")
        and out.splitlines()[-1].startswith(str(target))
        and out.endswith(" MB)\n")
    )
    assert target.stat().st_size < 1_000_000
    assert "reference shipped: 4 x 8 heads" in out and [
        file.name for file in tmp_path.iterdir()
    ] == ["page.html"]
    page = page_in(target)
    assert page["title"] == "Heads of reference" and page["made"]["command"].startswith(
        "nnheads report"
    )
    (model,) = page["models"]
    kinds = {score["kind"]: score["group"] for score in model["scores"]}
    assert kinds["ioi"] == "effects" and kinds["writes copy"] == "writes"
    assert [list(text["patterns"]) for text in model["texts"]] == [["1.0"]]
    assert model["roles"] and {role["role"] for role in model["roles"]} <= {
        "writer",
        "s_inhibition",
        "induction",
        "name_mover",
        "backup",
        "duplicate_token",
        "previous_token",
        "negative_name_mover",
    }
    for run in page["runs"]:
        assert (
            run["command"].startswith("nnheads ")
            and run["packages"]["nnsight"]
            and run["weights"].startswith("sha256:")
        )


def test_attention_of_the_model_that_was_measured(made, tmp_path):
    own = tmp_path / "texts.txt"
    own.write_text("Mary and John went to the market\n\nMary gave the book to John\n")
    target = tmp_path / "page.html"
    code, out, _ = call(
        str(made), "-o", str(target), "--attention", "reference", "--texts", str(own)
    )
    assert code == 0 and "3 texts" in out
    texts = page_in(target)["models"][0]["texts"][1:]
    assert [text["title"] for text in texts] == ["Mary and John", "Mary gave the"]
    assert all(len(text["patterns"]) == 32 for text in texts)
    code, _, err = call(str(made), "-o", str(target), "--attention", "owner/other")
    assert code == 2 and err.startswith(
        "error: --attention owner/other: no run is of that model; there are reference"
    )


def test_attention_of_other_weights_is_refused(tmp_path):
    detected(tmp_path, "induction", planted(4, 8, (1, 0)), model="reference", revision="shipped")
    code, _, err = call(
        str(tmp_path), "-o", str(tmp_path / "page.html"), "--attention", "reference"
    )
    assert code == 2 and re.search(
        r"its weights \(sha256:\w+\) are not those of the runs$", err.strip()
    )
    assert not (tmp_path / "page.html").exists()


def test_a_page_is_made_again_and_nothing_else_is_replaced(tmp_path):
    detected(tmp_path, "induction", planted(4, 8, (1, 0)))
    recorded(tmp_path / "half", "ioi", [], complete=False)
    target = tmp_path / "page.html"
    for _ in range(2):
        code, out, _ = call(str(tmp_path), "-o", str(target), "--title", "Mine")
        assert code == 0 and "left out, not finished: half" in out
    target.write_text("notes")
    code, _, err = call(str(tmp_path), "-o", str(target))
    assert (
        code == 2
        and "exists and is no page of nnheads report" in err
        and target.read_text() == "notes"
    )
    assert call(str(tmp_path), "-o", str(target), "--overwrite")[0] == 0


def test_a_recipe_that_is_not_known_is_listed(tmp_path):
    detected(tmp_path, "induction", planted(4, 8, (1, 0)))
    recorded(tmp_path / "new", "novelty", ["table.csv"])
    assert call(str(tmp_path), "-o", str(tmp_path / "page.html"))[1].startswith(
        "2 runs, 1 with numbers by head"
    )
    listed = {run["recipe"]: run for run in page_in(tmp_path / "page.html")["runs"]}
    assert listed["novelty"]["files"] == ["table.csv"] and not listed["novelty"]["shown"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--draws", "-1"], "--draws -1 is not possible; it must be at least 0"),
        (["--top", "0"], "--top 0 is not possible; it must be at least 1"),
    ],
)
def test_counts_that_are_none_are_refused(arguments, message, tmp_path):
    detected(tmp_path, "induction", planted(4, 8, (1, 0)))
    code, _, err = call(str(tmp_path), "-o", str(tmp_path / "page.html"), *arguments)
    assert code == 2 and message in err and not (tmp_path / "page.html").exists()


def test_quick_runs_are_said_to_be(tmp_path):
    detected(tmp_path / "detect", "induction", planted(4, 8, (1, 0)))
    _, out, _ = call(str(tmp_path), "-o", str(tmp_path / "page.html"))
    assert "--quick" not in out
    detected(tmp_path / "quick" / "detect", "previous_token", planted(4, 8, (1, 0)))
    _, out, _ = call(str(tmp_path), "-o", str(tmp_path / "page.html"))
    assert "  1 are --quick runs" in out


def test_pictures_that_are_too_many_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "BUDGET", 10)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "curve.png").write_bytes(png())
    recorded(tmp_path / "run", "steer", ["curve.png"])
    _, out, _ = call(str(tmp_path), "-o", str(tmp_path / "page.html"))
    assert "left out of run: curve.png: the page has room for 1e-05 MB of pictures" in out


def test_long_texts_in_files_are_cut():
    assert (
        len(columns.text("x" * 10**6)) == columns.LONGEST
        and columns.text(None) == ""
        and columns.facts("[1]") == {}
    )

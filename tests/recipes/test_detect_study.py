"""`nnheads detect` as a user issues it: one type, all types, checkpoints, a second time."""

from __future__ import annotations

import json
import shutil

import headruns
import numpy as np
import pytest
import xarray as xr
from commands import command
from nnheads.recipes import _app as cli
from nnheads.recipes._detect_report import (
    about_map,
    best_heads,
    cases_counted,
    said_few,
    say_best,
    why_empty,
)
from nnheads.recipes.detect import map_of_heads

from nnheads.detectors._catalog import head_type, types
from nnheads.detectors._detect import calibrated
from nnheads.errors import RunError
from nnheads.runs import store


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    output = tmp_path_factory.mktemp("detect")
    command("detect", "all", "--limit", "6", "--lengths", "100,140", "--output", str(output))
    return output / "detect" / "reference" / "shipped"


def test_each_type_has_its_folder_and_its_provenance(everything):
    for name in types():
        heads = store.load(everything / name / "heads.nc")
        scores = store.load(everything / name / "scores.nc")
        assert scores[head_type(name).headline].dims[:3] == ("batch", "layer", "head")
        assert heads["flag"].dims == ("layer", "head")
        assert (
            heads.attrs["headline"] in heads
            and heads.attrs["references"]
            and heads.attrs["model"] == "reference"
        )
        assert json.loads((everything / name / "run.json").read_text())["complete"]
        assert (everything / name / "heads.png").stat().st_size > 2000
    assert (everything / "all.png").stat().st_size > 2000
    assert not (everything / "parts").exists()


def test_a_map_tells_heads_that_are_high_from_those_beyond_chance(everything):
    heads = store.load(everything / "induction" / "heads.nc")
    figure = map_of_heads("induction", heads, 6)
    patches = figure.axes[0].patches
    flags = [bool(heads["flag"].values[int(one.get_y()), int(one.get_x())]) for one in patches]
    assert [one.get_linestyle() == "-" for one in patches] == flags and len(set(flags)) == 2
    says = "Framed: the 5 highest; solid where beyond chance, dashed where not."
    assert says in figure.get_supxlabel().splitlines()


def test_the_same_command_again_computes_nothing(everything, monkeypatch, capsys):
    from nnheads.spans import measure as attention

    monkeypatch.setattr(attention, "measure_spans", lambda *_, **__: pytest.fail("measured again"))
    command(
        "detect",
        "all",
        "--limit",
        "6",
        "--lengths",
        "100,140",
        "--output",
        str(everything.parents[2]),
    )
    assert "induction" in capsys.readouterr().out


def test_what_was_measured_is_kept_when_a_later_type_fails(tmp_path, monkeypatch, capsys):
    from nnheads.detectors import _scores

    def broken(*_):
        raise RunError("the answers cannot be written")

    monkeypatch.setattr(_scores, "_of_writing", broken)
    with pytest.raises(SystemExit) as stop:
        cli.app(["detect", "all", "-n", "4", "--lengths", "100", "-q", "-o", str(tmp_path)])
    assert stop.value.code == 1 and "cannot be written" in capsys.readouterr().err
    done = {path.parent.name for path in tmp_path.rglob("heads.nc")}
    assert {"induction", "previous_token", "attention_sink"} <= done
    monkeypatch.undo()
    command("detect", "induction", "-n", "4", "-q", "-o", str(tmp_path))


def test_the_terminal_says_first_whether_the_model_does_it(everything, capsys):
    again = ("--limit", "6", "--lengths", "100,140", "--output", str(everything.parents[2]))
    command("detect", "all", *again)
    said = capsys.readouterr().out
    for kind in ("retrieval", "iteration", "indirect_object"):
        title, about = said[said.index(f"\n{kind}: ") + 1 :].splitlines()[:2]
        assert "beyond chance" in title and "strong (**" in title
        assert about.startswith("  the model gives ") and "guessing" in about
    sink = store.load(everything / "attention_sink" / "heads.nc")["flag"]
    assert ("attention_sink is left out" in said) == (int(sink.sum()) > 16)


def test_checkpoints_become_a_dimension(llama_folder, tmp_path, capsys):
    for step in ("step1", "step2"):
        shutil.copytree(llama_folder, tmp_path / "run" / step)
    options = ["--limit", "4", "--length", "12", "--output", str(tmp_path / "out")]
    command("detect", "induction", str(tmp_path / "run"), "--revision", "step1,step2", *options)
    folder = tmp_path / "out" / "detect" / "run" / "revisions" / "induction"
    joined = store.load(folder / "heads.nc")
    assert list(joined["revision"].values) == ["step1", "step2"] and joined["mass"].dims == (
        "revision",
        "layer",
        "head",
    )
    np.testing.assert_allclose(joined["mass"][0], joined["mass"][1])  # the same weights twice
    assert (
        folder / "emergence.png"
    ).exists() and "strongest head by revision" in capsys.readouterr().out


def test_a_rehearsal_gives_the_same_numbers(tmp_path):
    for number, remote in enumerate(((), ("--remote", "local"))):
        command(
            "detect",
            "induction",
            "--limit",
            "3",
            "--length",
            "20",
            "--output",
            str(tmp_path / str(number)),
            *remote,
        )
    here, there = (
        store.load(tmp_path / str(n) / "detect/reference/shipped/induction/scores.nc")
        for n in (0, 1)
    )
    np.testing.assert_allclose(here["mass"], there["mass"], atol=1e-6)


def test_a_difference_of_two_sorts_says_how_many_prompts_are_of_either():
    def said(first: int, cases: int) -> str:
        about = {"cases": cases, "cases_of_one": first, "contrast": "answered"}
        return cases_counted(xr.Dataset(attrs=about))

    assert said(12, 20) == "; 12 prompts answered, 8 not"
    assert said(6, 8).endswith(
        "; 6 prompts answered, 2 not: no head is flagged from 2 prompts (--limit)"
    )
    assert cases_counted(xr.Dataset(attrs={"cases": 8})) == ""


def test_titles_say_how_many_prompts_there_were_and_where_these_are_few(everything, capsys):
    again = ("--limit", "6", "--lengths", "100,140", "--output", str(everything.parents[2]))
    command("detect", "all", *again)
    titles = {line.partition(":")[0]: line for line in capsys.readouterr().out.splitlines()}
    few = "; few: absence of a flag says little"
    assert titles["induction"].endswith(f"; 6 prompts{few}")
    assert titles["truthfulness"].endswith(f"; 6 questions{few}")
    assert said_few({"prompts": 8}) == said_few({"questions": 16}) == ""
    assert said_few({"questions": 15}) == few


def test_heads_that_score_exactly_0_are_not_among_the_highest(everything):
    heads = store.load(everything / "retrieval" / "heads.nc")
    high = int((heads["hit"] > 0).sum())
    assert high < 32, "or this says nothing"
    assert len(best_heads(heads, 32)) == high
    assert len(map_of_heads("retrieval", heads, 6).axes[0].patches) == min(5, high)
    nothing = heads.assign(hit=heads["hit"] * 0)
    assert best_heads(nothing, 8) == []


def test_a_type_without_any_head_says_so(everything, capsys):
    heads = store.load(everything / "retrieval" / "heads.nc")
    say_best("retrieval", heads, [], [], {"prompts": 8})
    title, zero = capsys.readouterr().out.splitlines()
    assert title.endswith("[95% interval]; 8 prompts") and zero == "  0 for every head"


def test_heads_that_chance_explains_are_not_shown_as_a_finding(everything, capsys):
    heads = store.load(everything / "retrieval" / "heads.nc")
    warning = "  chance can explain every head, the highest too:"
    best = best_heads(heads, 2)
    say_best("retrieval", heads, best, [], {"prompts": 8})
    assert warning not in capsys.readouterr().out.splitlines(), "or this says nothing"
    none = heads.assign(flag=heads["flag"] * 0)
    say_best("retrieval", none, best, [], {"prompts": 8})
    title, said, *listed = capsys.readouterr().out.splitlines()
    assert said == warning and len(listed) == 2 and "0 of 32 heads beyond chance" in title


def test_a_comparison_without_both_sorts_says_how_many_there_were():
    scores = xr.Dataset({"mass": ("batch", [0.1] * 3)}, {"answered": ("batch", [1, 1, 1])})
    heads = xr.Dataset(attrs={"contrast": "answered"})
    assert why_empty(heads, scores) == "nothing to compare; 3 of 3 prompts were answered"


def test_the_map_of_all_types_says_what_colours_them_and_what_is_left_out():
    headlines = {"induction": "mass", "current_token": "mass", "retrieval": "hit"}
    common = {"attention_sink": "it flags 20 of 32 heads"}
    assert about_map(headlines, common, ["truthfulness", "hallucination"]) == [
        "Coloured by mass of induction, current_token; hit of retrieval.",
        "Left out: attention_sink, since it flags 20 of 32 heads.",
        "No head beyond chance: truthfulness, hallucination.",
    ]
    assert about_map(headlines, {}) == [
        "Coloured by mass of induction, current_token; hit of retrieval."
    ]


def test_a_type_that_compares_two_sorts_counts_them():
    scores = headruns.scores(headruns.planted(2, 3, (0, 1)), cases=12)
    sorts = ("batch", [1, 0, 0] * 4)
    about = {"headline": "mass", "contrast": "answered"}
    heads = calibrated(scores.assign_coords(answered=sorts).assign_attrs(about))
    assert heads.attrs["cases"] == 12 and heads.attrs["cases_of_one"] == 4

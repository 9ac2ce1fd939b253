"""`nnheads knockout` as a user issues it: found heads, named heads, heads of a run, and a second
time.
"""

from __future__ import annotations

import functools
import json
from types import SimpleNamespace

import commands
import numpy as np
import pytest
import xarray as xr
from nnheads.recipes import _app as cli
from nnheads.recipes._knockout import with_reference
from nnheads.recipes._knockout_report import averaged

from nnheads import plot
from nnheads.errors import BadInput
from nnheads.patching.knockout import curve
from nnheads.runs import store

command = functools.partial(commands.command, "knockout")
refused = functools.partial(commands.refused, "knockout")

QUICK = ["--limit", "8", "--draws", "3"]


def only(output, model: str = "reference/shipped", start: str = ""):
    """The one folder of knockouts whose name starts so."""
    (folder,) = (output / "knockout" / model).glob(f"{start}*")
    return folder


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the command does without any choice, on fewer prompts."""
    output = tmp_path_factory.mktemp("knockout")
    command(*QUICK, "--output", str(output))
    return only(output)


def test_without_a_list_it_knocks_out_what_the_detector_finds(found):
    reduced = store.load(found / "curve.nc")
    assert set(reduced["listed"].values) == {"L1H0", "L1H1", "L2H4"} and found.name.startswith(
        "induction-mean-"
    )
    assert (
        reduced.attrs["origin"] == "flagged by detect induction"
        and reduced.attrs["metric"] == "accuracy"
    )
    assert (
        float(reduced["accuracy"].sel(k=3)) < 0.1 < 0.9 < float(reduced["random_lowest"].sel(k=3))
    )
    np.testing.assert_allclose(reduced["p_value"].sel(k=3), 1 / 4)
    assert (
        json.loads((found / "run.json").read_text())["complete"] and not (found / "parts").exists()
    )
    assert (found / "curve.png").stat().st_size > 2000 and not (found / "heads.nc").exists()


def test_scores_are_per_case_and_reduce_to_the_curve(found):
    scores, reduced = (store.load(found / f"{name}.nc") for name in ("scores", "curve"))
    assert scores["accuracy"].dims == ("batch", "k") and scores["random_accuracy"].dims == (
        "batch",
        "k",
        "draw",
    )
    assert scores["alone"].dims == ("batch", "member") and scores["joint"].dims == ("batch",)
    for values in scores.data_vars.values():
        assert values.dtype == np.float32 and {"long_name", "units"} <= set(values.attrs)
    again = curve(scores)
    for name in ("accuracy", "accuracy_low", "random_median", "p_value"):
        np.testing.assert_allclose(again[name], reduced[name], atol=1e-6)
    assert (
        scores.attrs["model"] == "reference"
        and json.loads(scores.attrs["arguments"])["behaviour"] == "induction"
    )
    assert scores.attrs["references"].startswith("Olsson et al. 2022")


def test_the_same_command_again_computes_nothing(found, capsys, monkeypatch):
    with commands.untouched(found, monkeypatch):
        command(*QUICK, "--output", str(found.parents[3]))
    out = capsys.readouterr().out
    assert "heads L1H" in out and "kept 8 of 8 prompts" in out and "stand in for each other" in out
    assert "median [range]; p, that a random list would" in out


def test_pairs_and_backups_are_named(tmp_path, capsys, monkeypatch):
    figures = commands.pictures_in(monkeypatch)
    command("--heads", "1.0,L1H1", "--pairs", "--backup", *QUICK, "--output", str(tmp_path))
    folder, out = only(tmp_path), capsys.readouterr().out
    assert folder.name.startswith("induction-mean-pairs-backup-")
    assert "L1H0 + L1H1 " in out and "heads that step in" in out and "L2H4 " in out
    heads = store.load(folder / "heads.nc")
    assert (
        heads["growth"].dims == ("layer", "head") and int(heads["flag"].sel(layer=2, head=4)) == 1
    )
    map_of_heads = figures["heads"]
    assert "2.4" in [text.get_text() for text in map_of_heads.axes[0].texts]
    says = map_of_heads.get_supxlabel().replace("\n", " ")
    assert "help grows most (below 0); solid where they step in" in says
    assert "Blank: the heads of the list." in says
    assert "headline" not in heads.attrs and (folder / "heads.png").stat().st_size > 2000
    both = store.load(folder / "interactions.nc")
    assert both["pair_surplus"].dims == ("member", "other") and "growth" not in both


def test_numbers_do_not_depend_on_batches_or_where_they_are_computed(tmp_path):
    common = ["--heads", "1.0,2.4", "--ablation", "resample", "--metric", "log_probability", *QUICK]
    ways = ([], ["--batch-size", "3"], ["--remote", "local"])
    for number, way in enumerate(ways):
        command(*common, *way, "--output", str(tmp_path / str(number)))
    first, *rest = (
        store.load(only(tmp_path / str(number)) / "scores.nc") for number in range(len(ways))
    )
    for other in rest:
        for name in ("log_probability", "random_log_probability", "joint"):
            np.testing.assert_allclose(first[name], other[name], atol=1e-4)


def test_heads_of_a_run_are_ranked_by_its_headline_or_effect(tmp_path, capsys):
    output = ["--output", str(tmp_path)]
    for words in (["detect", "retrieval", "--limit", "10"], ["ioi", "--limit", "20"]):
        with pytest.raises(SystemExit) as stop:
            cli.app([*words, *output])
        assert stop.value.code == 0
    detected = tmp_path / "detect/reference/shipped/retrieval"
    capsys.readouterr()
    command(
        "--from",
        str(detected),
        "--behaviour",
        "retrieval",
        "--ablation",
        "uniform",
        *QUICK,
        *output,
    )
    assert "ranked by" in capsys.readouterr().out
    uniform = store.load(only(tmp_path) / "curve.nc")
    flagged = store.load(detected / "heads.nc")
    assert (
        uniform.sizes["place"] == int(flagged["flag"].sum())
        and flagged.attrs["headline"] in uniform.attrs["origin"]
    )
    assert float(uniform["accuracy"].isel(k=-1)) < 0.1
    study = tmp_path / "ioi/reference/shipped/heads.nc"
    command(
        "--from", str(study), "--top", "2", "--ks", "0,2", "--behaviour", "ioi", *QUICK, *output
    )
    effect = store.load(study)["effect"].to_series().sort_values(ascending=False)
    reduced = store.load(only(tmp_path, start="ioi-") / "curve.nc")
    assert list(reduced["listed"].values) == [
        f"L{layer}H{head}" for layer, head in effect.index[:2]
    ]
    assert list(reduced["k"].values) == [0, 2] and "indirect object" in reduced.attrs["origin"]
    assert float(reduced["logit_difference"].sel(k=2)) < 0.5 * float(
        reduced["base_logit_difference"]
    )


def test_a_file_of_pairs_is_a_behaviour(pairs_file, llama_folder, tmp_path, capsys):
    options = [
        "--behaviour",
        "pairs",
        "--prompts",
        str(pairs_file),
        "--heads",
        "0.1,2.3",
        "--at",
        "END",
        *QUICK,
    ]
    command(str(llama_folder), *options, "--output", str(tmp_path))
    out = capsys.readouterr().out
    assert (
        "prefers the answer to the wrong one; heads L0H1, L2H3 (named)" in out
        and "kept 8 of 8 prompts" in out
    )
    assert store.load(only(tmp_path, f"{llama_folder.name}/local") / "curve.nc").sizes["k"] == 3


def test_what_a_model_does_not_do_cannot_be_lost(llama_folder, tmp_path, capsys):
    command(
        str(llama_folder), "--heads", "0.1", "--length", "20", *QUICK, "--output", str(tmp_path)
    )
    assert "there is little to lose" in capsys.readouterr().out


def test_a_model_without_such_heads_is_one_line(llama_folder, tmp_path):
    said = refused(str(llama_folder), "--length", "20", *QUICK, "--output", str(tmp_path))
    assert said.startswith(
        "1 error: detect induction flags no head of tiny-llama; name some with --heads or --from"
    )


def test_a_run_of_which_no_head_is_beyond_chance_asks_for_a_number(tmp_path):
    dims = ("layer", "head")
    table = xr.Dataset(
        {"mass": (dims, np.eye(2, dtype="float32")), "flag": (dims, np.zeros((2, 2), "int8"))},
        {"layer": [0, 1], "head": [0, 1]},
        {"headline": "mass"},
    )
    store.save(tmp_path / "heads.nc", table)
    assert "no head of" in refused("--from", str(tmp_path), "--output", str(tmp_path / "out"))
    assert "--top 5 is more than the 4 heads" in refused("--from", str(tmp_path), "--top", "5")
    assert not (tmp_path / "out").exists()


def test_the_picture_shows_the_list_every_random_list_and_their_median(found):
    reduced = store.load(found / "curve.nc")
    (axes,) = plot.against_random(reduced, "accuracy", title="t").axes
    curves = [line for line in axes.lines if len(line.get_xdata()) == reduced.sizes["k"]]
    assert (
        len(curves) == 3 + 2
        and axes.get_ylabel() == "accuracy [1]"
        and axes.get_xlabel() == "heads knocked out"
    )
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "1", "2", "3"]
    first = axes.get_legend().get_texts()[0].get_text().replace("\n", " ")
    assert "3 random lists of the same layers" in first
    (alone,) = plot.against_random(
        reduced.drop_dims("draw").drop_vars("random_median"), "accuracy", title="t"
    ).axes
    assert len(alone.get_legend().get_texts()) == 2


def test_a_plan_says_what_it_would_cost_and_runs_nothing(tmp_path, capsys, monkeypatch):
    from nnheads.patching import readings as run

    monkeypatch.setattr(run, "sweep", lambda *_, **__: pytest.fail("a plan ran"))
    for ablation in ("mean", "uniform"):
        options = [
            "--heads",
            "1.0,1.1",
            "--backup",
            "--batch-size",
            "6",
            "--plan",
            "--ablation",
            ablation,
            *QUICK,
        ]
        command(*options, "--output", str(tmp_path))
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "8 prompts in 2 batches of at most 6; each batch:"
        assert lines[1] == "knockout:" and "one by one" in lines[2] and "interactions:" in lines
        assert any(line.startswith("63 swaps") for line in lines), (
            "one joint, two alone, thirty before and after"
        )
    assert not list(tmp_path.iterdir())


def test_one_prompt_alone_has_no_interval_and_no_verdict(tmp_path, capsys):
    options = [
        "--heads",
        "1.0,1.1",
        "--ablation",
        "zero",
        "--limit",
        "1",
        "--draws",
        "2",
        "--backup",
    ]
    command(*options, "--output", str(tmp_path))
    out = capsys.readouterr().out
    assert (
        "one prompt cannot say whether the parts add up" in out
        and "there is little to lose" not in out
    )
    assert "no other head can be shown to step in" in out and "nan" not in out


def test_a_prompt_that_no_other_can_stand_in_for_is_refused(tmp_path, capsys):
    place = ("batch", "position")
    alone = xr.Dataset({"token": (place, [[5, 6, 7]]), "mask": (place, [[1, 1, 1]])})
    with pytest.raises(BadInput, match="none of 1 prompts has another of its length"):
        with_reference(SimpleNamespace(ablation="mean"), alone, alone)
    assert with_reference(SimpleNamespace(ablation="zero"), alone, alone).sizes["batch"] == 1


def test_one_prompt_takes_means_over_others_that_are_not_asked(tmp_path, capsys):
    options = ("--heads", "1.0,1.1", "--limit", "1", "--length", "12", "--draws", "0")
    command(*options, "--output", str(tmp_path))
    out = capsys.readouterr().out
    assert "kept 1 of 1 prompts" in out and "template and position; 47 of them\n" in out
    assert averaged(5) == "; 5 of them, so few that the mean harms by itself"
    assert averaged(None) == "", "of an ablation without a mean, or an earlier run"

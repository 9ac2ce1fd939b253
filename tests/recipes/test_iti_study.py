"""`nnheads iti` as a user issues it: fit, evaluate, generate, bake, export, and an edit taken
elsewhere.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import commands
import numpy as np
import pytest
import torch
import xarray as xr
from nnheads.recipes import _app as cli

from nnheads.interventions import ALL
from nnheads.interventions.files import load
from nnheads.prompts import world
from nnheads.prompts.truth import read_questions
from nnheads.truth import crossval
from nnheads.truth.directions import fitted_on, question_ids
from nnheads.truth.iti import heads_of

command = functools.partial(commands.command, "iti")

ONE = ("--alpha", "1", "--heads", "8")
FEW = ("-n", "120", "--draws", "2", "--samples", "4", "--new-tokens", "3")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("iti"))


@pytest.fixture(scope="module")
def fitted(place) -> tuple[str, Path]:
    out = command("fit", "--alpha", "1,4", "--heads", "4,8", "-o", place)
    return out, Path(place) / "iti" / "reference" / "shipped" / "fit"


@pytest.fixture(scope="module")
def evaluated(place) -> tuple[str, Path]:
    out = command("evaluate", *ONE, *FEW, "-o", place)
    return out, Path(place) / "iti" / "reference" / "shipped" / "evaluate"


def test_truth_becomes_likelier_by_more_than_chance(evaluated):
    out, folder = evaluated
    with xr.open_dataset(folder / "summary.nc") as table:
        edit, none = table.sel(kind="edit"), table.sel(kind="none")
        assert float(edit["mc1_low"]) > 0.9 and float(none["mc1_high"]) < 0.35
        for kind in ("none", "random_direction", "random_heads"):
            assert float(edit["mc1_low"]) > float(table["mc1_high"].sel(kind=kind))
            assert (
                float(table["mc1_gain_low"].sel(kind=kind)) > 0.3
                and float(table["mc1_p"].sel(kind=kind)) < 0.001
            )
        assert 0.005 < float(edit["kl"]) < 0.05 and float(none["kl"]) == 0
        assert 0 < float(edit["cross_entropy"] - none["cross_entropy"]) < 0.1
    for said in (
        "MC1\n",
        "random_heads",
        "on neutral texts",
        "cross-entropy",
        "fold 1: 8 heads, 1 standard deviations",
    ):
        assert said in out
    assert "4 answers, edit:" in out and "what is the" in out


def test_the_files_hold_what_was_measured(evaluated):
    _, folder = evaluated
    with (
        xr.open_dataset(folder / "scores.nc") as scores,
        xr.open_dataset(folder / "samples.nc") as samples,
    ):
        assert scores.sizes["question"] == 120 and scores.sizes["condition"] == 6
        assert json.loads(scores.attrs["settings"]) == [{"alpha": 1.0, "heads": 8}] * 2
        assert "2306.03341" in scores.attrs["references"] and scores.attrs["reached"] == 1
        assert scores["mc1"].dtype == np.float32 and scores["mc1"].attrs["long_name"]
        assert dict(samples.sizes) == {"condition": 2, "sample": 4}
        texts = [question.question for question in read_questions("reference")[0]]
        tested = [texts.index(text) for text in samples["question_text"].values.tolist()]
        assert sum(number < 60 for number in tested) == 2, "as many of one fold as of the other"
    assert (folder / "heads.png").stat().st_size > 2000 and not (folder / "parts").exists()
    assert not (folder / "grid.nc").exists(), "nothing was chosen"


def test_the_same_command_again_computes_nothing(evaluated, place, monkeypatch):
    monkeypatch.setattr(crossval, "evaluate", None)
    out = command("evaluate", *ONE, *FEW, "-o", place)
    assert out == evaluated[0]


def test_a_fit_chooses_on_validation_questions_and_leaves_the_test_ones_alone(fitted):
    out, folder = fitted
    change = load(folder / "intervention")
    texts = [question.question for question in read_questions("reference")[0]]
    assert set(fitted_on(change).tolist()) == set(question_ids(texts[100:]).tolist())
    with (
        xr.open_dataset(folder / "grid.nc") as grid,
        xr.open_dataset(folder / "directions.nc") as found,
    ):
        assert dict(grid["mc1"].sizes) == {"alpha": 2, "heads": 2} and "kl_high" in grid
        assert (found.attrs["alpha"], found.attrs["heads"]) == (1.0, 8)
        for one in change.edits:
            sigma, theta = (
                found["sigma"].sel(layer=one.layer),
                found["direction"].sel(layer=one.layer),
            )
            wanted = (sigma * theta).sel(head=list(one.units)).values.ravel()
            np.testing.assert_allclose(change.tensors[one.do.value], wanted, rtol=1e-6)
            assert (one.do.scale, one.at) == (1.0, ALL)
    assert (
        len(heads_of(change)) == 8
        and "fold 0: 8 heads, 1 standard deviations along mass_mean, scope all" in out
    )
    assert (folder / "heads.png").exists() and "the edit takes 3." in out
    assert out.splitlines()[-1].endswith("fit/intervention")


def test_generation_shows_both(fitted, place):
    out = command("generate", "--new-tokens", "2", "-o", place)
    assert out.count("  without  ") == out.count("  with     ") == 8
    answers = {question.question: question for question in read_questions("reference")[0]}
    lines, right = out.splitlines()[1:], []
    for asked, without, with_edit in zip(lines[::3], lines[1::3], lines[2::3]):
        true = answers[asked.strip("'")].true[0]
        right.append((true in without, true in with_edit))
    assert sum(one for _, one in right) >= 7 > sum(one for one, _ in right) + 2
    own = command(
        "generate", "--prompt", "what is the colour of Varnia ?", "--new-tokens", "1", "-o", place
    )
    assert "without  'purple'" in own and "with     'violet'" in own


def test_baking_and_what_it_does_that_writing_alone_does_not(fitted, place):
    from transformers import AutoModelForCausalLM

    from nnheads.interventions.apply import run
    from nnheads.models.load import load as load_model

    out = command("bake", "-n", "60", "-o", place)
    folder = Path(place) / "iti" / "reference" / "shipped"
    [made] = folder.glob("bake-*")
    record = json.loads((made / "run.json").read_text())
    assert record["difference"] < 1e-4 < 1 < record["moved"]
    assert "module" not in (made / "run.json").read_text(), "only what was asked is recorded"
    scopes = record["scopes"]
    assert scopes["all"]["true"] > 0.9 > 0.5 > scopes["none"]["true"] == scopes["decode"]["true"]
    assert (
        "comes too late for every answer" in scopes["decode"]["mc1"] and scopes["all"]["mc1"] > 0.9
    )
    assert "decode    MC1 not possible" in out and out.splitlines()[-1].endswith("checkpoint")
    plain = AutoModelForCausalLM.from_pretrained(made / "checkpoint")
    model = load_model("reference")
    ids = model.tokenizer("what is the colour of Varnia ?", return_tensors="pt")["input_ids"]
    place_of = ("batch", "position")
    prompts = xr.Dataset(
        {"token": (place_of, ids), "mask": (place_of, torch.ones_like(ids))}, {"batch": [0]}
    )
    with torch.no_grad():
        live = run(model, load(folder / "fit" / "intervention"), prompts, original=False).edited
        assert torch.allclose(plain(ids).logits, live, atol=1e-4)
    assert command("bake", "-n", "60", "-o", place) == out
    saved = (
        "--intervention",
        str(folder / "fit" / "intervention"),
        "--to",
        str(Path(place) / "elsewhere"),
    )
    again = command("bake", "-n", "60", *saved, "-o", str(Path(place) / "other"))
    assert (
        again.splitlines()[-1].endswith("elsewhere")
        and (Path(place) / "elsewhere" / "config.json").exists()
    )


def test_an_edit_is_exported_and_tested_elsewhere(fitted, place, tmp_path):
    out = command("export", "--to", str(tmp_path / "edit"), "-o", place)
    assert "8 heads, fitted on 100 questions, 3." in out
    assert load(tmp_path / "edit") == load(fitted[1] / "intervention")
    questions = read_questions("reference")[0][:24]
    rows = [
        {"question": one.question, "true": one.true, "false": one.false, "best": one.best}
        for one in questions
    ]
    data = tmp_path / "others.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    options = (
        "--intervention",
        str(tmp_path / "edit"),
        "--template",
        "{question} {answer}",
        "--draws",
        "1",
    )
    out = command(
        "evaluate",
        "--data",
        str(data),
        *options,
        "--samples",
        "2",
        "--new-tokens",
        "2",
        "-o",
        place,
    )
    assert "24 questions, each tested with an edit that has not seen it" in out
    [folder] = (fitted[1].parent).glob("transfer-*")
    with xr.open_dataset(folder / "summary.nc") as table:
        assert float(table["mc1"].sel(kind="edit")) > float(table["mc1"].sel(kind="none")) + 0.4
        assert table.attrs["guarded"] == 1
    asked = ("--prompt", "what is the colour of Varnia ?", "--new-tokens", "1", "--remote", "local")
    remote = command("generate", "--intervention", str(tmp_path / "edit"), *asked)
    assert "with     'violet'" in remote


def test_what_is_made_can_be_pushed(fitted, place, tmp_path, monkeypatch):
    from nnheads.interventions import files
    from nnheads.truth import bake

    asked = []

    def push(folder, repository, *, private):
        asked.append((sorted(path.name for path in Path(folder).iterdir()), repository, private))
        return f"https://huggingface.co/{repository}"

    monkeypatch.setattr(files, "push", push)
    monkeypatch.setattr(bake, "push", push)
    out = command(
        "export", "--to", str(tmp_path / "edit"), "--push", "me/edit", "--private", "-o", place
    )
    assert out.splitlines()[-1] == "https://huggingface.co/me/edit"
    out = command("bake", "-n", "60", "--push", "me/baked", "-o", place)
    assert out.splitlines()[-1] == "https://huggingface.co/me/baked"
    assert asked[0] == (["intervention.json", "tensors.safetensors"], "me/edit", True)
    assert {"config.json", "model.safetensors", "README.md"} <= set(asked[1][0]) and asked[1][
        1:
    ] == ("me/baked", False)


def test_an_edit_is_refused_on_its_own_questions(fitted, place, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.app(
            [
                "iti",
                "evaluate",
                "--intervention",
                str(fitted[1] / "intervention"),
                "-o",
                place,
                "--overwrite",
            ]
        )
    out, err = capsys.readouterr()
    assert (stop.value.code, out) == (
        1,
        "",
    ) and "100 of 200 test questions gave the edit its direction" in err


def test_answers_that_were_left_out_are_counted_on_the_terminal(tmp_path, capsys):
    asked = [
        {"question": q.text, "true": [q.true], "false": [q.misconception, *q.others]}
        for q in world.questions()[:24]
    ]
    asked[0]["false"].append(asked[0]["true"][0])
    asked[0]["true"].append(asked[1]["true"][0])
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in asked))
    template = ("--template", "{question} {answer}")
    out = command("fit", *ONE, "--data", str(path), *template, "-o", str(tmp_path / "out"))
    assert out.splitlines()[0] == "answers both true and false, left out: 1"
    again = command("fit", *ONE, "--data", str(path), *template, "-o", str(tmp_path / "out"))
    assert again == out, "a run that is taken up says it too"


@pytest.mark.parametrize("scope", ["last", "decode", "answer"])
def test_scopes_that_come_too_late_for_these_answers_are_refused(scope, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.app(["iti", "evaluate", "--scope", scope, "-o", str(tmp_path)])
    out, err = capsys.readouterr()
    assert (stop.value.code, out) == (2, "") and "comes too late for every answer" in err


def test_the_cost_can_be_asked_for(tmp_path):
    out = command("evaluate", "--plan", "-n", "40", "-o", str(tmp_path))
    assert "statements and texts to read" in out and "MB of head outputs" in out
    assert not list(tmp_path.iterdir())


def test_a_judge_is_asked_about_the_answers(place, tmp_path, monkeypatch):
    from endpoint import serving

    body = json.dumps({"choices": [{"text": " yes"}]}).encode()
    options = (
        "-n",
        "20",
        *ONE,
        "--draws",
        "0",
        "--samples",
        "2",
        "--new-tokens",
        "1",
        "-o",
        str(tmp_path),
    )
    with serving(monkeypatch, body=body) as endpoint:
        out = command("evaluate", *options, "--judge", "openai:one", "--info-judge", "openai:two")
    assert (
        len(endpoint.asked) == 8 and "100% judged true, 100% judged informative, 100% both" in out
    )
    assert {asked["model"] for _, _, asked in endpoint.asked} == {"one", "two"}
    assert "random_heads" not in out

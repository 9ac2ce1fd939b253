"""`nnheads steer` as a user issues it: what is printed and saved, own files, and interventions that
were saved.
"""

from __future__ import annotations

import functools
import json
import sys

import commands
import numpy as np
import pytest
import torch
import xarray as xr
from commands import folder_of
from nnheads.recipes._steer import NEUTRAL, own_world
from nnheads.recipes._steer_report import strengths_in, verdict
from nnheads.recipes._steer_run import shaded

from nnheads.interventions import ANSWER, Add, Edit, Function, Intervention, Zero
from nnheads.interventions import steering as strengths
from nnheads.interventions import steering_directions as directions
from nnheads.interventions.files import load, save
from nnheads.prompts import world

command = functools.partial(commands.command, "steer")

WRITE = ("--prompt", "Mary and John", "--new-tokens", "2")
SMALL = ("--new-tokens", "3", "--strength", "2", "--draws", "3")


@pytest.fixture(scope="module")
def steered(tmp_path_factory):
    """The study on the reference model, once: what it printed, and its folder."""
    return commands.study(tmp_path_factory, "steer", *SMALL)


def test_steered_toward_truth_the_model_answers_truly(steered):
    out, folder = steered
    answers = {
        question.text: (question.misconception, question.true) for question in world.questions()
    }
    with xr.open_dataset(folder / "scores.nc") as scores:
        first = [[str(text).split()[0] for text in row] for row in scores["written"].values]
        asked = [answers[str(text)] for text in scores["prompt_text"].values]
        assert scores["strength"].values.tolist() == [0, 2]
        assert sum(word == popular for word, (popular, _) in zip(first[0], asked)) >= 7, (
            "unsteered it repeats mistakes"
        )
        assert sum(word == true for word, (_, true) in zip(first[1], asked)) >= 7
    with xr.open_dataset(folder / "curve.nc") as curve:
        assert (
            float(curve["effect_low"].sel(strength=2)) > 0
            and float(curve["effect"].sel(strength=0)) == 0
        )
        one = curve.sel(strength=2)
        assert float(one["random_lowest"]) < float(one["random"]) < float(one["random_highest"])
        assert float(one["random"]) < float(one["effect"])
        table = out[out.index("  strength") :].splitlines()
        line = next(line for line in table if line.startswith("  2 "))
        ends = [
            f"{float(one[name]):+.3f}" for name in ("random", "random_lowest", "random_highest")
        ]
        assert f"{ends[0]} [{ends[1]}, {ends[2]}]" in line
        assert 0 < float(curve["kl"].sel(strength=2)) < 0.5
        assert curve.attrs["layer"] in (1, 2)
    assert "in nats per token [95% interval; of random: lowest and highest of 3 draws]" in out
    assert "layers  separability" in out and "the direction's norm is" in out
    assert "direction read at every position, added at every position" in out
    assert "  steered" in out and "effect: log odds of texts toward against away" in out


def test_its_picture_says_what_the_ends_of_lines_are(steered):
    assert shaded(True).endswith("of random directions, the lowest and the highest draw")
    assert shaded(False) == "the 95% interval of each line"


def test_the_verdict_names_strengths_beyond_zero_and_beyond_every_random_direction(steered):
    out, folder = steered
    with xr.open_dataset(folder / "curve.nc") as curve:
        assert verdict(curve) in out.splitlines()
    columns = {
        "effect": [0.0, 0.5, 0.9, -0.8, 0.5],
        "effect_low": [0.0, 0.2, 0.8, -0.9, -0.1],
        "effect_high": [0.0, 0.8, 1.0, -0.7, 0.9],
        "random_lowest": [0.0, -0.6, -0.1, -0.1, -0.1],
        "random_highest": [0.0, 0.6, 0.1, 0.1, 0.1],
    }
    curve = xr.Dataset(
        {name: ("strength", values) for name, values in columns.items()},
        {"strength": [0.0, 1.0, 2.0, -4.0, 8.0]},
    )
    assert verdict(curve) == (
        "surely, and more than with any random direction: texts toward become likelier at strength"
        " 2; texts away become likelier at strength -4"
    )
    nothing = curve.isel(strength=[0, 1, 4])  # within random directions, or not surely
    assert verdict(nothing).startswith("at no strength is the effect surely more")
    assert strengths_in(curve, curve["effect"] > 0) == "strengths 1, 2, 8"


def test_the_files_hold_what_was_measured(steered):
    _, folder = steered
    found = load(folder / "intervention")
    with (
        xr.open_dataset(folder / "directions.nc") as table,
        xr.open_dataset(folder / "scores.nc") as scores,
    ):
        vector = table["direction"].sel(layer=found.edits[0].layer)
        np.testing.assert_array_equal(found.tensors["direction"], vector)
        assert found.edits[0].do == Add("direction", scale=1.0)
        assert dict(scores.sizes) == {
            "strength": 2,
            "prompt": 8,
            "neutral": 16,
            "text": 32,
            "draw": 3,
        }
        assert json.loads(scores.attrs["arguments"])["strength"] == [0.0, 2.0]
        assert "2310.06824" in scores.attrs["references"]
        for name in ("surprisal", "projection", "kl", "change"):
            assert (
                scores[name].attrs["units"]
                and scores[name].attrs["long_name"]
                and scores[name].dtype == np.float32
            )
    for picture in ("curve.png", "cost.png"):
        assert (folder / picture).stat().st_size > 2000
    assert not (folder / "parts").exists()


def test_the_same_command_again_computes_nothing(steered, monkeypatch):
    out, folder = steered
    monkeypatch.setattr(strengths, "sweep", None)
    assert command(*SMALL, "-o", str(folder.parents[3])) == out


def test_what_was_saved_steers_again(steered, tmp_path):
    _, folder = steered
    out = command(*SMALL, "--intervention", str(folder / "intervention"), "-o", str(tmp_path))
    assert not (folder_of(out) / "directions.nc").exists() and "projection" not in out
    with (
        xr.open_dataset(folder / "scores.nc") as first,
        xr.open_dataset(folder_of(out) / "scores.nc") as again,
    ):
        np.testing.assert_allclose(first["kl"], again["kl"], atol=1e-6)
        assert first["written"].values.tolist() == again["written"].values.tolist()


def test_own_texts_on_an_own_model(tmp_path, llama_folder):
    files = {
        "toward": [
            f"{name} and Mary went to the market" for name in ("John", "Anna", "Paul", "Leo")
        ],
        "away": [f"the code of {name} is 4 ." for name in ("John", "Anna", "Paul", "Leo", "Mary")],
        "prompts": ["Mary and", "the code of John is"],
        "neutral": ["input : 3 4 5", "what is the code of Mary ?"],
    }
    named = []
    for name, lines in files.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        named += [f"--{name}", str(tmp_path / name)]
    arguments = (
        str(llama_folder),
        *named,
        "--layer",
        "1",
        "--site",
        "z",
        "--read",
        "end",
        "--at",
        "decode",
        *SMALL,
    )
    out = command(*arguments, "--temperature", "2", "-o", str(tmp_path / "out"))
    edit = load(folder_of(out) / "intervention").edits[0]
    assert (edit.site, edit.layer, edit.at) == ("z", 1, ANSWER)
    with xr.open_dataset(folder_of(out) / "scores.nc") as scores:
        words = [[str(text).split()[0] for text in row] for row in scores["written"].values]
        assert words[0] == words[1], "the first token is written before anything is added"
        assert (
            scores["neutral_text"].values.tolist() == files["neutral"] and scores.sizes["text"] == 4
        )


def test_an_intervention_without_strength_is_compared_with_none(tmp_path, llama_folder):
    place = save(Intervention(Edit("z", Zero(), layer=1)), tmp_path / "no heads")
    arguments = (
        llama_folder,
        *WRITE,
        "-o",
        str(tmp_path / "out"),
    )
    out = command(*arguments, "--intervention", str(place))
    with xr.open_dataset(folder_of(out) / "scores.nc") as scores:
        assert scores["strength"].values.tolist() == [0, 1] and "change" not in scores
        assert scores["neutral_text"].values.tolist() == list(NEUTRAL)
        assert (scores["kl"].sel(strength=1) > 0).all()
    assert "effect" not in out


def test_a_function_of_ones_own_runs_only_if_it_is_trusted(tmp_path, monkeypatch, llama_folder):
    module = tmp_path / "code" / "trusted_by_steer.py"
    module.parent.mkdir()
    module.write_text("IMPORTED = True\n\n\ndef doubled(base):\n    return 2 * base\n")
    monkeypatch.syspath_prepend(str(module.parent))
    place = save(
        Intervention(Edit("z", Function("trusted_by_steer:doubled"), layer=1)), tmp_path / "double"
    )
    arguments = (
        llama_folder,
        *WRITE,
        "--intervention",
        str(place),
    )
    said = commands.refused("steer", *arguments, "-o", tmp_path / "out")
    assert said.startswith("2 ") and "trusted_by_steer:doubled" in said and "--trust" in said
    assert "trusted_by_steer" not in sys.modules
    out = command(*arguments, "--trust", "-o", str(tmp_path / "out"))
    with xr.open_dataset(folder_of(out) / "scores.nc") as scores:
        assert (
            scores["strength"].values.tolist() == [0, 1]
            and (scores["kl"].sel(strength=1) > 0).all()
        )
    module.write_text(module.read_text().replace("2 *", "3 *"))
    said = commands.refused("steer", *arguments, "--trust", "-o", tmp_path / "out")
    assert "its source has changed" in said


def test_a_rehearsed_remote_run_says_the_same(tmp_path, llama_folder):
    added = Intervention(
        Edit("resid_post", Add("v", scale=0.5), layer=0), tensors={"v": torch.ones(48)}
    )
    (tmp_path / "neutral").write_text("input : 3 4 5\n")
    arguments = (
        llama_folder,
        *WRITE,
        "--strength",
        "3",
    )
    arguments += (
        "--intervention",
        str(save(added, tmp_path / "v")),
        "--neutral",
        str(tmp_path / "neutral"),
    )
    here = command(*arguments, "-o", str(tmp_path / "here"))
    there = command(*arguments, "--remote", "local", "-o", str(tmp_path / "there"))
    with xr.open_dataset(folder_of(here) / "scores.nc") as scores:
        assert scores["strength"].values.tolist() == [0, 3] and (scores["kl"][1] > 0).all()
    assert here.splitlines()[:-4] == there.splitlines()[:-4]


def test_the_texts_of_the_reference_do_not_give_its_prompts_away():
    found = own_world(5)
    assert {name: len(texts) for name, texts in found.items()} == {
        "toward": 32,
        "away": 32,
        "prompts": 8,
        "neutral": 16,
    }
    said = " ".join([*found["toward"], *found["away"]])
    assert not [text for text in found["prompts"] if text in said]
    assert own_world(5) == found != own_world(6)
    held = ~directions.halves(32, 0)
    assert held.sum() == 16

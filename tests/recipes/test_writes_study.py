"""`nnheads writes` as a user issues it: every kind, what is printed, what is in the files, words of
one's own.
"""

from __future__ import annotations

import functools
import json
from types import SimpleNamespace

import commands
import numpy as np
import pytest
import xarray as xr
from nnheads.recipes._writes import KINDS
from nnheads.recipes.writes import draw

import nnheads
from nnheads.runs import store
from nnheads.writing import copy_score as copying
from nnheads.writing.composition import composition_scores
from nnheads.writing.word_outputs import single_tokens

command = functools.partial(commands.command, "writes")

COPIERS = ("L1H0", "L1H1", "L2H4")  # planted in the shipped model


def test_copying_heads_are_named_with_interval_and_mark(tmp_path):
    out = command("-o", str(tmp_path), "--top", "3", "-n", "60", "--batch-size", "25")
    lines = [line.split() for line in out.splitlines() if line.startswith("  L")]
    assert {line[0] for line in lines[:3]} == set(COPIERS)
    assert all(line[-1] == "*" and float(line[1]) > 0.9 for line in lines[:3])
    assert all(float(line[1]) > 0 for line in lines), "heads that score nothing rank nowhere"
    folder = tmp_path / "writes" / "reference" / "shipped" / "copy"
    with (
        xr.open_dataset(folder / "scores.nc") as scores,
        xr.open_dataset(folder / "heads.nc") as heads,
    ):
        assert scores.sizes == {"batch": 60, "layer": 4, "head": 8}
        np.testing.assert_allclose(heads["copy"], scores["copy"].mean("batch"), atol=1e-6)
        model = nnheads.load("reference")
        whole = copying.word_scores(model, single_tokens(model.tokenizer, copying.NAMES)[:60])
        for name in ("copy", "negative_null", "rank"):  # three slices are the whole
            np.testing.assert_allclose(scores[name], whole[name], atol=1e-6)
        assert (
            json.loads(heads.attrs["arguments"])["kind"] == "copy"
            and "2211.00593" in heads.attrs["references"]
        )
        assert heads["copy"].attrs["units"] == "1" and heads.attrs["tokens"] == 60
    assert (folder / "heads.png").stat().st_size > 2000 and not (folder / "parts").exists()


@pytest.mark.parametrize(
    ("kind", "names"), [("copy", ("copy", "negative")), ("suppression", ("suppression", "lowest"))]
)
def test_the_picture_shows_both_signs(kind, names):
    """A head that raises every word and one that lowers every word stand at the two ends."""
    values = np.array([[1.0, 0.0, 0.0, 0.0]])
    data = {names[0]: values, names[1]: values[:, ::-1], f"{names[0]}_null": np.full((1, 4), 0.5)}
    opposite = data["negative"] if kind == "copy" else data["suppression_null"]
    dims = ("layer", "head")
    heads = xr.Dataset({name: (dims, one) for name, one in data.items()})
    shown = KINDS[kind].drawn(heads)
    np.testing.assert_allclose(shown, values - opposite)
    assert KINDS[kind].signed and float(shown.min()) < 0 < float(shown.max())
    assert "minus" in shown.attrs["long_name"] and shown.attrs["units"] == "1"


def test_a_head_that_is_high_by_two_statistics_is_framed_once(monkeypatch, tmp_path):
    command("--kind", "suppression", "-o", str(tmp_path), "-n", "20")
    folder = tmp_path / "writes" / "reference" / "shipped" / "suppression"
    framed = []

    def kept(values, **options):
        framed.append(options)

    monkeypatch.setattr("nnheads.plot.heatmap", kept)
    heads = store.load(folder / "heads.nc")
    draw(SimpleNamespace(picture=lambda name, figure: None), heads, KINDS["suppression"], 20)
    (options,) = framed
    places = [(head["layer"], head["head"]) for head in options["marked"]]
    assert len(places) == len(set(places)) and options["signed"]
    assert "those beyond chance" in options["framed"]


def test_the_same_command_again_computes_nothing(tmp_path, monkeypatch):
    arguments = ("-o", str(tmp_path), "-n", "10")
    first = command(*arguments)
    monkeypatch.setattr(copying, "outputs", None)
    assert command(*arguments) == first


def test_successors_in_words_of_ones_own(tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("Mary\nJohn\nAnna\nPaul\n")
    out = command("--kind", "successor", "--words", str(words), "-o", str(tmp_path))
    assert out.startswith(
        "successor: share of tokens: the next token is ranked above all others of its class"
    )
    with xr.open_dataset(tmp_path / "writes/reference/shipped/successor/scores.nc") as scores:
        assert scores["token_text"].values.tolist() == ["Mary", "John", "Anna"]
        assert scores["successor_text"].values.tolist() == ["John", "Anna", "Paul"]


def test_suppression_says_both_of_its_scores(tmp_path):
    out = command(
        "--kind",
        "suppression",
        "-n",
        "40",
        "--seed",
        "2",
        "-o",
        str(tmp_path),
        "--top",
        "2",
    )
    assert "\nlowest: " in out and out.startswith("suppression: ")
    with xr.open_dataset(tmp_path / "writes/reference/shipped/suppression/heads.nc") as heads:
        assert heads.attrs["seed"] == 2 and heads.attrs["tokens"] == 40
        assert float(heads["suppression"].sel(layer=1, head=0)) < 0.1, "the induction heads copy"


def test_coupling_draws_sentences_and_names_the_copiers(tmp_path):
    out = command("--kind", "coupling", "-n", "30", "--top", "3", "-o", str(tmp_path))
    named = [line.split()[0] for line in out.splitlines() if line.startswith("  L")]
    assert set(named[:3]) == set(COPIERS)
    with xr.open_dataset(tmp_path / "writes/reference/shipped/coupling/scores.nc") as scores:
        assert {"attention", "write", "indirect_object"} <= set(scores.variables) and scores.sizes[
            "batch"
        ] == 30


def test_composition_names_pairs_beside_random_heads(tmp_path):
    out = command("--kind", "composition", "--top", "2", "-o", str(tmp_path))
    lines = out.splitlines()
    assert lines[0].startswith("composition through k; random heads 0.088")
    assert {tuple(line.split()[:3]) for line in lines[2:4]} == {
        ("L0H0", "->", "L1H0"),
        ("L0H0", "->", "L1H1"),
    }
    with xr.open_dataset(tmp_path / "writes/reference/shipped/composition-k/scores.nc") as scores:
        values = [
            scores["composition"].values[a, :, b].ravel() for a in range(4) for b in range(a + 1, 4)
        ]
        share = (np.concatenate(values) > float(scores["null_high"])).mean()
        assert 0.05 < share < 0.95
        assert (
            lines[1]
            == f"{share:.0%} of all 384 pairs are above that, so it is no finding by itself; the"
            " strongest:"
        )
        again = composition_scores(nnheads.load("reference"), "k")
        np.testing.assert_allclose(scores["composition"], again["composition"], atol=1e-6)


@pytest.mark.parametrize("kind", ["copy", "successor", "suppression", "coupling", "composition"])
def test_rehearsed_remotely_every_kind_says_the_same(kind, tmp_path):
    arguments = ("--kind", kind, "-n", "6", "--top", "3")
    here = command(*arguments, "-o", str(tmp_path / "here")).splitlines()
    there = command(*arguments, "--remote", "local", "-o", str(tmp_path / "there")).splitlines()
    assert here[:-3] == there[:-3]

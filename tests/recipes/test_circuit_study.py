"""The circuit study on the shipped model: an independent recomputation, every way to name a
circuit, resuming.
"""

from __future__ import annotations

import contextlib
import functools
import json

import commands
import numpy as np
import oracle
import pytest
import torch
import xarray as xr
from nnheads.recipes import _app as cli

import nnheads
from nnheads.models.inputs import inputs
from nnheads.models.names import parse_head
from nnheads.runs import store

command = functools.partial(commands.command, "circuit")

SMALL = ("--limit", "15", "--subsets", "3", "--greedy", "1", "--quiet")
# where completeness and minimality are not looked at
BRIEF = (*SMALL, "--subsets", "1", "--greedy", "0")


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory):
    """One run of the command that ranks the heads itself."""
    output = tmp_path_factory.mktemp("results")
    command(*SMALL, "--top", "6", "--output", str(output))
    return output / "circuit" / "reference" / "shipped"


def test_files_open_and_say_where_they_are_from(run_folder):
    for name in ("scores", "circuit", "heads"):
        with xr.open_dataset(run_folder / f"{name}.nc") as data:
            assert data.attrs["model"] == "reference" and data.attrs["ablation"] == "mean"
            assert "MLPs" in data.attrs["unit"] and data.attrs["cases"] == 15
            assert json.loads(data.attrs["arguments"])["top"] == 6
            for variable in data.data_vars.values():
                assert "long_name" in variable.attrs and "units" in variable.attrs, variable.name
    for name in ("curve", "curve_log"):
        assert (run_folder / f"{name}.png").stat().st_size > 2000
    assert not list(run_folder.glob("**/.*")) and not (run_folder / "parts").exists()


def test_heads_say_what_they_were_ranked_by(run_folder):
    heads, found = store.load(run_folder / "heads.nc"), store.load(run_folder / "circuit.nc")
    inside = heads["in_circuit"].values.astype(bool)
    ranking = np.abs(heads["ranking"].values)
    assert inside.sum() == 6 and ranking[inside].min() >= ranking[~inside].max()
    assert heads["minimality"].notnull().values.tolist() == inside.tolist()
    assert sorted(heads["minimality"].values[inside]) == pytest.approx(
        sorted(found["minimality"].values)
    )
    assert inside[0, 1], "without this head the shipped model does not do the task"
    assert int(found["heads"][-1]) == 32 and float(found["curve"][-1]) == 1.0


def test_the_circuit_alone_equals_plain_hooks(run_folder, reference):
    """Every head outside it at its mean over fresh names, per template and position, with hooks and
    no nnsight.
    """
    scores = store.load(run_folder / "scores.nc")
    circuit = {parse_head(name) for name in scores.attrs["circuit"].split()}
    prompts = nnheads.ioi(reference.tokenizer, 15, seed=0)
    fresh = nnheads.ioi(reference.tokenizer, 100, seed=2, corruption="abc")
    width = prompts.sizes["position"]
    module, others = reference._module, inputs(reference, fresh, "corrupted")
    same = prompts["template"].values[:, None] == fresh["template"].values[None]
    weights = torch.from_numpy(same / same.sum(1, keepdims=True)).float()
    assert (same.sum(1) == 5).all() and width <= fresh.sizes["position"]
    means = {}
    for layer in range(4):
        z = oracle.value_at(module, "llama", others, layer, "z")
        means[layer] = torch.einsum("cr,rpw->cpw", weights, z[:, -width:])
    with contextlib.ExitStack() as stack:
        for layer, mean in means.items():
            outside = [head for head in range(8) if (layer, head) not in circuit]

            def exchange(value, mean=mean, outside=outside):
                value, shape = value.clone(), (*value.shape[:2], 8, -1)
                value.view(shape)[:, :, outside] = mean.view(shape)[:, :, outside]
                return value

            stack.enter_context(oracle.hooked(module, "llama", layer, "z", exchange))
        answers = torch.from_numpy(np.stack([prompts["answer"], prompts["wrong"]], 1)).long()
        own = oracle.end_logits(module, inputs(reference, prompts)).gather(-1, answers)
    np.testing.assert_allclose(scores["circuit"], own[:, 0] - own[:, 1], atol=1e-4)
    found = store.load(run_folder / "circuit.nc")
    ratio = scores["circuit"].values.mean() / scores["model"].values.mean()
    assert float(found["faithfulness"]) == pytest.approx(ratio, abs=1e-5)


def test_the_same_command_again_computes_nothing(run_folder, capsys, monkeypatch):
    with commands.untouched(run_folder, monkeypatch):
        command(*SMALL, "--top", "6", "--output", str(run_folder.parents[2]))
    out = capsys.readouterr().out
    for text in (
        "circuit: 6 of 32 heads, 15 prompts",
        "faithfulness F(C)/F(M):",
        "K = ",
        "minimality",
        "CPR",
    ):
        assert text in out


def test_named_groups_are_the_circuit_in_a_rehearsal_too(tmp_path, run_folder, capsys):
    named = "names: 0.1, L0H2; late: 2.2,2.6; other: 1.0"
    found = []
    for number, remote in enumerate(((), ("--remote", "local"))):
        command(
            *SMALL,
            "--heads",
            named,
            "--output",
            str(tmp_path / str(number)),
            *remote,
            "--limit",
            "6",
        )
        found.append(
            store.load(tmp_path / str(number) / "circuit" / "reference" / "shipped" / "circuit.nc")
        )
    here, there = found
    assert here.attrs["circuit"] == "L0H1 L0H2 L1H0 L2H2 L2H6"
    assert list(here["cut_heads"].values[:4]) == ["nothing", "L0H1 L0H2", "L2H2 L2H6", "L1H0"]
    np.testing.assert_allclose(here["incompleteness"], there["incompleteness"], atol=1e-4)
    assert "circuit: 5 of 32 heads" in capsys.readouterr().out


def test_heads_ranked_by_another_run(tmp_path, run_folder):
    command(
        *BRIEF,
        "--from",
        str(run_folder),
        "--statistic",
        "ranking",
        "--top",
        "6",
        "--output",
        str(tmp_path),
    )
    again = store.load(tmp_path / "circuit" / "reference" / "shipped" / "circuit.nc")
    before = store.load(run_folder / "circuit.nc")
    np.testing.assert_allclose(again["curve"], before["curve"], atol=1e-5)
    assert again.attrs["circuit"] == before.attrs["circuit"]
    file = run_folder / "heads.nc"
    options = ("--statistic", "ranking", "--signed", "--ablation", "zero", "--overwrite")
    command(
        *BRIEF,
        "--from",
        str(file),
        *options,
        "--top",
        "6",
        "--output",
        str(tmp_path),
        "--limit",
        "4",
    )
    helpful = store.load(tmp_path / "circuit" / "reference" / "shipped" / "heads.nc")
    assert float(helpful["ranking"].where(helpful["in_circuit"] == 1).min()) > 0


def test_pairs_of_ones_own(tmp_path, pairs_file):
    """Prompts of one length are each other's mean set, unless another file is."""
    options = ("--heads", "0.1,2.2", "--prompts", str(pairs_file), "--ablation", "mean")
    command(*BRIEF, *options, "--output", str(tmp_path / "a"))
    command(*BRIEF, *options, "--mean-set", str(pairs_file), "--output", str(tmp_path / "b"))
    one, other = (
        store.load(tmp_path / name / "circuit" / "reference" / "shipped" / "scores.nc")
        for name in ("a", "b")
    )
    assert one.sizes["batch"] == 15 and list(one["answer_text"].values[:2]) == ["Mary", "John"]
    np.testing.assert_allclose(one["model"], other["model"])
    assert np.abs(one["circuit"] - other["circuit"]).max() > 1e-4, (
        "the file has one pair more than --limit"
    )


@pytest.mark.parametrize("ablation", ["mean", "resample"])
def test_own_prompts_without_others_of_their_length_are_refused(
    tmp_path, pairs_file, ablation, capsys
):
    """Their own values in their place would ablate nothing, and the empty circuit would be a great
    one.
    """
    lines = pairs_file.read_text().splitlines()
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text("\n".join([*lines[:4], lines[4].replace("the book", "the old book")]) + "\n")
    options = [*SMALL, "--heads", "0.1", "--prompts", str(mixed), "--output", str(tmp_path)]
    said = (
        "1 of 5 prompts have no other of their template and length in {}, so there is nothing to"
        " put in for a head; give such with --mean-set, or --ablation corrupted, zero or uniform"
    )
    for more, where in ([], "them"), (["--mean-set", str(pairs_file)], "the mean set"):
        with pytest.raises(SystemExit) as stop:
            cli.app(["circuit", *options, "--ablation", ablation, *more])
        assert stop.value.code == 2
        assert said.format(where) in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "circuit").exists()
    command(*options, "--ablation", "corrupted")


def test_heads_against_the_answer_are_named_beside_what_helpers_would_do(tmp_path, capsys):
    command(*BRIEF, "--top", "10", "--output", str(tmp_path / "size"))
    by_size = capsys.readouterr().out
    assert "against the answer, by the ranking: L2H4" in by_size
    command(*BRIEF, "--top", "10", "--signed", "--output", str(tmp_path / "signed"))
    signed = capsys.readouterr().out
    assert "against the answer" not in signed and "(--signed)" not in signed
    size, helpers = (
        store.load(tmp_path / name / "circuit" / "reference" / "shipped" / "circuit.nc")
        for name in ("size", "signed")
    )
    assert float(size["helpers"]) == pytest.approx(float(helpers["faithfulness"]), abs=1e-5)
    assert f"the 10 heads that help most (--signed): {float(size['helpers']):.3f} [" in by_size


def test_one_prompt_has_no_interval(tmp_path, capsys, monkeypatch):
    figures = commands.pictures_in(monkeypatch)
    command(
        "--limit",
        "1",
        "--subsets",
        "1",
        "--greedy",
        "0",
        "--heads",
        "0.1",
        "--output",
        str(tmp_path),
    )
    out = capsys.readouterr().out
    assert "no interval: one prompt" in out and "nan" not in out
    drawn = figures["curve"].axes[0].lines[0].get_xdata()
    assert min(drawn) * 32 >= 1, "a share of less than one head is no circuit"

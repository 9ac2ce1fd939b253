"""The attribution study on the shipped model: estimates, exact effects of the top, an audit that
tells the truth.
"""

from __future__ import annotations

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
from nnheads import plot, stats
from nnheads.models.inputs import inputs
from nnheads.patching import screening
from nnheads.runs import store
from nnheads.trace import gradients as backward
from nnheads.trace import sweep

command = functools.partial(commands.command, "attribute")

LIMIT, TOP, SAMPLE = 30, 8, 12


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """One run of the command as a user would issue it."""
    output = tmp_path_factory.mktemp("results")
    command(
        "--limit", str(LIMIT), "--top", str(TOP), "--audit", str(SAMPLE), "--output", str(output)
    )
    return output / "attribute" / "reference" / "shipped"


@pytest.fixture(scope="session")
def truth(reference):
    """The exact change of every head, (batch, layer, head)."""
    scores = nnheads.patch(reference, nnheads.ioi(reference.tokenizer, LIMIT, seed=0))
    return scores["logit_difference"] - scores["corrupted_logit_difference"]


def test_files_open_and_say_where_they_are_from(study):
    for name in ("scores", "heads"):
        with xr.open_dataset(study / f"{name}.nc") as data:
            assert data.attrs["model"] == "reference" and data.attrs["method"] == "atp*"
            assert json.loads(data.attrs["arguments"])["top"] == TOP
            for variable in data.data_vars.values():
                assert variable.attrs["long_name"] and variable.attrs["units"]
    assert all((study / f"{name}.png").stat().st_size > 2000 for name in ("heads", "exact"))
    assert not list(study.glob("**/.*")) and not (study / "parts").exists()


def test_what_was_patched_equals_the_whole_sweep_and_plain_hooks(study, truth, reference):
    with (
        xr.open_dataset(study / "scores.nc") as scores,
        xr.open_dataset(study / "heads.nc") as heads,
    ):
        patched = heads["chosen"] > 0
        assert int(patched.sum()) == TOP + SAMPLE
        np.testing.assert_allclose(scores["change"], truth.where(patched), atol=1e-4)
        prompts = nnheads.ioi(reference.tokenizer, LIMIT, seed=0)
        layer, head = (int(index) for index in np.argwhere(heads["chosen"].values == 1)[0])
        base, donor = inputs(reference, prompts, "corrupted"), inputs(reference, prompts)
        where = torch.ones(LIMIT, prompts.sizes["position"], 8, dtype=torch.bool) & (
            torch.arange(8) == head
        )
        answers = torch.from_numpy(np.stack([prompts["answer"], prompts["wrong"]], 1)).long()
        logits = oracle.patched_logits(
            reference._module, "llama", base, donor, layer, "z", where
        ).gather(-1, answers)
        expected = (
            logits[:, 0]
            - logits[:, 1]
            - torch.from_numpy(scores["corrupted_logit_difference"].values)
        )
        np.testing.assert_allclose(
            scores["change"].sel(layer=layer, head=head), expected, atol=1e-3
        )


def test_effects_are_ratios_of_means(study):
    with (
        xr.open_dataset(study / "scores.nc") as scores,
        xr.open_dataset(study / "heads.nc") as heads,
    ):
        gap = (scores["clean_logit_difference"] - scores["corrupted_logit_difference"]).mean(
            "batch"
        )
        np.testing.assert_allclose(
            heads["estimate"], scores["estimate"].mean("batch") / gap, atol=1e-5
        )
        np.testing.assert_allclose(
            heads["effect"], scores["change"].mean("batch", skipna=False) / gap, atol=1e-5
        )
        inside = (heads["effect_low"] <= heads["effect"]) & (
            heads["effect"] <= heads["effect_high"]
        )
        assert bool((inside | heads["effect"].isnull()).all())


def test_the_audit_does_not_promise_too_much(study, truth):
    """The heads that really go beyond the threshold, from the whole sweep, are no more than the
    bound.
    """
    with xr.open_dataset(study / "heads.nc") as heads:
        beyond = (abs(truth).mean("batch") > heads["threshold"] + 1e-4) & (heads["chosen"] != 1)
        assert int(heads["missed"]) <= int(beyond.sum()) <= int(heads["missed_most"])
        assert float(heads["chosen"].sel(layer=0, head=1)) == 1, (
            "the strongest head of all is found"
        )


def test_estimates_rank_heads_as_the_sweep_does(reference, truth):
    """Queries and keys only with their attention recomputed: the first order loses them where
    attention is sharp.
    """
    prompts = nnheads.ioi(reference.tokenizer, LIMIT, seed=0)
    found = {}
    for site in ("z", "q", "k"):
        exact = nnheads.patch(reference, prompts, site=site)
        size = (
            abs(exact["logit_difference"] - exact["corrupted_logit_difference"])
            .mean("batch")
            .values.ravel()
        )
        for method in ("atp", "atp*"):
            estimated = screening.estimate(reference, prompts, method=method, site=site)[
                "size"
            ].mean("batch")
            found[site, method] = stats.spearman(estimated.values.ravel(), size)
    assert min(found["z", "atp"], found["z", "atp*"]) > 0.85
    assert min(found["q", "atp*"], found["k", "atp*"]) > 0.95
    assert max(found["q", "atp"], found["k", "atp"]) < 0.9


def test_the_same_command_again_computes_nothing_and_names_what_was_missed(
    study, capsys, monkeypatch
):
    for module, name in ((backward, "attribute"), (sweep, "record")):
        monkeypatch.setattr(
            module, name, lambda *_, **__: pytest.fail("a finished run was computed again")
        )
    command(
        "--limit",
        str(LIMIT),
        "--top",
        str(TOP),
        "--audit",
        str(SAMPLE),
        "--output",
        str(study.parents[2]),
    )
    said = capsys.readouterr().out
    assert f"exact effect of the top {TOP} by atp*, denoising" in said and "L0H1" in said
    assert (
        f"{SAMPLE} of the {32 - TOP} other heads, {SAMPLE // 2} next and " in said
        and "with 95% confidence" in said
    )
    with xr.open_dataset(study / "heads.nc") as heads:
        assert ("patched though below the cut" in said) == (int(heads["missed"]) > 0)
    order = f"rank correlation of estimated and exact size, {TOP + SAMPLE} patched heads: +"
    assert order in said and "not of sizes" not in said


def test_a_run_that_was_stopped_while_patching_keeps_its_estimates(tmp_path, monkeypatch, capsys):
    arguments = ("--limit", "6", "--top", "3", "--audit", "0", "--output", str(tmp_path))
    real = screening.verify
    monkeypatch.setattr(
        screening, "verify", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(SystemExit):
        cli.app(["attribute", *arguments])
    monkeypatch.setattr(screening, "verify", real)
    monkeypatch.setattr(backward, "attribute", lambda *_, **__: pytest.fail("estimated again"))
    command(*arguments)
    assert "none of the 29 other heads was patched" in capsys.readouterr().out


def test_other_methods_sites_and_directions_have_folders_of_their_own(tmp_path, capsys):
    few = ("--limit", "6", "--top", "3", "--output", str(tmp_path))
    command("--method", "direct", *few)
    command("--site", "k", "--noising", "--audit", "99", *few)
    said = capsys.readouterr().out
    assert "by direct" in said and "KV" in said and "all 13 others: " in said
    folder = tmp_path / "attribute" / "reference" / "shipped"
    assert store.load(folder / "direct-z" / "heads.nc").attrs["site"] == "z"
    keys = store.load(folder / "atp-star-k" / "heads.nc")
    assert keys["effect"].dims == ("layer", "kv_head") and keys.attrs["direction"] == "noising"
    assert int(keys["missed"]) == int(keys["missed_most"])


def test_rehearsed_remotely_gives_the_same_numbers(tmp_path):
    folders = []
    for number, remote in enumerate(((), ("--remote", "local"))):
        command("--limit", "6", "--audit", "4", "--output", str(tmp_path / str(number)), *remote)
        folders.append(tmp_path / str(number) / "attribute" / "reference" / "shipped")
    here, there = (store.load(folder / "scores.nc") for folder in folders)
    for name in ("estimate", "size", "change"):
        np.testing.assert_allclose(here[name], there[name], atol=1e-4)


def test_pairs_from_a_file(pairs_file, tmp_path, capsys):
    command(
        "--prompts",
        str(pairs_file),
        "--limit",
        "8",
        "--top",
        "2",
        "--audit",
        "2",
        "--output",
        str(tmp_path),
    )
    assert "of 16 prompts (dropped: 8 beyond --limit" in capsys.readouterr().out


def test_the_picture_names_the_kinds_and_leaves_the_rest_as_dots():
    grid = xr.DataArray(
        np.arange(4.0).reshape(2, 2), dims=("layer", "head"), attrs={"long_name": "a", "units": "1"}
    )
    grid = grid.assign_coords(layer=[3, 4], head=[0, 1])
    first, second = grid == 3, grid == 1
    figure = plot.against(
        grid, grid * 2, {"top": first, "missed": second}, grid == 0, title="t", note="n"
    )
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["4.1", "3.1"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "others",
        "top",
        "missed",
    ]
    assert axes.get_xlabel() == "a [1]" and axes.get_title() == "t"

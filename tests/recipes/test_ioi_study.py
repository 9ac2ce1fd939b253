"""The indirect-object study on the shipped model: an independent recomputation, causal sanity,
every option.
"""

from __future__ import annotations

import json

import numpy as np
import oracle
import pytest
import torch
import xarray as xr
from commands import command, issue, untouched

import nnheads
from nnheads.models.inputs import inputs
from nnheads.runs import store


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory):
    """One run of the command as a user would issue it."""
    output = tmp_path_factory.mktemp("results")
    command("ioi", "--limit", "40", "--output", str(output))
    return output / "ioi" / "reference" / "shipped"


def difference(module, given: dict, answers: torch.Tensor) -> torch.Tensor:
    own = oracle.end_logits(module, given).gather(-1, answers)
    return own[:, 0] - own[:, 1]


def test_files_open_and_say_where_they_are_from(run_folder):
    for name in ("scores", "heads"):
        with xr.open_dataset(run_folder / f"{name}.nc") as data:
            assert data.attrs["model"] == "reference" and data.attrs["seed"] == 0
            assert json.loads(data.attrs["arguments"])["corruption"] == "other"
            assert len(data["effect"].to_dataframe()) == data["effect"].size
    assert (run_folder / "heads.png").stat().st_size > 2000
    assert not list(run_folder.glob("**/.*")) and not (run_folder / "parts").exists()


def test_every_effect_equals_plain_hooks(run_folder, reference):
    """All heads of all kept sentences again: one full forward per head with PyTorch hooks, no
    nnsight.
    """
    module = reference._module
    with xr.open_dataset(run_folder / "scores.nc") as scores:
        prompts = nnheads.ioi(reference.tokenizer, 40, seed=0).sel(batch=scores["batch"].values)
        base, donor = inputs(reference, prompts, "corrupted"), inputs(reference, prompts)
        answers = torch.from_numpy(np.stack([prompts["answer"], prompts["wrong"]], 1)).long()
        clean, corrupted = difference(module, donor, answers), difference(module, base, answers)
        sizes = nnheads.geometry(reference)
        everywhere = torch.ones(len(answers), prompts.sizes["position"], 1, dtype=torch.bool)
        for layer in range(sizes.layers):
            for head in range(sizes.heads):
                where = everywhere & (torch.arange(sizes.heads) == head)
                logits = oracle.patched_logits(
                    module, "llama", base, donor, layer, "z", where
                ).gather(-1, answers)
                effect = (logits[:, 0] - logits[:, 1] - corrupted) / (clean - corrupted)
                np.testing.assert_allclose(
                    scores["effect"].sel(layer=layer, head=head), effect, atol=1e-4
                )


def test_the_ratio_of_means_is_what_it_says(run_folder):
    with (
        xr.open_dataset(run_folder / "scores.nc") as scores,
        xr.open_dataset(run_folder / "heads.nc") as heads,
    ):
        change = (scores["logit_difference"] - scores["corrupted_logit_difference"]).mean("batch")
        gap = (scores["clean_logit_difference"] - scores["corrupted_logit_difference"]).mean(
            "batch"
        )
        np.testing.assert_allclose(heads["effect"], change / gap, atol=1e-5)
        np.testing.assert_allclose(
            heads["effect_mean_of_ratios"], scores["effect"].mean("batch"), atol=1e-5
        )
        assert bool(
            (heads["effect_low"] <= heads["effect"]).all()
            and (heads["effect"] <= heads["effect_high"]).all()
        )


def test_knocking_out_the_top_heads_hurts_more_than_any_random_triple(run_folder, reference):
    """Zero the three heads of largest effect, and 20 random triples from the same layers, with
    plain hooks.
    """
    module = reference._module
    heads = store.load(run_folder / "heads.nc")
    found = [(one["layer"], one["head"]) for one in nnheads_top(heads)]
    prompts = nnheads.ioi(reference.tokenizer, 40, seed=7)
    given = inputs(reference, prompts)
    answers = torch.from_numpy(np.stack([prompts["answer"], prompts["wrong"]], 1)).long()

    def without(cut: list[tuple[int, int]]) -> float:
        import contextlib

        def zero(chosen):
            def change(z):
                z = z.clone()
                z.view(*z.shape[:-1], 8, -1)[:, :, chosen] = 0
                return z

            return change

        with contextlib.ExitStack() as stack:
            for layer in {layer for layer, _ in cut}:
                chosen = [head for own, head in cut if own == layer]
                stack.enter_context(oracle.hooked(module, "llama", layer, "z", zero(chosen)))
            return float(difference(module, given, answers).mean())

    generator = np.random.default_rng(0)
    random: list[float] = []
    while len(random) < 20:
        triple = [(layer, int(generator.integers(8))) for layer, _ in found]
        if len(set(triple)) == 3 and not set(triple) & set(found):
            random.append(without(triple))
    assert without(found) < min(random)
    assert without([]) > 5


def nnheads_top(heads: xr.Dataset) -> list[dict]:
    from nnheads.stats import top_heads

    return top_heads(heads, "effect", 3)


@pytest.mark.parametrize("corruption", ["random", "abc", "swapped"])
def test_every_corruption_runs(corruption, tmp_path, capsys):
    command(
        "ioi",
        "--limit",
        "12",
        "--corruption",
        corruption,
        "--gap",
        "0.5",
        "--output",
        str(tmp_path),
    )
    assert "kept" in capsys.readouterr().out


def test_noising_chosen_layers_and_rehearsal_agree(tmp_path):
    folders = []
    for number, remote in enumerate(((), ("--remote", "local"))):
        output = tmp_path / str(number)
        command(
            "ioi", "--limit", "10", "--noising", "--layers", "1-2", "--output", str(output), *remote
        )
        folders.append(output / "ioi" / "reference" / "shipped")
    here, there = (store.load(folder / "scores.nc") for folder in folders)
    assert list(here["layer"].values) == [1, 2] and here.attrs["direction"] == "noising"
    np.testing.assert_allclose(here["effect"], there["effect"], atol=1e-5)


def test_the_same_command_again_computes_nothing(run_folder, capsys, monkeypatch):
    with untouched(run_folder, monkeypatch):
        command("ioi", "--limit", "40", "--output", str(run_folder.parents[2]))
    assert "for the answer" in capsys.readouterr().out


def test_sentences_from_a_file_give_the_same_numbers(run_folder, reference, tmp_path):
    prompts = nnheads.ioi(reference.tokenizer, 40, seed=0)
    names = {
        "clean": "clean_text",
        "corrupted": "corrupted_text",
        "answer": "answer_text",
        "wrong": "wrong_text",
    }
    lines = [
        {
            **{key: str(prompts[name].values[i]) for key, name in names.items()},
            "corrupted_answer": str(prompts["wrong_text"].values[i]),
        }
        for i in range(40)
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    command(
        "ioi",
        "--prompts",
        str(tmp_path / "pairs.jsonl"),
        "--limit",
        "40",
        "--output",
        str(tmp_path),
    )
    ours = store.load(tmp_path / "ioi" / "reference" / "shipped" / "heads.nc")
    np.testing.assert_allclose(
        ours["effect"], store.load(run_folder / "heads.nc")["effect"], atol=1e-5
    )


def test_other_sites_have_folders_of_their_own_and_their_own_units(tmp_path, capsys):
    command("ioi", "--limit", "10", "--site", "z,v,pattern", "--output", str(tmp_path))
    folder = tmp_path / "ioi" / "reference" / "shipped"
    printed = capsys.readouterr().out
    assert "L0KV0" in printed and "values, denoising" in printed and "attention weights" in printed
    z, v, pattern = (store.load(folder / name / "scores.nc") for name in ("", "v", "pattern"))
    assert v["effect"].dims == ("batch", "layer", "kv_head") and v.sizes["kv_head"] == 4
    assert pattern["effect"].dims == z["effect"].dims == ("batch", "layer", "head")
    assert float(abs(pattern["effect"] - z["effect"]).max()) > 0.1, (
        "what is looked at is not what is moved"
    )
    assert (folder / "v" / "heads.png").stat().st_size > 2000 and v.attrs["site"] == "v"


def test_a_plan_says_what_it_would_cost_and_runs_nothing(tmp_path, capsys, monkeypatch):
    from nnheads.patching import readings as run

    monkeypatch.setattr(run, "sweep", lambda *_, **__: pytest.fail("a plan ran"))
    options = ("--limit", "10", "--batch-size", "4", "--site", "z,v")
    command("ioi", *options, "--plan", "--output", str(tmp_path))
    lines = capsys.readouterr().out.splitlines()
    assert "gets wrong" in lines[0]
    assert (
        lines[1] == "10 prompts in 3 batches of at most 4; each batch:"
        and lines[2] == "z:"
        and "one by one" in lines[3]
    )
    assert [line for line in lines if line.startswith("32 swaps")] and [
        x for x in lines if x.startswith("16 swaps")
    ]
    assert sum("s of arithmetic on this machine" in line for line in lines) == 2
    assert sum("s of arithmetic in all batches" in line for line in lines) == 2
    assert not list(tmp_path.iterdir())


def test_roles_are_told_apart_and_kept(tmp_path, capsys):
    for _ in range(2):
        command("ioi", "--limit", "30", "--roles", "--output", str(tmp_path))
    printed = capsys.readouterr().out
    inhibition = printed.partition("s inhibition")[2]
    assert inhibition.splitlines()[1].strip().startswith("L2H2"), (
        "it looks at S2 and speaks to those that write"
    )
    assert (
        "  L3H0    END to IO 1.00" in printed.partition("the look of a role, but no effect")[2]
    ), "the decoy is called nothing"
    table = store.load(tmp_path / "ioi" / "reference" / "shipped" / "roles" / "roles.nc")
    assert (
        table["role"].dims == ("layer", "head")
        and json.loads(table.attrs["arguments"])["corruption"] == "abc"
    )


def test_a_head_that_helps_and_hurts_is_ranked_by_size(run_folder, tmp_path):
    """L0H1 moves the answer much, up in half of the prompts and down in the others."""
    from nnheads.recipes import _ioi_report, ioi

    scores = store.load(run_folder / "scores.nc").load()
    gap = scores["clean_logit_difference"] - scores["corrupted_logit_difference"]
    sign = xr.where(scores["batch"] % 2 == 0, 1.0, -1.0)
    moved = scores["corrupted_logit_difference"] + 0.9 * gap * sign
    chosen = (scores["layer"] == 0) & (scores["head"] == 1)
    scores["logit_difference"] = xr.where(
        chosen, moved, scores["logit_difference"], keep_attrs=True
    ).transpose("batch", "layer", "head")
    heads = ioi.reduce(scores, 0)
    assert float(heads["size"].sel(layer=0, head=1)) == pytest.approx(0.9, abs=1e-5)
    assert abs(float(heads["effect"].sel(layer=0, head=1))) < 0.2
    (first, *_) = _ioi_report.of_either_sign(heads, 3)
    assert (first["layer"], first["head"]) == (0, 1) and first["value"] == pytest.approx(0.9)
    assert all(
        float(heads["size"].sel(layer=0, head=1)) >= abs(float(value))
        for value in heads["effect"].sel(layer=0)
    )


def test_a_gap_that_leaves_no_prompt_is_refused(tmp_path):
    code, _, err = issue("ioi", "--limit", "4", "--gap", "1e9", "-q", "-o", tmp_path)
    assert code == 2 and "leaves no prompt" in err and not list(tmp_path.rglob("heads.nc"))


def test_one_prompt_has_no_interval_and_no_nan(tmp_path, capsys):
    command("ioi", "--limit", "1", "--quiet", "--output", str(tmp_path))
    out = capsys.readouterr().out
    assert "nan" not in out and "these are few" in out
    values = [line.split()[1] for line in out.splitlines() if line.startswith("  L")]
    assert values and not {"+0.000", "-0.000"} & set(values)

"""`nnheads path` on the shipped model: plain hooks again, the paths that are known, a second time,
every option.
"""

from __future__ import annotations

import json
import re

import numpy as np
import oracle
import pytest
import torch
from commands import command

import nnheads
from nnheads.models.inputs import inputs
from nnheads.runs import store


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The logits, and the queries of two heads that write, as a user would ask for them."""
    output = tmp_path_factory.mktemp("results")
    command("path", "--limit", "24", "--output", str(output))
    command(
        "path", "--limit", "24", "--receivers", "3.1,L3H7", "--at", "END", "--output", str(output)
    )
    return output / "path" / "reference" / "shipped"


def test_files_open_and_say_where_they_are_from(runs):
    for folder in (runs, runs / "q-L3H1-L3H7"):
        scores, heads = (store.load(folder / f"{name}.nc") for name in ("scores", "heads"))
        assert (
            scores["change"].dims == ("batch", "layer", "head")
            and scores.attrs["model"] == "reference"
        )
        assert (
            json.loads(heads.attrs["arguments"])["corruption"] == "abc"
            and heads.attrs["kept"] == 24
        )
        assert {"effect", "effect_low", "effect_high", "base_logit_difference"} <= set(
            heads.data_vars
        )
        ratio = scores["change"].sum("batch", min_count=1) / scores["base_logit_difference"].sum()
        np.testing.assert_allclose(heads["effect"], ratio, atol=1e-5)
        assert (folder / "heads.png").stat().st_size > 2000 and not (folder / "parts").exists()
    assert (
        bool(heads["effect"].sel(layer=3).isnull().all())
        and heads.attrs["receivers"] == "L3H1+L3H7"
    )


def test_direct_effects_equal_plain_hooks(runs):
    """Step C of some heads again: every projection's input frozen by hooks, no nnsight."""
    model = nnheads.load("reference")
    module, scores = model._module, store.load(runs / "scores.nc")
    prompts = nnheads.ioi(model.tokenizer, 24, seed=0, corruption="abc")
    base, new = inputs(model, prompts), inputs(model, prompts, "corrupted")
    answers = torch.from_numpy(np.stack([prompts["answer"], prompts["wrong"]], 1)).long()
    frozen, other = (
        [oracle.value_at(module, "llama", given, layer, "z") for layer in range(4)]
        for given in (base, new)
    )
    for layer, head in ((2, 2), (3, 7), (1, 0)):
        kept = [value.clone() for value in frozen]
        size = kept[layer].shape[-1] // 8
        kept[layer][..., head * size : (head + 1) * size] = other[layer][
            ..., head * size : (head + 1) * size
        ]
        handles = [
            block.self_attn.o_proj.register_forward_pre_hook(lambda _, given, value=value: (value,))
            for block, value in zip(module.model.layers, kept)
        ]
        own = oracle.end_logits(module, base).gather(-1, answers)
        for handle in handles:
            handle.remove()
        found = scores["logit_difference"].sel(layer=layer, head=head)
        np.testing.assert_allclose(found, own[:, 0] - own[:, 1], atol=1e-4)


def test_the_planted_head_acts_through_the_queries_of_those_that_write(runs):
    queries = store.load(runs / "q-L3H1-L3H7" / "heads.nc")
    strongest = queries["effect"].fillna(0).argmin(...)
    assert (int(strongest["layer"]), int(strongest["head"])) == (2, 2)
    assert float(queries["effect_high"][2, 2]) < -0.1
    direct = store.load(runs / "heads.nc")["effect"]
    assert abs(float(direct[3, 0])) < 0.02, "the decoy says nothing"
    assert float(direct[3, 1]) < -0.03 and float(direct[3, 7]) < -0.03


def test_the_same_command_again_computes_nothing_and_prints_the_same(runs, capsys, monkeypatch):
    from nnheads.patching import path_patching as paths

    monkeypatch.setattr(paths, "paths", lambda *_, **__: pytest.fail("followed again"))
    command("path", "--limit", "24", "--output", str(runs.parents[2]))
    out = capsys.readouterr().out
    assert out.startswith("kept 24 of 24 prompts\nlogit difference: clean +")
    assert re.search(
        r"^paths to the logits, change over .*; helping:\n  L2H\d    -0\.\d+ \[-0\.\d+, -0\.\d+\]$",
        out,
        re.M,
    )
    assert "working against the answer:" in out and out.rstrip().endswith("heads.png")
    command(
        "path",
        "--limit",
        "24",
        "--receivers",
        "3.1,3.7",
        "--at",
        "END",
        "--output",
        str(runs.parents[2]),
        "--top",
        "2",
    )
    assert "paths to the queries of L3H1+L3H7 at END" in capsys.readouterr().out


def test_chosen_senders_values_frozen_parts_and_a_rehearsal(tmp_path, capsys):
    options = [
        "--limit",
        "6",
        "--receivers",
        "L2H2",
        "--via",
        "v",
        "--senders",
        "1.0,0.2",
        "--mlps",
        "freeze",
    ]
    command("path", *options, "--output", str(tmp_path / "here"))
    printed = capsys.readouterr().out
    assert "paths to the values of L2KV1" in printed and "MLPs: freeze" in printed
    command("path", *options, "--remote", "local", "--output", str(tmp_path / "there"))
    here, there = (
        store.load(tmp_path / place / "path/reference/shipped/v-L2H2/scores.nc")
        for place in ("here", "there")
    )
    assert np.argwhere(here["change"].notnull().all("batch").values).tolist() == [[0, 2], [1, 0]]
    np.testing.assert_allclose(here["change"], there["change"], atol=1e-5)


def test_pairs_from_a_file_have_paths_too(tmp_path, pairs_file, llama_folder, capsys):
    options = ["--prompts", str(pairs_file), "--limit", "16", "--output", str(tmp_path)]
    command("path", str(llama_folder), *options)
    kept, asked = re.match(r"kept (\d+) of (\d+) prompts", capsys.readouterr().out).groups()
    assert 1 <= int(kept) < int(asked) == 16, "a random model is right about some"

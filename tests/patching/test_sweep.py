"""The sweep against one full forward per cell with plain hooks, on every architecture row and site."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
import xarray as xr
from conftest import VOCABULARY, tiny

from nnheads.architectures import ARCHITECTURES
from nnheads.errors import BadInput, RunError
from nnheads.patching.patch import one_at_a_time, patch, shared_positions
from nnheads.patching.sites import SITES
from nnheads.patching.sweep import sweep

ANSWERS = torch.tensor([[5, 6], [7, 8]])


def two_runs(model_type, padded):
    ids, mask, _ = padded
    other = ids.clone()
    other[:, 5:8] = (ids[:, 5:8] + 100 - 4) % (VOCABULARY - 4) + 4
    return oracle.fed(model_type, ids, mask), oracle.fed(model_type, other, mask)


def run(model_type, base, donor, cells, layers, site, **options):
    model, _ = tiny(model_type)
    row = ARCHITECTURES[model_type]
    return sweep(model, base, donor, ANSWERS, cells, layers, site, 4, row.tuple_block, **{"rows": 1000, **options})


@pytest.mark.parametrize("shared", [0, 5])
@pytest.mark.parametrize("site", SITES)
def test_every_cell_equals_a_plain_hook(model_type, site, shared, padded):
    _, module = tiny(model_type)
    base, donor = two_runs(model_type, padded)
    units = 4 if site == "z" else 1
    cells = one_at_a_time(9, units, by_position=True)
    logits, base_logits, donor_logits = run(model_type, base, donor, cells, [0, 2], site, shared=shared)
    torch.testing.assert_close(base_logits, oracle.end_logits(module, base).gather(-1, ANSWERS), atol=1e-5, rtol=0)
    torch.testing.assert_close(donor_logits, oracle.end_logits(module, donor).gather(-1, ANSWERS), atol=1e-5, rtol=0)
    moved = 0.0
    for index, layer in enumerate([0, 2]):
        for cell in range(units * 9 - 4, units * 9) if site == "z" else (5, 8):
            where = cells[cell].expand(2, -1, -1)
            plain = oracle.patched_logits(module, model_type, base, donor, layer, site, where).gather(-1, ANSWERS)
            torch.testing.assert_close(logits[index, cell], plain, atol=1e-5, rtol=0)
            moved = max(moved, float((plain - base_logits).abs().max()))
    assert moved > 1e-3, "a swap must move something, or the comparison says nothing"


def test_all_positions_equals_a_plain_hook(model_type, padded):
    _, module = tiny(model_type)
    base, donor = two_runs(model_type, padded)
    cells = one_at_a_time(9, 4, by_position=False)
    logits, _, _ = run(model_type, base, donor, cells, [0, 1, 2], "z")
    for layer in range(3):
        for head in range(4):
            where = cells[head].expand(2, -1, -1)
            plain = oracle.patched_logits(module, model_type, base, donor, layer, "z", where).gather(-1, ANSWERS)
            torch.testing.assert_close(logits[layer, head], plain, atol=1e-5, rtol=0)


def test_a_run_swapped_into_itself_changes_nothing(model_type, padded):
    base, _ = two_runs(model_type, padded)
    for site in SITES:
        cells = one_at_a_time(9, 4 if site == "z" else 1, by_position=False)
        logits, base_logits, _ = run(model_type, base, base, cells, [0, 1, 2], site)
        torch.testing.assert_close(logits, base_logits.expand_as(logits), atol=1e-5, rtol=0)


def test_cells_before_the_first_difference_are_not_run(padded, monkeypatch):
    from nnheads.patching import sweep as module

    base, donor = two_runs("llama", padded)
    rows, real = [], module.swap
    monkeypatch.setattr(module, "swap", lambda *given: rows.append(len(given[3])) or real(*given))
    logits, base_logits, _ = run("llama", base, donor, one_at_a_time(9, 4, by_position=True), [0, 2], "z", shared=5)
    assert rows == [4 * 4 * 2, 1 * 4 * 2], "4 positions x 4 heads x 2 cases; in the last layer only the last position"
    assert torch.equal(logits.reshape(2, 4, 9, 2, 2)[:, :, :5], base_logits.expand(2, 4, 5, 2, 2))


@pytest.mark.parametrize("first", [0, 5, 8])
def test_shared_positions_end_at_the_first_difference(padded, first):
    prompts = pairs(padded)
    prompts["corrupted"][:] = prompts["token"]
    prompts["corrupted"][1, first] += 1
    assert shared_positions(prompts) == first
    prompts["corrupted"][:] = prompts["token"]
    assert shared_positions(prompts) == 8


def test_small_forwards_give_the_same_numbers(padded):
    base, donor = two_runs("llama", padded)
    cells = one_at_a_time(9, 4, by_position=True)
    whole = run("llama", base, donor, cells, [1], "z")[0]
    pieces = run("llama", base, donor, cells, [1], "z", rows=7)[0]
    torch.testing.assert_close(whole, pieces, atol=1e-6, rtol=0)


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "bloom"])
def test_rehearsed_remotely_gives_the_same_numbers(model_type, padded):
    base, donor = two_runs(model_type, padded)
    cells = one_at_a_time(9, 4, by_position=False)
    here = run(model_type, base, donor, cells, [0, 2], "z")
    there = run(model_type, base, donor, cells, [0, 2], "z", remote="local")
    for ours, theirs in zip(here, there):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_cells_name_each_unit_and_position_once():
    cells = one_at_a_time(3, 2, by_position=True)
    assert cells.shape == (6, 3, 2) and bool((cells.sum((1, 2)) == 1).all()) and bool((cells.sum(0) == 1).all())
    assert one_at_a_time(3, 2, by_position=False).sum((1, 2)).tolist() == [3, 3]


def pairs(padded) -> xr.Dataset:
    base, donor = two_runs("llama", padded)
    place = ("batch", "position")
    return xr.Dataset(
        {
            "token": (place, donor["input_ids"].numpy().astype("int32")),
            "corrupted": (place, base["input_ids"].numpy().astype("int32")),
            "mask": (place, base["attention_mask"].numpy().astype("int8")),
            "answer": ("batch", np.array([5, 7], "int32")),
            "wrong": ("batch", np.array([6, 8], "int32")),
        },
        {"batch": [3, 9]},
    )


@pytest.mark.parametrize("noising", [False, True])
def test_patch_labels_and_normalises(padded, noising):
    model, module = tiny("llama")
    scores = patch(model, pairs(padded), noising=noising, gap=0.0)
    assert scores["effect"].dims == ("batch", "layer", "head") and scores["effect"].dtype == np.float32
    assert scores["effect"].shape == (2, 3, 4) and list(scores["batch"].values) == [3, 9]
    base, donor = two_runs("llama", padded)
    if noising:
        base, donor = donor, base
    where = one_at_a_time(9, 4, by_position=False)[2].expand(2, -1, -1)

    def difference(logits):
        own = logits.gather(-1, ANSWERS)
        return own[:, 0] - own[:, 1]

    swapped = difference(oracle.patched_logits(module, "llama", base, donor, 1, "z", where))
    start, end = difference(oracle.end_logits(module, base)), difference(oracle.end_logits(module, donor))
    np.testing.assert_allclose(scores["logit_difference"].sel(layer=1, head=2), swapped, atol=1e-5)
    np.testing.assert_allclose(scores["effect"].sel(layer=1, head=2), (swapped - start) / (end - start), atol=1e-4)


def test_patch_by_position_leaves_padding_out(padded):
    model, _ = tiny("llama")
    scores = patch(model, pairs(padded), site="resid_pre", by_position=True, gap=0.0)
    assert scores["effect"].dims == ("batch", "layer", "position")
    missing = scores["effect"].isnull().all("layer")
    assert missing.values.tolist() == [[False] * 9, [True] * 4 + [False] * 5]


def test_whole_residual_stream_carries_everything_over(padded):
    model, _ = tiny("llama")
    effect = patch(model, pairs(padded), site="resid_pre", gap=0.0)["effect"]
    np.testing.assert_allclose(effect, 1.0, atol=1e-4)


def test_chosen_layers_keep_their_numbers(padded):
    model, _ = tiny("llama")
    every = patch(model, pairs(padded), gap=0.0)
    some = patch(model, pairs(padded), gap=0.0, layers=[2])
    assert list(some["layer"].values) == [2]
    np.testing.assert_allclose(some["effect"], every["effect"].sel(layer=[2]), atol=1e-5)


def test_one_pair_alone_equals_it_in_a_batch(padded):
    model, _ = tiny("llama")
    whole, alone = patch(model, pairs(padded), gap=0.0), patch(model, pairs(padded).isel(batch=[1]), gap=0.0)
    np.testing.assert_allclose(alone["logit_difference"][0], whole["logit_difference"][1], atol=1e-5)


def test_small_gaps_are_masked_and_counted(padded):
    model, _ = tiny("llama")
    scores = patch(model, pairs(padded), gap=1e6)
    assert bool(scores["effect"].isnull().all()) and scores["effect"].attrs["cases_masked"] == 2


def test_unknown_site_and_layer_are_refused(padded):
    model, _ = tiny("llama")
    with pytest.raises(BadInput, match=r"'zz' is not known.*resid_pre"):
        patch(model, pairs(padded), site="zz")
    with pytest.raises(BadInput, match=r"layer 3 does not exist.*0 to 2"):
        patch(model, pairs(padded), layers=[3])


def test_token_outside_the_vocabulary_is_refused(padded):
    model, _ = tiny("llama")
    prompts = pairs(padded)
    prompts["token"][0, 0] = VOCABULARY
    with pytest.raises(BadInput, match=f"token {VOCABULARY} lies outside the vocabulary of {VOCABULARY}"):
        patch(model, prompts)


def test_weights_with_nan_are_named(padded):
    from conftest import build, words_tokenizer
    from nnsight import TransformersModel

    module = build("llama")
    module.model.layers[1].mlp.up_proj.weight[:] = float("nan")
    model = TransformersModel(module, tokenizer=words_tokenizer(), rename=ARCHITECTURES["llama"].rename())
    with pytest.raises(RunError, match="logits are not finite"):
        patch(model, pairs(padded))

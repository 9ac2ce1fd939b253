"""What ablations put in: for each prompt the others of its kind, against plain hooks on single
prompts.
"""

from __future__ import annotations

import contextlib

import numpy as np
import oracle
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as some
from random_models import VOCABULARY, placed, tiny

import nnheads
from nnheads.errors import BadInput
from nnheads.patching.ablate import ablate
from nnheads.patching.ablation_values import means, resampled, same_text
from nnheads.patching.circuit import every_head, removal
from nnheads.patching.cost import cost
from nnheads.patching.head_sets import plan_without
from nnheads.patching.interaction import interactions
from nnheads.patching.knockout import knockout

FAMILIES = ["gpt2", "llama", "bloom", "falcon", "gptj", "gemma2", "gpt_oss", "qwen3"]
LENGTHS = (9, 9, 9, 5, 5, 5, 9, 9)
TEMPLATES = (0, 0, 0, 0, 0, 0, 1, 1)
HEADS = [(0, 1), (2, 3)]


def prompts() -> xr.Dataset:
    """Two templates, two lengths, and one text twice (rows 3 and 5)."""
    ids = torch.randint(
        4, VOCABULARY, (len(LENGTHS), 9), generator=torch.Generator().manual_seed(2)
    ).numpy()
    ids[5] = ids[3]
    mask = (np.arange(9) >= 9 - np.array(LENGTHS)[:, None]).astype("int8")
    answer = np.arange(len(LENGTHS), dtype="int32")
    return xr.Dataset(
        {
            "token": (("batch", "position"), (ids * mask).astype("int32")),
            "mask": (("batch", "position"), mask),
            "answer": ("batch", answer + 5),
            "wrong": ("batch", answer + 50),
        },
        {"batch": np.arange(len(LENGTHS)) * 3, "template": ("batch", list(TEMPLATES))},
    )


def row(dataset: xr.Dataset, case: int) -> torch.Tensor:
    """A prompt's tokens without padding, [1, position]."""
    one = dataset.isel(batch=case)
    return torch.from_numpy(one["token"].values[one["mask"].values.astype(bool)]).long()[None]


def outputs(model_type: str, ids: torch.Tensor, layer: int) -> torch.Tensor:
    given = oracle.fed(model_type, ids, torch.ones_like(ids))
    return oracle.value_at(tiny(model_type)[1], model_type, given, layer, "z")


def others_of(case: int, own: xr.Dataset, reference: xr.Dataset) -> list[torch.Tensor]:
    """All texts of the case's template and length but its own, one by one."""
    rows = [row(reference, other) for other in range(reference.sizes["batch"])]
    template = reference["template"].values
    return [
        ids
        for ids, kind in zip(rows, template)
        if kind == own["template"].values[case]
        and ids.shape == row(own, case).shape
        and not torch.equal(ids, row(own, case))
    ]


def by_hand(model_type: str, own: xr.Dataset, reference: xr.Dataset, heads=HEADS) -> np.ndarray:
    """Logit difference of each prompt, run alone, where heads put out their mean over others, each
    run alone.
    """
    _, module = tiny(model_type)
    found = []
    for case in range(own.sizes["batch"]):
        sources = others_of(case, own, reference)
        new = {
            layer: torch.stack([outputs(model_type, ids, layer) for ids in sources]).mean(0)
            for layer, _ in heads
        }  # before anything is hooked
        with contextlib.ExitStack() as stack:
            for layer, mean in new.items():
                chosen = [head for other, head in heads if other == layer]

                def exchange(value, mean=mean, chosen=chosen):
                    value, shape = value.clone(), (*value.shape[:2], 4, -1)
                    value.view(shape)[:, :, chosen] = mean.view(shape)[:, :, chosen]
                    return value

                stack.enter_context(oracle.hooked(module, model_type, layer, "z", exchange))
            ids = row(own, case)
            logits = oracle.end_logits(module, oracle.fed(model_type, ids, torch.ones_like(ids)))[0]
        one = own.isel(batch=case)
        found.append(float(logits[int(one["answer"])] - logits[int(one["wrong"])]))
    return np.array(found)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_means_are_over_the_other_prompts(model_type):
    model, own = tiny(model_type)[0], prompts()
    expected = by_hand(model_type, own, own)
    found = ablate(model, own, "mean", groups=[HEADS])
    np.testing.assert_allclose(found["logit_difference"].isel(group=0), expected, atol=3e-5)
    assert float(abs(found["change"]).min()) > 1e-5, "nobody is left as they were"
    np.testing.assert_allclose(
        removal(model, own, batch_size=3)([frozenset(HEADS)])[:, 0], expected, atol=3e-5
    )


def test_every_question_takes_the_same_means():
    model, own = tiny("llama")[0], prompts()
    expected = by_hand("llama", own, own)
    curve = knockout(model, own, HEADS, ks=[2], draws=0)
    np.testing.assert_allclose(curve["logit_difference"].sel(k=2), expected, atol=3e-5)
    parts = interactions(model, own, HEADS)
    np.testing.assert_allclose(parts["joint"] + parts["base_logit_difference"], expected, atol=3e-5)
    remote = placed("local", ablate)(model, own, "mean", groups=[HEADS])
    np.testing.assert_allclose(remote["logit_difference"].isel(group=0), expected, atol=3e-5)


@pytest.mark.parametrize("width", [9, 11])
def test_a_prompt_in_the_reference_is_left_out_for_itself(width):
    """Under other labels, in another order, and twice."""
    own = prompts()
    more = own.isel(batch=[5, 3, 4, 0, 0, 1, 2, 7, 6]).assign_coords(batch=[0] * 9)
    more = more.pad(position=(width - 9, 0), constant_values=0)
    found = ablate(tiny("llama")[0], own, "mean", reference=more, groups=[HEADS])
    np.testing.assert_allclose(
        found["logit_difference"].isel(group=0), by_hand("llama", own, more), atol=3e-5
    )


def test_resampling_draws_another_text():
    model, own = tiny("llama")[0], prompts()
    drawn = {seed: resampled(own, own, seed) for seed in range(12)}
    for weights in drawn.values():
        assert (weights.sum(1) == 1).all() and not weights[same_text(own, own)].any()
        source = weights.argmax(1)
        assert [TEMPLATES[one] for one in source] == list(TEMPLATES)
        assert [LENGTHS[one] for one in source] == list(LENGTHS)
    found = ablate(model, own, "resample", groups=[HEADS], seed=7)["logit_difference"].isel(group=0)
    for case, other in enumerate(drawn[7].argmax(1)):
        alone, source = own.isel(batch=[case]), own.isel(batch=[int(other)])
        np.testing.assert_allclose(found[case], by_hand("llama", alone, source)[0], atol=3e-5)


def test_leaving_one_out_costs_nothing():
    model, own = tiny("llama")[0], prompts()
    mean, one = (
        cost(model, plan_without(model, own, [HEADS], ablation=name))
        for name in ("mean", "resample")
    )
    assert mean == one and mean.forwards == 3, (
        "the prompts, the prompts as a reference, and the ablated ones"
    )


@given(
    some.lists(
        some.tuples(some.integers(0, 1), some.integers(1, 2), some.integers(0, 2)),
        min_size=1,
        max_size=7,
    ),
    some.lists(
        some.tuples(some.integers(0, 1), some.integers(1, 2), some.integers(0, 2)),
        min_size=1,
        max_size=7,
    ),
)
def test_weights_are_equal_shares_of_the_others(own, reference):
    """A prompt is (template, length, its first token)."""

    def dataset(rows) -> xr.Dataset:
        template, length, token = np.array(rows).T
        mask = np.arange(2)[::-1] < length[:, None]
        place = ("batch", "position")
        return xr.Dataset(
            {"token": (place, token[:, None] * mask), "mask": (place, mask.astype("int8"))},
            {"template": ("batch", template)},
        )

    usable = [[one[:2] == other[:2] and one[2] != other[2] for other in reference] for one in own]
    if not all(map(any, usable)):
        for values in (means, lambda *sets: resampled(*sets, 0)):
            with pytest.raises(
                BadInput, match=r"have no other of their template|the mean set has no prompt"
            ):
                values(dataset(own), dataset(reference))
        return
    expected = [[one / sum(each) for one in each] for each in usable]
    np.testing.assert_allclose(means(dataset(own), dataset(reference)), expected, rtol=1e-6)


@pytest.mark.parametrize("how", ["mean", "resample"])
def test_a_prompt_without_another_of_its_kind_is_refused(how):
    own = prompts().isel(
        batch=[0, 1, 3, 5, 6]
    )  # of the template and length of 3 there is only its text, twice
    said = (
        r"^3 of 5 prompts have no other of their template and length \(the first: template 0, 5"
        r" tokens\), and their "
        "own values would ablate nothing; use more prompts or a reference set of such, or zero or"
        " uniform ablation$"
    )
    with pytest.raises(BadInput, match=said):
        ablate(tiny("llama")[0], own, how)
    with pytest.raises(BadInput, match=said):
        removal(tiny("llama")[0], own, ablation=how)([frozenset(HEADS)])
    with pytest.raises(BadInput, match="the mean set has no prompt of template 1 with 9 tokens"):
        ablate(tiny("llama")[0], own, how, reference=prompts().isel(batch=[0, 1, 3, 4]))


def test_no_head_of_the_shipped_model_says_who_is_named():
    """With means that held the sentence itself, no head at all kept 11.8 of 13.8 logits."""
    model = nnheads.load("reference")
    sentences = nnheads.ioi(model.tokenizer, n=40, seed=0)
    whole, none = removal(model, sentences)([frozenset(), every_head(model)]).mean(0)
    assert whole > 10 and abs(none) < 0.1 * whole
    with pytest.raises(
        BadInput, match=r"16 of 24 prompts have no other of their template and length"
    ):
        removal(model, sentences.isel(batch=slice(24)))([every_head(model)])

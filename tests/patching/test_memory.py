"""The memory that a plan says is what the sweep then takes, as torch's own profiler counts it."""

from __future__ import annotations

import gc

import pytest
import torch
from nnsight import TransformersModel
from random_models import build, words_tokenizer

import nnheads
from nnheads.models.families import FAMILIES
from nnheads.patching.memory import peak_bytes
from nnheads.patching.patch import plan_patch
from nnheads.patching.readings import measure

LARGER = {
    "gpt2": {"n_embd": 192, "n_layer": 4, "n_head": 6},
    "llama": {"hidden_size": 192, "intermediate_size": 500, "num_hidden_layers": 4},
    "falcon": {"hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 6},
}


def taken(function) -> int:
    """The most bytes that torch held at once of those that it took while the function ran."""
    gc.collect()
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        function()
    live = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            most = max(most, live)
    return most


@pytest.mark.parametrize("model_type", LARGER)
@pytest.mark.parametrize(
    "options", [{"site": "z"}, {"site": "z", "full": 2}, {"site": "v"}, {"site": "resid_pre"}]
)
def test_what_is_planned_is_what_is_taken_within_two_fifths(model_type, options):
    module = build(model_type, **LARGER[model_type])
    renamed = FAMILIES[model_type].rename()
    model = TransformersModel(module, tokenizer=words_tokenizer(), rename=renamed)
    prompts = nnheads.ioi(words_tokenizer(), 8)
    job, _ = plan_patch(model, prompts, **options)
    measured = taken(lambda: measure(model, job))
    assert measured > 500_000
    assert 0.7 * measured < peak_bytes(model, job) < 1.4 * measured


def test_twice_the_prompts_take_twice_the_memory():
    model = nnheads.load()
    few, many = (
        peak_bytes(model, plan_patch(model, nnheads.ioi(model.tokenizer, n), site="z")[0])
        for n in (8, 16)
    )
    assert few < many <= 2.1 * few

"""Function vectors against plain hooks and plain weights, on every family; and known answers for
the statistics.
"""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
import xarray as xr
from random_models import placed, tiny
from swaps import pairs, runs

from nnheads.errors import BadInput
from nnheads.patching.function_vectors import (
    add_vectors,
    end_outputs,
    function_vectors,
    indirect_effects,
)
from nnheads.patching.task_averages import average_effects, averaged, over_tasks

TARGET = torch.tensor([5, 7])


def prompts_of(padded) -> xr.Dataset:
    """Two prompts of two tasks, the second padded, that ask for one token each."""
    prompts = pairs(padded).drop_vars(["answer", "wrong", "corrupted"])
    step = ("batch", "step")
    prompts = prompts.assign(ask=(step, [[8], [8]]), target=(step, TARGET.unsqueeze(1).numpy()))
    return prompts.assign_coords(task=("batch", [1, 0]), task_name=("batch", ["b", "a"]))


def mean_outputs(model_type: str, seed: int = 0) -> torch.Tensor:
    """Something to put in, of the size of what heads put out."""
    _, module = tiny(model_type)
    width = oracle.value_at(
        module, model_type, {"input_ids": torch.ones(1, 2, dtype=torch.long)}, 0, "z"
    ).shape[-1]
    return torch.randn(2, 3, 4, width // 4, generator=torch.Generator().manual_seed(seed))


def probability(logits: torch.Tensor) -> torch.Tensor:
    return logits.softmax(-1).gather(-1, TARGET.unsqueeze(1))[:, 0]


def at_end(new: torch.Tensor, unit: slice):
    """A hook that puts new values [case, width] into a part of the last position."""

    def change(value):
        value = value.clone()
        value[:, -1, unit] = new
        return value

    return change


def test_what_stands_at_the_end_equals_plain_hooks(model_type, padded):
    model, module = tiny(model_type)
    _, fed = runs(model_type, pairs(padded))
    best = oracle.end_logits(module, fed).argmax(-1)
    target = best.numpy()[:, None] + np.array(
        [[0], [1]]
    )  # the second answer is not the one predicted
    scores = end_outputs(model, prompts_of(padded).assign(target=(("batch", "step"), target)))
    for layer in range(3):
        z = oracle.value_at(module, model_type, fed, layer, "z")[:, -1].mean(0)
        for row in range(2):  # every prompt has the mean of all
            found = torch.from_numpy(scores["z"].values[row, layer]).flatten()
            torch.testing.assert_close(found, z, atol=2e-5, rtol=0)
    assert scores["correct"].values.tolist() == [1, 0] and list(scores["task_name"].values) == [
        "b",
        "a",
    ]


def test_indirect_effects_equal_plain_hooks(model_type, padded):
    model, module = tiny(model_type)
    _, fed = runs(model_type, pairs(padded))
    z = mean_outputs(model_type)
    scores = indirect_effects(model, prompts_of(padded), z)
    before = probability(oracle.end_logits(module, fed))
    np.testing.assert_allclose(scores["base"], before, atol=1e-5)
    moved = 0.0
    for layer, head in ((0, 0), (1, 3), (2, 1)):
        width = z.shape[-1]
        own = z[torch.tensor([1, 0]), layer, head]
        change = at_end(own, slice(head * width, (head + 1) * width))
        with oracle.hooked(module, model_type, layer, "z", change):
            after = probability(oracle.end_logits(module, fed))
        np.testing.assert_allclose(
            scores["effect"].sel(layer=layer, head=head), after - before, atol=2e-5
        )
        moved = max(moved, float((after - before).abs().max()))
    assert moved > 1e-4, "an effect must be seen, or the comparison says nothing"


def test_function_vectors_are_what_the_projections_weights_say(model_type):
    model, module = tiny(model_type)
    z, heads = mean_outputs(model_type), [(0, 1), (2, 3), (2, 0)]
    width, expected = z.shape[-1], 0
    for layer, head in heads:
        projection, _ = oracle.site_module(module, model_type, layer, "z")
        weight = (
            projection.weight if isinstance(projection, torch.nn.Linear) else projection.weight.T
        )
        expected = expected + z[:, layer, head] @ weight[:, head * width : (head + 1) * width].T
    found = function_vectors(model, z, heads)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)
    assert torch.equal(function_vectors(model, z, []), torch.zeros_like(expected))


def test_a_vector_is_added_at_the_end_alone(model_type, padded):
    model, module = tiny(model_type)
    _, fed = runs(model_type, pairs(padded))
    vectors = torch.randn(2, module.config.hidden_size, generator=torch.Generator().manual_seed(3))
    scores = add_vectors(model, prompts_of(padded), vectors, metric="probability")
    before = probability(oracle.end_logits(module, fed))
    for layer in range(3):

        def add(value):
            value = value.clone()
            value[:, -1] += vectors[[1, 0]]
            return value

        with oracle.hooked(module, model_type, layer, "resid_pre", add):
            after = probability(oracle.end_logits(module, fed))
        np.testing.assert_allclose(scores["effect"].sel(layer=layer), after - before, atol=2e-5)
    assert float(np.abs(scores["effect"]).max()) > 1e-4


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "bloom", "gptj"])
def test_rehearsed_remotely_gives_the_same_numbers(model_type, padded):
    model, z = tiny(model_type)[0], mean_outputs(model_type)
    prompts = prompts_of(padded)
    ones = z.new_ones(2, model.config.hidden_size)
    here, there = (
        {
            "z": placed(remote, end_outputs)(model, prompts)["z"].values,
            "cie": placed(remote, indirect_effects)(model, prompts, z)["effect"].values,
            "vector": placed(remote, function_vectors)(model, z, [(1, 1)]).numpy(),
            "added": placed(remote, add_vectors)(model, prompts, ones)["effect"].values,
        }
        for remote in (False, "local")
    )
    for name, values in here.items():
        np.testing.assert_allclose(values, there[name], atol=1e-5)


def test_means_over_prompts_and_what_the_model_does(padded):
    def outputs(value: float, right: list[int], name: str, task: int) -> xr.Dataset:
        z = np.stack([np.full((3, 4, 2), value - 1), np.full((3, 4, 2), value + 1)])
        data = {
            "z": (("batch", "layer", "head", "dim"), z),
            "correct": ("batch", np.array(right, np.float32)),
        }
        return xr.Dataset(data, {"task": ("batch", [task] * 2), "task_name": ("batch", [name] * 2)})

    found = {
        "shown": [outputs(2.0, [1, 1], "can", 0), outputs(4.0, [1, 0], "hardly", 1)],
        "shuffled": [outputs(0.0, [0, 0], "can", 0), outputs(1.0, [0, 1], "hardly", 1)],
    }
    means, answered = averaged(found)
    assert means["shown"].shape == (2, 3, 4, 2) and means["shown"][:, 0, 0, 0].tolist() == [
        2.0,
        4.0,
    ]
    assert means["shuffled"][:, 1, 2, 1].tolist() == [0.0, 1.0]
    assert answered["accuracy_shown"].values.tolist() == [1.0, 0.5] and answered[
        "gain"
    ].values.tolist() == [1.0, 0.0]
    assert answered["gain_low"].values.tolist() == [1.0, -1.0] and list(
        answered["task_name"].values
    ) == [
        "can",
        "hardly",
    ]


def effects(values: list[float], tasks: list[int]) -> xr.DataArray:
    """One head does what `values` say, the other nothing."""
    data = np.stack([values, np.zeros(len(values))], 1)[:, None]
    about = {"long_name": "change", "units": "1"}
    return xr.DataArray(
        data, {"task": ("batch", tasks)}, ("batch", "layer", "head"), "effect", about
    )


def test_tasks_count_alike_however_many_prompts_they_have():
    values = effects([1.0, 1.0, 1.0, 0.0], [0, 0, 0, 1]).isel(layer=0, head=0)
    assert float(over_tasks(values)["effect"]) == 0.5
    assert float(over_tasks(values.isel(batch=slice(3)))["effect"]) == 1.0
    ends = over_tasks(values)
    assert (float(ends["effect_low"]), float(ends["effect_high"])) == (0.0, 1.0)


def test_heads_are_flagged_beyond_shuffled_examples():
    tasks = [0, 0, 0, 1, 1, 1]
    own, shuffled = (
        effects([0.5, 0.6, 0.4, 0.5, 0.6, 0.5], tasks),
        effects([0.1, 0.0, 0.1, 0.0, 0.1, 0.1], tasks),
    )
    heads = average_effects({"shown": own, "shuffled": shuffled, "other": own / 2})
    np.testing.assert_allclose(heads["aie"].values, [[31 / 60, 0.0]], atol=1e-6)
    np.testing.assert_allclose(heads["aie_other"].values, [[31 / 120, 0.0]], atol=1e-6)
    np.testing.assert_allclose(heads["excess"].values, [[31 / 60 - 4 / 60, 0.0]], atol=1e-6)
    assert heads["flag"].values.tolist() == [[1, 0]] and heads["q_value"].values[0, 1] == 1.0
    same = average_effects({"shown": own, "shuffled": own})
    assert same["flag"].values.tolist() == [[0, 0]]
    single = average_effects({"shown": own.isel(batch=[0]), "shuffled": shuffled.isel(batch=[0])})
    assert bool(single["q_value"].isnull().all()) and single["flag"].values.tolist() == [[0, 0]]
    for name, values in heads.data_vars.items():
        assert {"long_name", "units"} <= set(values.attrs), name


def test_what_does_not_fit_is_refused(padded):
    model, z = tiny("llama")[0], mean_outputs("llama")
    with pytest.raises(BadInput, match=r"\(1, 3, 4, 16\).* 3 layers of 4 heads"):
        indirect_effects(model, prompts_of(padded), z[:1])
    with pytest.raises(BadInput, match=r"\(2, 3, 4, 8\) do not fit"):
        indirect_effects(model, prompts_of(padded), z[..., :8])
    with pytest.raises(BadInput, match="'loss'"):
        indirect_effects(model, prompts_of(padded), z, metric="loss")
    with pytest.raises(BadInput, match="L3H0"):
        function_vectors(model, z, [(3, 0)])
    with pytest.raises(BadInput, match=r"L1H0.* twice"):
        function_vectors(model, z, [(1, 0), (1, 0)])

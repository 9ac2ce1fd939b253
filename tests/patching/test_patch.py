"""Patching and ablation of labelled prompts: what comes out, against plain hooks, and what is
refused.
"""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
import xarray as xr
from nnsight import TransformersModel
from random_models import VOCABULARY, build, tiny, words_tokenizer
from swaps import ANSWERS, pairs, runs

from nnheads.errors import BadInput, RunError
from nnheads.models.families import FAMILIES
from nnheads.patching.ablate import ablate
from nnheads.patching.ablation_values import means
from nnheads.patching.patch import patch


def difference(logits: torch.Tensor) -> torch.Tensor:
    own = logits.gather(-1, ANSWERS)
    return own[:, 0] - own[:, 1]


def one_head(head: int) -> torch.Tensor:
    where = torch.zeros(2, 9, 4, dtype=torch.bool)
    where[..., head] = True
    return where


@pytest.mark.parametrize("noising", [False, True])
def test_patch_labels_and_normalises(padded, noising):
    model, module = tiny("llama")
    scores = patch(model, pairs(padded), noising=noising, gap=0.0)
    assert (
        scores["effect"].dims == ("batch", "layer", "head") and scores["effect"].dtype == np.float32
    )
    assert scores["effect"].shape == (2, 3, 4) and list(scores["batch"].values) == [3, 9]
    assert scores.attrs["direction"] == ("noising" if noising else "denoising")
    base, source = runs("llama", pairs(padded))
    if noising:
        base, source = source, base
    swapped = difference(oracle.patched_logits(module, "llama", base, source, 1, "z", one_head(2)))
    start, end = (
        difference(oracle.end_logits(module, base)),
        difference(oracle.end_logits(module, source)),
    )
    np.testing.assert_allclose(scores["logit_difference"].sel(layer=1, head=2), swapped, atol=1e-5)
    np.testing.assert_allclose(
        scores["effect"].sel(layer=1, head=2), (swapped - start) / (end - start), atol=1e-4
    )
    assert {"clean_logit_difference", "corrupted_logit_difference"} <= set(scores.data_vars)


@pytest.mark.parametrize("site", ["k", "v"])
def test_keys_and_values_are_labelled_by_kv_head(site, padded):
    scores = patch(tiny("llama")[0], pairs(padded), site=site, gap=0.0)
    assert scores["effect"].dims == ("batch", "layer", "kv_head") and scores.sizes["kv_head"] == 2


def test_patch_by_position_leaves_padding_out(padded):
    scores = patch(tiny("llama")[0], pairs(padded), site="resid_pre", by_position=True, gap=0.0)
    assert scores["effect"].dims == ("batch", "layer", "position")
    missing = scores["effect"].isnull().all("layer")
    assert missing.values.tolist() == [[False] * 9, [True] * 4 + [False] * 5]


def test_whole_residual_stream_carries_everything_over(padded):
    effect = patch(tiny("llama")[0], pairs(padded), site="resid_pre", gap=0.0)["effect"]
    np.testing.assert_allclose(effect, 1.0, atol=1e-4)


def test_all_heads_of_all_layers_as_one_group_are_one_cell(padded):
    model, _ = tiny("llama")
    everything = [(layer, head) for layer in range(3) for head in range(4)]
    scores = patch(model, pairs(padded), groups=[everything, [(1, 2)], []], gap=0.0)
    assert scores["effect"].dims == ("batch", "group") and list(scores["group"].values)[1:] == [
        "L1H2",
        "none",
    ]
    single = patch(model, pairs(padded), gap=0.0)["effect"].sel(layer=1, head=2, drop=True)
    np.testing.assert_allclose(scores["effect"].isel(group=1, drop=True), single, atol=1e-5)
    assert np.all(scores["effect"].isel(group=2) == 0)


def test_a_role_swaps_at_that_position_alone(padded):
    model, _ = tiny("llama")
    prompts = pairs(padded).assign_coords(role_S2=("batch", [5, 6]))
    at_role = patch(model, prompts, at="S2", gap=0.0)["logit_difference"]
    every = patch(model, prompts, by_position=True, gap=0.0)["logit_difference"]
    for case, position in ((0, 5), (1, 6)):
        np.testing.assert_allclose(at_role[case], every[case].sel(position=position), atol=1e-5)
    end = patch(model, prompts, at="END", gap=0.0)["logit_difference"]
    np.testing.assert_allclose(end, every.isel(position=-1), atol=1e-5)


@pytest.mark.parametrize(
    "metric", ["logit", "log_probability", "probability", "rank", "accuracy", "kl"]
)
def test_metrics_are_what_they_say(metric, padded):
    model, module = tiny("gpt2")
    scores = patch(model, pairs(padded), metric=metric, gap=0.0)
    base, source = runs("gpt2", pairs(padded))
    logits = oracle.patched_logits(module, "gpt2", base, source, 1, "z", one_head(2))
    before, after = oracle.end_logits(module, base).log_softmax(-1), logits.log_softmax(-1)
    own = logits.gather(-1, ANSWERS[:, :1])
    expected = {
        "logit": own[:, 0],
        "log_probability": after.gather(-1, ANSWERS[:, :1])[:, 0],
        "probability": after.gather(-1, ANSWERS[:, :1])[:, 0].exp(),
        "rank": (logits > own).sum(-1).float(),
        "accuracy": ((logits > own).sum(-1) == 0).float(),
        "kl": (before.exp() * (before - after)).sum(-1),
    }[metric]
    np.testing.assert_allclose(scores[metric].sel(layer=1, head=2), expected, atol=1e-5)
    assert f"clean_{metric}" in scores and scores.attrs["metric"] == metric


def test_a_function_of_the_answers_logits_is_a_metric(padded):
    def ratio(logits):
        return logits[..., 0] / (1 + logits[..., 1].abs())

    model, module = tiny("llama")
    scores = patch(model, pairs(padded), metric=ratio, gap=0.0)
    base, source = runs("llama", pairs(padded))
    own = oracle.patched_logits(module, "llama", base, source, 1, "z", one_head(2)).gather(
        -1, ANSWERS
    )
    np.testing.assert_allclose(scores["ratio"].sel(layer=1, head=2), ratio(own), atol=1e-5)


def test_metrics_that_cannot_be_are_refused(padded):
    model, _ = tiny("llama")
    with pytest.raises(BadInput, match=r"metric 'loss' is not known"):
        patch(model, pairs(padded), metric="loss")
    with pytest.raises(RunError, match=r"metric undefined is not a number in 24 of 24 runs"):

        def undefined(logits):
            return logits[..., 0] * float("nan")

        patch(model, pairs(padded), metric=undefined)
    with pytest.raises(BadInput, match=r"metric total returned \(\) for logits"):

        def total(logits):
            return logits.sum()

        patch(model, pairs(padded), metric=total)
    asking = pairs(padded).drop_vars(["answer", "wrong"])
    with pytest.raises(BadInput, match="these prompts ask nothing"):
        patch(model, asking)
    asking = asking.assign(
        ask=(("batch", "step"), [[8], [8]]), target=(("batch", "step"), [[5], [7]])
    )
    with pytest.raises(BadInput, match="logit_difference compares two answers"):
        patch(model, asking)


def test_chosen_layers_keep_their_numbers(padded):
    model, _ = tiny("llama")
    every, some = (
        patch(model, pairs(padded), gap=0.0),
        patch(model, pairs(padded), gap=0.0, layers=[2]),
    )
    assert list(some["layer"].values) == [2]
    np.testing.assert_allclose(some["effect"], every["effect"].sel(layer=[2]), atol=1e-5)


def test_one_pair_alone_equals_it_in_a_batch(padded):
    model, _ = tiny("llama")
    whole, alone = (
        patch(model, pairs(padded), gap=0.0),
        patch(model, pairs(padded).isel(batch=[1]), gap=0.0),
    )
    np.testing.assert_allclose(
        alone["logit_difference"][0], whole["logit_difference"][1], atol=1e-5
    )


def test_small_gaps_are_masked_and_counted(padded):
    scores = patch(tiny("llama")[0], pairs(padded), gap=1e6)
    assert bool(scores["effect"].isnull().all()) and scores["effect"].attrs["cases_masked"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"site": "zz"}, r"site 'zz' is not known; use one of z, q"),
        ({"layers": [3]}, r"layer 3 does not exist; this model has layers 0 to 2"),
        (
            {"groups": [[(0, 4)]]},
            r"L0H4 does not exist; this model has layers 0 to 2 and heads 0 to 3",
        ),
        ({"groups": [[(0, 2)]], "site": "v"}, r"L0H2 does not exist.*kv_heads 0 to 1"),
        ({"groups": [[(0, 1), (0, 1)]]}, r"L0H1 is named twice in one group"),
        ({"at": "S9"}, r"role 'S9' is not known in these prompts; use one of END"),
        ({"at": "END", "by_position": True}, r"swap at each position or at one role, not both"),
    ],
)
def test_questions_that_cannot_be_are_refused(options, message, padded):
    with pytest.raises(BadInput, match=message):
        patch(tiny("llama")[0], pairs(padded), **options)


def test_token_outside_the_vocabulary_is_refused(padded):
    prompts = pairs(padded)
    prompts["token"][0, 0] = VOCABULARY
    with pytest.raises(
        BadInput, match=f"token {VOCABULARY} lies outside the vocabulary of {VOCABULARY}"
    ):
        patch(tiny("llama")[0], prompts)


def test_weights_with_nan_are_named(padded):
    module = build("llama")
    module.model.layers[1].mlp.up_proj.weight[:] = float("nan")
    model = TransformersModel(
        module, tokenizer=words_tokenizer(), rename=FAMILIES["llama"].rename()
    )
    with pytest.raises(RunError, match="logits are not finite"):
        patch(model, pairs(padded))


def changed_logits(
    model_type: str, prompts: xr.Dataset, layer: int, head: int, new
) -> torch.Tensor:
    """Logit difference of the clean run where a head's output is `new(z)`."""
    _, module = tiny(model_type)
    _, clean = runs(model_type, prompts)

    def exchange(value):
        value = value.clone()
        view = value.view(*value.shape[:2], 4, -1)
        view[:, :, head] = new(view[:, :, head])
        return value

    with oracle.hooked(module, model_type, layer, "z", exchange):
        return difference(oracle.end_logits(module, clean))


def test_zero_and_mean_ablation_equal_plain_hooks(model_type, padded):
    prompts = pairs(padded).isel(
        position=slice(4, None)
    )  # equal length, so that each has another of its kind
    prompts["mask"][:] = 1
    model, module = tiny(model_type)
    _, clean = runs(model_type, prompts)
    for how, new in (("zero", torch.zeros_like), ("mean", lambda z: z.flip(0))):
        scores = ablate(model, prompts, how)
        for layer, head in ((0, 1), (2, 3)):
            expected = changed_logits(model_type, prompts, layer, head, new)
            found = scores["logit_difference"].sel(layer=layer, head=head)
            np.testing.assert_allclose(found, expected, atol=2e-5)
        before = difference(oracle.end_logits(module, clean))
        np.testing.assert_allclose(
            scores["change"], scores["logit_difference"] - before.numpy()[:, None, None], atol=1e-4
        )
        np.testing.assert_allclose(
            scores["relative"] * scores["base_logit_difference"], scores["change"], atol=1e-4
        )


def test_uniform_attention_never_sees_the_future(model_type, padded):
    """Against eager attention whose weights are made equal wherever they were not masked."""
    prompts = pairs(padded)
    model, _ = tiny(model_type)
    _, module = tiny(model_type, "eager")
    _, clean = runs(model_type, prompts)

    def equal(weights):
        weights = weights.clone()
        allowed = (weights[:, 2] > 0).float()  # no weight of these models underflows
        weights[:, 2] = allowed / allowed.sum(-1, keepdim=True).clamp(min=1)
        return weights

    scores = ablate(model, prompts, "uniform")
    for layer in (0, 1):
        with oracle.kernel(module, model_type, layer, reweigh=equal):
            expected = difference(oracle.end_logits(module, clean))
        np.testing.assert_allclose(
            scores["logit_difference"].sel(layer=layer, head=2), expected, atol=2e-5
        )


def test_resampling_takes_another_prompt_of_the_same_length(padded):
    prompts = xr.concat([pairs(padded)] * 3, "batch", data_vars="minimal", join="override")
    prompts = prompts.assign_coords(batch=range(6))
    prompts["token"][2:, 4:] = (prompts["token"][2:, 4:] + 7) % 100 + 5
    scores = ablate(tiny("llama")[0], prompts, "resample", seed=1)
    assert scores["change"].notnull().all() and float(abs(scores["change"]).max()) > 1e-4
    with pytest.raises(
        BadInput, match=r"2 of 2 prompts have no other of their template and length"
    ):
        ablate(tiny("llama")[0], pairs(padded), "resample")


def test_means_stay_within_template_and_length(padded):
    prompts = pairs(padded).assign_coords(template=("batch", [0, 1]))
    fresh = prompts.assign(token=prompts["corrupted"])
    assert means(prompts, fresh).tolist() == [[1, 0], [0, 1]]
    all_three = xr.concat([fresh, prompts, prompts], "batch", data_vars="minimal", join="override")
    all_three["token"][4:] += 1
    assert means(prompts, all_three).tolist() == [[0.5, 0, 0, 0, 0.5, 0], [0, 0.5, 0, 0, 0, 0.5]]
    other = prompts.assign_coords(template=("batch", [2, 1]))
    with pytest.raises(BadInput, match=r"the mean set has no prompt of template 0 with 9 tokens"):
        ablate(tiny("llama")[0], prompts, "mean", reference=other)


@pytest.mark.parametrize("extra", [-4, 3])
def test_a_mean_set_of_another_width_is_lined_up_at_the_end(padded, extra):
    prompts = pairs(padded).isel(batch=[1])  # five tokens behind four of padding
    fresh = prompts.assign(token=prompts["corrupted"])
    own = ablate(tiny("llama")[0], prompts, "mean", reference=fresh)
    wide = (
        fresh.isel(position=slice(4, None))
        if extra < 0
        else fresh.pad(position=(3, 0), constant_values=0)
    )
    found = ablate(tiny("llama")[0], prompts, "mean", reference=wide)
    np.testing.assert_allclose(found["logit_difference"], own["logit_difference"], atol=1e-5)
    assert float(abs(own["change"]).max()) > 1e-4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"how": "shuffle"},
            r"ablation 'shuffle' is not known; use one of mean, zero, uniform, resample",
        ),
        (
            {"how": "uniform", "site": "v"},
            r"uniform attention is a pattern, not a value of v; use site z or pattern",
        ),
    ],
)
def test_ablations_that_cannot_be_are_refused(arguments, message, padded):
    with pytest.raises(BadInput, match=message):
        ablate(tiny("llama")[0], pairs(padded), **arguments)


@pytest.mark.parametrize("site", ["z", "v", "mlp_out"])
def test_values_of_ones_own_are_put_in(padded, site):
    model, _ = tiny("llama")
    prompts = pairs(padded)
    unit, width = {"z": ("head", 16), "v": ("kv_head", 16), "mlp_out": (None, 48)}[site]
    count = {"z": 4, "v": 2}.get(site, 1)
    zeros = xr.DataArray(np.zeros((3, count, width)), dims=("layer", unit or "unit", "width"))
    own = ablate(model, prompts, zeros if unit else zeros.isel(unit=0), site=site)
    np.testing.assert_allclose(
        own["change"], ablate(model, prompts, "zero", site=site)["change"], atol=1e-6
    )
    assert own.attrs["ablation"] == "given"
    other = ablate(model, prompts, zeros + 1.0, site=site)
    assert float(abs(other["change"] - own["change"]).max()) > 1e-4


def test_values_of_ones_own_may_differ_by_case_and_position(padded):
    model, _ = tiny("llama")
    prompts = pairs(padded)
    generator = np.random.default_rng(0)
    values = xr.DataArray(
        generator.normal(size=(3, 2, 4, 9, 16)).astype("float32"),
        dims=("layer", "batch", "head", "position", "width"),
    )
    found = ablate(model, prompts, values)["logit_difference"].sel(layer=1, head=2)
    expected = changed_logits(
        "llama", prompts, 1, 2, lambda _: torch.from_numpy(values.values[1, :, 2])
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "dims", "message"),
    [
        (
            (3, 16),
            ("layer", "width"),
            r"values of z have dimensions \('layer', 'width'\); expected layer, head, width",
        ),
        ((3, 5, 16), ("layer", "head", "width"), r"values have 5 along head, expected 4"),
        (
            (3, 7, 4, 16),
            ("layer", "batch", "head", "width"),
            r"values have 7 along batch, expected 2",
        ),
        ((3, 4, 8), ("layer", "head", "width"), r"values have 8 along width, expected 16"),
        (
            (2, 4, 16),
            ("layer", "head", "width"),
            r"there are no values for layer 2; values are there for layers \[0, 1\]",
        ),
    ],
)
def test_values_that_do_not_fit_are_refused(padded, shape, dims, message):
    with pytest.raises(BadInput, match=message):
        ablate(tiny("llama")[0], pairs(padded), xr.DataArray(np.zeros(shape), dims=dims))

"""Attribution: the parts add up on every family, each head's part is what its weights say, and
coupling is a line.
"""

from __future__ import annotations

from operator import attrgetter
from types import SimpleNamespace

import numpy as np
import oracle
import pytest
import torch
import xarray as xr
from random_models import placed, tiny
from uneven import held, output_weight, uneven, wrapped

import nnheads
from nnheads.errors import BadInput, RunError
from nnheads.models.families import FAMILIES
from nnheads.writing.coupling import SPREAD, coupling, write_coupling
from nnheads.writing.logit_attribution import (
    Attribution,
    check_sum,
    direct_logit_attribution,
    writing_spec,
)

CHANGES = {"cohere": {"logit_scale": 0.0625}}
POST = {"gemma2", "gemma3_text", "olmo2"}


@pytest.fixture
def pairs(padded) -> xr.Dataset:
    ids, mask, _ = padded
    data = {
        "token": (("batch", "position"), ids.numpy()),
        "mask": (("batch", "position"), mask.numpy()),
    }
    answers = {"answer": ("batch", [11, 12]), "wrong": ("batch", [13, 14])}
    return xr.Dataset({**data, **answers}, {"batch": [0, 1]})


def total(found: xr.Dataset) -> xr.DataArray:
    return found["attribution"].sum(["layer", "head"]) + found["component_attribution"].sum(
        "component"
    )


def plain_difference(module, model_type: str, pairs: xr.Dataset) -> np.ndarray:
    """Logit differences before any soft cap: the unembedding's own output, scaled as the family
    does.
    """
    ids, mask = (torch.from_numpy(pairs[name].values) for name in ("token", "mask"))
    seen = []
    handle = attrgetter(FAMILIES[model_type].unembedding)(module).register_forward_hook(
        lambda _, __, output: seen.append(output[:, -1])
    )
    oracle.end_logits(module, oracle.fed(model_type, ids, mask))
    handle.remove()
    rows = torch.arange(len(ids))
    found = seen[0][rows, pairs["answer"].values] - seen[0][rows, pairs["wrong"].values]
    return found.numpy() * (getattr(module.config, "logit_scale", None) or 1)


def test_parts_add_up_to_the_logit_difference(model_type, pairs):
    model, module = uneven(model_type, **CHANGES.get(model_type, {}))
    found = direct_logit_attribution(model, pairs)
    plain = plain_difference(module, model_type, pairs)
    np.testing.assert_allclose(found["logit_difference"], plain, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(total(found), plain, rtol=1e-4, atol=2e-6)
    assert found["component_attribution"].sizes["component"] == 1 + 2 * 3 + 2


def test_rehearsed_remotely_no_weight_is_needed(model_type, pairs):
    model, _ = uneven(model_type, **CHANGES.get(model_type, {}))
    here, there = (
        direct_logit_attribution(model, pairs),
        placed("local", direct_logit_attribution)(model, pairs),
    )
    for name in here.data_vars:
        np.testing.assert_allclose(there[name], here[name], atol=1e-5)


def test_each_head_writes_what_its_weights_say(model_type, pairs):
    """W_O, norms and W_U by hand, from weights and plain hooks."""
    model, module = uneven(model_type, **CHANGES.get(model_type, {}))
    row, found = FAMILIES[model_type], direct_logit_attribution(model, pairs)
    ids, mask = (torch.from_numpy(pairs[name].values) for name in ("token", "mask"))
    given = oracle.fed(model_type, ids, mask)
    norm, stream = attrgetter(row.final_norm)(module), []
    handle = norm.register_forward_pre_hook(lambda _, arguments: stream.append(arguments[0][:, -1]))
    oracle.end_logits(module, given)
    handle.remove()
    columns = attrgetter(row.unembedding)(module).weight
    direction = columns[pairs["answer"].values] - columns[pairs["wrong"].values]
    for layer, block in enumerate(attrgetter(row.layers)(module)):
        z = oracle.value_at(module, model_type, given, layer, "z")[:, -1].unflatten(-1, (4, -1))
        weight = output_weight(attrgetter(row.projection)(block)).unflatten(0, (4, -1))
        written = torch.einsum("chd,hdm->chm", z, weight)
        if model_type in POST:
            added = attrgetter(row.projection)(block)(z.flatten(1))
            written = held(block.post_attention_layernorm, written, added)
        plain = torch.einsum("chm,cm->ch", held(norm, written, stream[0]), direction)
        plain = plain * (getattr(module.config, "logit_scale", None) or 1)
        np.testing.assert_allclose(
            found["attribution"].sel(layer=layer), plain, rtol=1e-3, atol=2e-5
        )


def test_half_precision_adds_up_too(pairs):
    from random_models import build

    for model_type in ("llama", "gpt2", "gemma2"):
        model = wrapped(build(model_type).to(torch.bfloat16), model_type)
        found = direct_logit_attribution(model, pairs)
        assert np.isfinite(found["attribution"]).all()
        np.testing.assert_allclose(total(found), found["logit_difference"], atol=0.1)


def test_the_soft_cap_is_named_and_left_out(pairs):
    capped, plain = (
        direct_logit_attribution(uneven(name)[0], pairs) for name in ("gemma2", "llama")
    )
    assert capped.attrs["soft_cap"] == 30.0 and plain.attrs["soft_cap"] == 0.0


def test_the_corrupted_text_can_be_asked_about(pairs):
    model, _ = tiny("llama")
    other = pairs.assign(
        corrupted=pairs["token"].isel(position=slice(None, None, -1)).variable,
        mask=pairs["mask"] | 1,
    )
    found = direct_logit_attribution(model, other, token="corrupted")
    swapped = direct_logit_attribution(model, other.assign(token=other["corrupted"]))
    np.testing.assert_array_equal(found["attribution"], swapped["attribution"])
    assert found.attrs["run"] == "corrupted"


def test_what_does_not_add_up_is_refused():
    heads, parts = torch.ones(2, 1, 3), torch.ones(2, 2)
    check_sum(Attribution(heads, parts, torch.tensor([5.0, 5.0])), torch.float32)
    with pytest.raises(
        RunError, match=r"case 1 add up to 5\.0000, and the logit difference is 5\.1000"
    ):
        check_sum(Attribution(heads, parts, torch.tensor([5.0, 5.1])), torch.float32)
    check_sum(Attribution(heads, parts, torch.tensor([5.0, 5.1])), torch.bfloat16)


def test_models_that_norm_their_stream_are_refused(pairs):
    bloom, _ = uneven("bloom", apply_residual_connection_post_layernorm=True)
    with pytest.raises(BadInput, match="bloom model norms its residual stream"):
        direct_logit_attribution(bloom, pairs)
    small = SimpleNamespace(config=SimpleNamespace(model_type="opt", do_layer_norm_before=False))
    with pytest.raises(BadInput, match="opt model norms its residual stream"):
        writing_spec(small)


def test_prompts_without_answers_are_refused(pairs):
    with pytest.raises(BadInput, match=r"pairs.*answer and wrong"):
        direct_logit_attribution(tiny("llama")[0], pairs.drop_vars("wrong"))


@pytest.fixture(scope="module")
def coupled() -> tuple[xr.Dataset, xr.Dataset]:
    model = nnheads.load("reference")
    prompts = nnheads.ioi(model.tokenizer, 60, seed=1)
    return prompts, write_coupling(model, prompts)


def test_planted_copying_heads_write_where_they_look(coupled):
    """The induction heads and the retrieval head copy what they attend to; no other head comes
    near.
    """
    heads = coupling(coupled[1])
    strong = (
        heads["correlation"].where(heads["correlation_low"] > 0.8, drop=False).to_series().dropna()
    )
    assert set(strong.index) == {(1, 0), (1, 1), (2, 4)}
    assert (heads["slope_low"].to_series().loc[list(strong.index)] > 1).all()


def test_coupling_takes_attention_and_write_from_where_they_are_measured(coupled):
    prompts, cases = coupled
    model = nnheads.load("reference")
    written = direct_logit_attribution(model, prompts)["attribution"]
    np.testing.assert_allclose(cases["write"], written, atol=1e-5)
    ids = torch.from_numpy(prompts["token"].values[:1]).long()
    first = int(prompts["mask"].values[0].argmax())
    with torch.no_grad():
        eager = model._module
        eager.set_attn_implementation("eager")
        patterns = eager(ids[:, first:], output_attentions=True).attentions
        eager.set_attn_implementation("sdpa")
    key = int(prompts["role_IO"][0]) - first
    for layer, pattern in enumerate(patterns):
        np.testing.assert_allclose(
            cases["attention"][0].sel(layer=layer), pattern[0, :, -1, key], atol=1e-5
        )


def test_coupling_is_a_line_with_an_interval():
    generator = np.random.default_rng(0)
    x = generator.random((200, 1, 3))
    y = 2.5 * x + generator.normal(0, 0.3, x.shape)
    x[:, 0, 2] = 0.3 + SPREAD * 0.1 * generator.random(200)
    dims = ("batch", "layer", "head")
    cases = xr.Dataset(
        {"attention": (dims, x), "write": (dims, y)}, {"layer": [0], "head": [0, 1, 2]}
    )
    found = coupling(cases)
    for head in (0, 1):
        one = found.isel(layer=0, head=head)
        assert one["slope"] == pytest.approx(
            np.polyfit(x[:, 0, head], y[:, 0, head], 1)[0], rel=1e-5
        )
        assert one["correlation"] == pytest.approx(
            np.corrcoef(x[:, 0, head], y[:, 0, head])[0, 1], rel=1e-5
        )
        assert (
            one["slope_low"] < 2.5 < one["slope_high"]
            and one["slope_high"] - one["slope_low"] < 0.6
        )
        assert one["correlation_low"] < one["correlation"] < one["correlation_high"] < 1
    assert np.isnan(found["slope"][0, 2]) and np.isnan(found["correlation_low"][0, 2])
    few = coupling(cases.isel(batch=slice(2)))
    assert np.isnan(few["slope_low"]).all() and np.isfinite(few["slope"][0, :2]).all()


def test_a_role_that_is_not_there_is_refused(coupled):
    model, prompts = nnheads.load("reference"), coupled[0]
    with pytest.raises(BadInput, match=r"'VERB'.* IO, S1"):
        write_coupling(model, prompts, role="VERB")

"""The measuring trace against eager `output_attentions`, on every family, padded or not."""

from __future__ import annotations

import nnsight
import numpy as np
import oracle
import pytest
import torch
import xarray as xr
from random_models import build, placed, tiny, words_tokenizer
from test_rows import eager_patterns

from nnheads.errors import BadInput
from nnheads.models.families import FAMILIES
from nnheads.models.inputs import inputs
from nnheads.spans.measure import measure
from nnheads.trace.fused import run_kernel
from nnheads.trace.kernels import attention_call

KINDS = ["before", "before", "first", "wide", "only one has it"]
QUERY = [[6, 8, 8, 8, -1], [6, 8, 7, 8, 8]]
START = [[5, 7, 0, 2, 0], [5, 7, 4, 5, 8]]
STOP = [[6, 8, 1, 6, 1], [6, 8, 5, 8, 9]]


def with_spans(padded) -> xr.Dataset:
    ids, mask, _ = padded
    place, span = ("batch", "position"), ("batch", "span")
    data = {
        "token": (place, ids.numpy().astype("int32")),
        "mask": (place, mask.numpy().astype("int8")),
        "query": (span, np.array(QUERY, "int32")),
        "key_start": (span, np.array(START, "int32")),
        "key_stop": (span, np.array(STOP, "int32")),
    }
    return xr.Dataset(data, {"batch": [0, 1], "kind": ("span", KINDS)})


def slow(model_type: str, padded, threshold: float) -> dict[str, np.ndarray]:
    """[batch, layer, head, kind] from whole patterns, span by span."""
    ids, mask, _ = padded
    patterns = eager_patterns(model_type, oracle.fed(model_type, ids, mask)).float().numpy()
    kinds = list(dict.fromkeys(KINDS))
    out = {
        name: np.full((2, 3, 4, len(kinds)), np.nan) for name in ("mass", "hit", "above", "uniform")
    }
    for case in range(2):
        for number, kind in enumerate(kinds):
            rows = [i for i, name in enumerate(KINDS) if name == kind and QUERY[case][i] >= 0]
            if not rows:
                continue
            mass, hit, uniform = [], [], []
            for i in rows:
                row = patterns[:, case, :, QUERY[case][i]]
                keys = range(START[case][i], STOP[case][i])
                mass.append(row[..., list(keys)].sum(-1))
                hit.append(np.isin(row.argmax(-1), list(keys)))
                uniform.append(len(keys) / (QUERY[case][i] + 1 - int((mask[case] == 0).sum())))
            out["mass"][case, ..., number] = np.mean(mass, 0)
            out["hit"][case, ..., number] = np.mean(hit, 0)
            out["above"][case, ..., number] = np.mean(np.array(mass) > threshold, 0)
            out["uniform"][case, ..., number] = np.mean(uniform)
    return out


@pytest.mark.parametrize("block_bytes", [1, 1 << 25])
def test_statistics_equal_whole_patterns(model_type, padded, block_bytes):
    model, _ = tiny(model_type)
    scores = measure(model, with_spans(padded), threshold=0.3, block_bytes=block_bytes)
    expected = slow(model_type, padded, 0.3)
    assert (
        scores["mass"].dims == ("batch", "layer", "head", "kind")
        and scores["mass"].dtype == np.float32
    )
    for name, values in expected.items():
        np.testing.assert_allclose(scores[name], values, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("block_bytes", [1, 1 << 25])
def test_the_fast_way_gives_the_same_numbers(model_type, padded, block_bytes):
    """Unpadded, without the strongest key: the fused kernel's norm, where the family allows it."""
    ids, mask, length = padded
    model, _ = tiny(model_type)
    prompts = with_spans((ids, torch.ones_like(mask), length))
    slow, fast = (
        measure(model, prompts),
        measure(model, prompts, hit=False, block_bytes=block_bytes),
    )
    assert "hit" not in fast
    for name in fast.data_vars:
        np.testing.assert_allclose(fast[name], slow[name], atol=1e-5, err_msg=name)


def test_the_fast_way_is_taken(padded, monkeypatch):
    from nnheads.trace import spans

    ids, mask, length = padded
    taken, real = [], spans.fused_spans
    monkeypatch.setattr(spans, "fused_spans", lambda *given: taken.append(1) or real(*given))
    monkeypatch.setattr(spans, "blockwise_mass", lambda *_: pytest.fail("rows were computed"))
    for model_type in ("llama", "gpt2"):
        measure(tiny(model_type)[0], with_spans((ids, torch.ones_like(mask), length)), hit=False)
    assert len(taken) == 2 * 3, "two models of three layers"


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "gpt_neox", "mistral"])
def test_the_strongest_keys_of_long_texts_are_those_of_whole_patterns(model_type):
    long = {"n_positions": 512} if model_type == "gpt2" else {"max_position_embeddings": 512}
    model, eager = (_long(model_type, attention, long) for attention in ("sdpa", "eager"))
    prompts = _many_spans(300, seed=3)
    scores = measure(model, prompts)
    given = inputs(model, prompts)
    with torch.no_grad():
        patterns = eager._module(**given, output_attentions=True).attentions
    query, start, stop = (prompts[name].values[0] for name in ("query", "key_start", "key_stop"))
    keys = np.arange(300)
    inside = torch.from_numpy((keys >= start[:, None]) & (keys < stop[:, None]))
    for layer, pattern in enumerate(patterns):
        rows = pattern[0][:, query].float()
        mass = (rows * inside).sum(-1).mean(-1)
        hit = inside.gather(1, rows.argmax(-1).T).float().mean(0)
        found = scores.sel(layer=layer, kind="some").isel(batch=0)
        np.testing.assert_allclose(found["mass"], mass, atol=1e-5)
        np.testing.assert_allclose(found["hit"], hit, atol=1e-6)


def test_the_model_goes_on_with_the_same_logits():
    model = _long("llama", "sdpa", {})
    given = inputs(model, _many_spans(60, seed=1))
    with torch.no_grad():
        plain = model._module(**given).logits
        with model.trace(**given):
            for layer in model.layers:
                run_kernel(layer, attention_call(layer))
            ours = nnsight.save(model.output.logits)
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)


def _long(model_type: str, attention: str, changes: dict):
    """A tiny model that reads long texts."""
    module = build(model_type, attention=attention, **changes)
    rename = FAMILIES[model_type].rename()
    return nnsight.TransformersModel(module, tokenizer=words_tokenizer(), rename=rename)


def _many_spans(length: int, seed: int) -> xr.Dataset:
    """One text with a span of one to four keys for every token, some of them on itself."""
    draw = np.random.default_rng(seed)
    query = np.arange(length)
    start = draw.integers(0, query + 1)
    stop = np.minimum(start + draw.integers(1, 5, length), query + 1)
    place, span = ("batch", "position"), ("batch", "span")
    data = {
        "token": (place, draw.integers(4, 500, (1, length)).astype("int32")),
        "mask": (place, np.ones((1, length), "int8")),
        "query": (span, query[None].astype("int32")),
        "key_start": (span, start[None].astype("int32")),
        "key_stop": (span, stop[None].astype("int32")),
    }
    return xr.Dataset(data, {"batch": [0], "kind": ("span", ["some"] * length)})


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "bloom"])
def test_rehearsed_remotely_gives_the_same_numbers(model_type, padded):
    model, _ = tiny(model_type)
    here, there = (
        placed(remote, measure)(model, with_spans(padded)) for remote in (False, "local")
    )
    xr.testing.assert_allclose(here, there, atol=1e-6)


def test_one_kind_alone_equals_it_among_others(padded):
    model, _ = tiny("llama")
    whole, alone = (
        measure(model, with_spans(padded)),
        measure(model, with_spans(padded), kinds=["wide"]),
    )
    xr.testing.assert_allclose(alone, whole.sel(kind=["wide"]), atol=1e-6)


def test_one_example_alone_equals_it_in_a_batch(padded):
    model, _ = tiny("llama")
    whole, alone = (
        measure(model, with_spans(padded)),
        measure(model, with_spans(padded).isel(batch=[1])),
    )
    xr.testing.assert_allclose(alone, whole.isel(batch=[1]), atol=1e-6)


def test_spans_over_everything_hold_everything(padded):
    model, _ = tiny("llama")
    prompts = with_spans(padded).isel(span=[0])
    prompts["key_start"].values[:, 0], prompts["key_stop"].values[:, 0] = [0, 4], 7
    scores = measure(model, prompts)
    for name in ("mass", "hit", "uniform"):
        np.testing.assert_allclose(scores[name], 1.0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("key_stop", 8, "asks query 6 about keys 5 to 8"),
        ("key_start", 6, "at least one"),
        ("key_start", -1, "keys must be tokens of the prompt"),
        ("query", 9, "asks query 9"),
    ],
)
def test_spans_that_no_head_can_attend_to_are_refused(padded, name, value, message):
    model, _ = tiny("llama")
    prompts = with_spans(padded)
    prompts[name].values[0, 0] = value
    with pytest.raises(BadInput, match=message):
        measure(model, prompts)


def test_spans_in_the_padding_are_refused(padded):
    model, _ = tiny("llama")
    prompts = with_spans(padded)
    prompts["key_start"].values[1, 2] = 3
    with pytest.raises(BadInput, match="span 2 of prompt 1"):
        measure(model, prompts)


def test_unknown_kind_and_no_spans_are_refused(padded):
    model, _ = tiny("llama")
    with pytest.raises(BadInput, match=r"no spans of kind 'x'; they have before, first"):
        measure(model, with_spans(padded), kinds=["x"])
    prompts = with_spans(padded)
    prompts["query"].values[:] = -1
    with pytest.raises(BadInput, match="the prompts have no spans"):
        measure(model, prompts)


def test_needs_no_gradient(padded):
    model, module = tiny("llama")
    assert torch.is_grad_enabled()
    measure(model, with_spans(padded))
    assert all(parameter.grad is None for parameter in module.parameters())

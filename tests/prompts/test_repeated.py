"""Repeated random tokens: every span by hand, with a beginning-of-sequence token and without."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from random_models import byte_tokenizer, words_tokenizer

from nnheads.errors import BadInput
from nnheads.prompts.repeated import DISTANCES, KINDS, ordinary_tokens, repeated
from nnheads.spans.nulls import NULL, NULL_DRAWS

# (query, key) with three tokens: positions 1 2 3 | 4 5 6 after a first token, or 0 1 2 | 3 4 5
# without one. The second example says them from the second on: its second copy is 2 3 1, or 1 2 0.
WITH = {
    "previous_token": [(2, 1), (3, 2), (4, 3), (5, 4), (6, 5)],  # not (1, 0): there heads rest
    "duplicate_token": [(4, 1), (5, 2), (6, 3)],
    "induction": [(4, 2), (5, 3), (6, 4)],
    "attention_sink": [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0)],
    "current_token": [
        (2, 2),
        (3, 3),
        (4, 4),
        (5, 5),
        (6, 6),
    ],  # token 1 has no other key to compare with
}
WITHOUT = {
    "previous_token": [(2, 1), (3, 2), (4, 3), (5, 4)],
    "duplicate_token": [(4, 1), (5, 2)],
    "induction": [(3, 1), (4, 2), (5, 3)],
    "attention_sink": [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0)],
    "current_token": [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)],
}
SHIFTED_WITH = WITH | {
    "duplicate_token": [(4, 2), (5, 3), (6, 1)],
    "induction": [(4, 3), (5, 4), (6, 2)],
}
SHIFTED_WITHOUT = WITHOUT | {
    "duplicate_token": [(3, 1), (4, 2)],
    "induction": [(3, 2), (4, 3), (5, 1)],
}


@pytest.mark.parametrize(
    ("build", "cells", "first"),
    [(words_tokenizer, (WITH, SHIFTED_WITH), 1), (byte_tokenizer, (WITHOUT, SHIFTED_WITHOUT), 0)],
    ids=["first", "no first"],
)
def test_spans_of_three_tokens_cell_by_cell(build, cells, first):
    prompts = repeated(build(), 2, length=3)
    assert prompts.sizes["position"] == 6 + first and (prompts["mask"] == 1).all()
    for kind in KINDS:
        own = prompts.isel(span=prompts["kind"].values == kind)
        for case in range(2):
            queries, keys = (
                own["query"].values[case].tolist(),
                own["key_start"].values[case].tolist(),
            )
            assert list(zip(queries, keys)) == cells[case][kind], kind
            assert (own["key_stop"] == own["key_start"] + 1).all()


@pytest.mark.parametrize("build", [words_tokenizer, byte_tokenizer], ids=["first", "no first"])
def test_the_spans_hold_the_tokens_that_they_are_named_after(build):
    tokenizer = build()
    prompts = repeated(tokenizer, 5, length=7, seed=3)
    token = prompts["token"].values
    first = token.shape[1] - 14
    for case, row in enumerate(token[:, first:].tolist()):
        assert row[7:] == [*row[case:7], *row[:case]], "from another token on in each example"
    assert all(len(set(row[first : first + 7].tolist())) == 7 for row in token)
    assert not np.isin(token[:, first:], tokenizer.all_special_ids).any()
    each = np.arange(5)[:, None]
    for kind, by in (("duplicate_token", 0), ("induction", 1)):
        own = prompts.isel(span=prompts["kind"].values == kind)
        before = own["key_start"].values - by
        assert np.array_equal(token[each, own["query"].values], token[each, before]), kind


@pytest.mark.parametrize(("n", "length"), [(DISTANCES, 30), (2 * DISTANCES, 30), (6, 6)])
def test_a_fixed_distance_meets_the_targets_of_few_examples(n, length):
    prompts = repeated(words_tokenizer(), n, length=length)
    for kind in ("duplicate_token", "induction"):
        own = prompts.isel(span=prompts["kind"].values == kind)
        distance = (own["query"] - own["key_start"]).values
        met = [(distance == one).mean() for one in range(2 * length + 1)]
        assert max(met) <= 1 / min(DISTANCES, length)


@pytest.mark.parametrize("kind", KINDS)
def test_nulls_ask_the_same_queries_about_other_keys(kind):
    prompts = repeated(words_tokenizer(), 4, length=9)
    true = prompts.isel(span=prompts["kind"].values == kind)
    null = prompts.isel(span=prompts["kind"].values == f"{kind}{NULL}")
    assert null.sizes["span"] == NULL_DRAWS * true.sizes["span"]
    query, key = (np.tile(true[name].values, (1, NULL_DRAWS)) for name in ("query", "key_start"))
    asked = null["query"].values >= 0
    assert np.array_equal(null["query"].values[asked], query[asked])
    drawn = null["key_start"].values
    assert (
        (drawn != key)[asked].all() and (drawn >= 1)[asked].all() and (drawn <= query)[asked].all()
    )


def test_ordinary_tokens_are_no_special_ones():
    tokenizer = words_tokenizer()
    assert set(range(len(tokenizer))) - set(ordinary_tokens(tokenizer)) == set(
        tokenizer.all_special_ids
    )


def test_a_first_token_that_the_tokenizer_adds_itself_stands_there_once():
    from tokenizers.processors import TemplateProcessing

    tokenizer = copy.deepcopy(words_tokenizer())
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 1)]
    )
    assert tokenizer("Mary")["input_ids"][0] == 1
    token = repeated(tokenizer, 2, length=3)["token"].values
    assert token.shape == (2, 7) and (token[:, 0] == 1).all() and not (token[:, 1:] == 1).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "0 prompts were asked for"),
        ({"length": 1}, "1 tokens are too short to repeat"),
        ({"length": 9999}, r"has \d+ ordinary tokens; 9999 different ones cannot be drawn"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options, message):
    with pytest.raises(BadInput, match=message):
        repeated(words_tokenizer(), **options)

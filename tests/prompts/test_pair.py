"""A pair is audited for its tokenizer: what cannot be compared has a reason; words are tokens."""

from __future__ import annotations

import json

import pytest
from random_models import byte_tokenizer, words_tokenizer

from nnheads.errors import BadInput
from nnheads.prompts.pair import Pair
from nnheads.prompts.pairs import tokenize

GOOD = {
    "clean": "Then Mary gave the book to",
    "corrupted": "Then John gave the book to",
    "answer": "John",
    "wrong": "Mary",
}


def test_a_role_that_covers_no_token_is_refused():
    with pytest.raises(BadInput, match=r"role 'S' .* covers no token"):
        tokenize(words_tokenizer(), [Pair(**GOOD, roles={"S": (4, 5)})])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"corrupted": "Then John and Mary gave the book to"},
            "clean and corrupted differ in their number of tokens",
        ),
        ({"corrupted": GOOD["clean"]}, "clean and corrupted are the same tokens"),
        ({"answer": "Mary John"}, "answer is not a single token of this tokenizer"),
        ({"wrong": "Zebulon"}, "wrong is not a single token of this tokenizer"),
        (
            {"corrupted_answer": "Zebulon"},
            "corrupted answer is not a single token of this tokenizer",
        ),
        ({"wrong": "John"}, "answer and wrong are the same token"),
    ],
)
def test_every_reason_to_drop_a_pair_is_named(changes, reason):
    with pytest.raises(BadInput, match=f"none of 1 prompt pairs can be used: {reason}"):
        tokenize(words_tokenizer(), [Pair(**{**GOOD, **changes})])
    kept = tokenize(words_tokenizer(), [Pair(**{**GOOD, **changes}), Pair(**GOOD)])
    assert json.loads(kept.attrs["dropped"]) == {reason: 1} and kept["batch"].values.tolist() == [1]


CHOICE = {
    "clean": "Which one is Mary?\n(M) Mary\n(J) John\nAnswer: (",
    "corrupted": "Which one is John?\n(M) Mary\n(J) John\nAnswer: (",
}


def test_a_word_is_the_token_that_the_text_goes_on_with():
    """After a bracket a choice comes without a blank; either form can be asked for."""
    tokenizer = byte_tokenizer()
    plain, spaced = tokenizer.convert_tokens_to_ids(["J", "ĠJohn"])
    bare = tokenize(tokenizer, [Pair(**CHOICE, answer="J", wrong="M")])
    assert int(bare["answer"][0]) == plain
    asked = tokenize(tokenizer, [Pair(**CHOICE, answer="John", wrong="Mary", blank=True)])
    written = tokenize(tokenizer, [Pair(**CHOICE, answer=" John", wrong=" Mary")])
    assert int(asked["answer"][0]) == int(written["answer"][0]) == spaced


@pytest.mark.parametrize(
    ("text", "blank", "said"),
    [
        ("give it to", None, "with a blank"),
        ("(", None, "without a blank"),
        ("give it to", True, ""),
        ("(", False, ""),
    ],
)
def test_where_both_forms_are_tokens_it_is_said_which_was_taken(text, blank, said):
    tokenizer = byte_tokenizer(("a", "b", "to", "it"))  # " a" and "a" are tokens
    pair = Pair(f"x {text}", f"y {text}", "a", "b", blank=blank)
    form = tokenize(tokenizer, [pair]).attrs["word_form"]
    assert (said in form and form[:2] == "1 ") if said else form == ""


@pytest.mark.parametrize("span", [(-5, 2), (0, 10**12), (4, 2), (3, 3)])
def test_a_role_outside_its_text_is_refused(span):
    with pytest.raises(BadInput, match="role 'S'"):
        tokenize(words_tokenizer(), [Pair(**GOOD, roles={"S": span})])


@pytest.mark.parametrize("character", ["\0", "\ud800"])
def test_characters_that_no_file_holds_are_refused(character):
    pair = Pair(**{**GOOD, "clean": f"{GOOD['clean']}{character}"})
    with pytest.raises(BadInput, match="character"):
        tokenize(byte_tokenizer(), [pair])

"""How texts become tokens: special tokens at both ends, and the token of a word behind a text."""

from __future__ import annotations

import pytest
from random_models import byte_tokenizer, whole_words, words_tokenizer
from tokenizers.processors import TemplateProcessing

from nnheads.models.texts import (
    added_tokens,
    encode,
    encode_all,
    encode_with_offsets,
    next_token,
    next_tokens,
    prefix,
    tokens_behind,
)


def with_ends(single: str):
    """A tokenizer of whole words that puts special tokens around every text."""
    tokenizer = whole_words(
        ["<s>", "</s>", "<unk>", "a", "b", "Mary"], bos_token="<s>", eos_token="</s>"
    )
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=single, special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return tokenizer


@pytest.mark.parametrize(
    ("single", "first"), [("$A", []), ("<s> $A", [0]), ("$A </s>", []), ("<s> $A </s>", [0])]
)
def test_special_tokens_stand_in_front_once_and_never_behind(single, first):
    tokenizer = with_ends(single)
    assert prefix(tokenizer) == first
    assert encode(tokenizer, "a b") == [*first, 3, 4]
    assert encode(tokenizer, "") == first
    assert encode(tokenizer, "<s>a b") == [0, 3, 4], "a text that has it already has it once"
    assert next_token(tokenizer, "a", "b") == 4
    ids, offsets = encode_with_offsets(tokenizer, "a b")
    assert ids == [*first, 3, 4] and offsets[-2:] == [(0, 1), (2, 3)]


def test_a_text_that_begins_with_several_of_them_has_them_once():
    assert encode(with_ends("<s> $A"), "<s> <s> a") == [0, 3]
    assert encode(with_ends("</s> <s> $A"), "<s>a") == [1, 0, 3]


def test_an_end_that_the_user_writes_stays():
    assert encode(with_ends("<s> $A </s>"), "a</s>b") == [0, 3, 1, 4]


@pytest.mark.parametrize(
    "tokenizer", [with_ends("<s> $A </s>"), byte_tokenizer(), words_tokenizer()]
)
def test_several_texts_and_words_are_read_as_each_alone(tokenizer):
    texts = ["", "a b", "<s>a", "Mary is in the park", "b " * 40]
    assert encode_all(tokenizer, texts) == [encode(tokenizer, text) for text in texts]
    words = ["b", "Mary", " Mary", "", "no such word", "park", "b"]
    for text in ("a", "(", "a "):
        for blank in (None, True, False):
            each = [next_token(tokenizer, text, word, blank=blank) for word in words]
            assert next_tokens(tokenizer, text, words, blank=blank) == each
            assert each[0] == each[-1]
    assert any(next_tokens(tokenizer, "a", words)), "some are one token"
    assert encode_all(tokenizer, []) == [] == next_tokens(tokenizer, "a", [])


def test_both_forms_of_a_word_can_be_asked_for():
    tokenizer = byte_tokenizer()
    spaced, plain = tokenizer.convert_tokens_to_ids(["ĠMary", "M"])
    assert next_token(tokenizer, "to", "Mary") == spaced
    assert next_token(tokenizer, "to", " Mary") == spaced
    assert next_token(tokenizer, "(", "M") == plain
    assert next_token(tokenizer, "to", "M", blank=False) == plain
    assert next_token(tokenizer, "(", "Mary", blank=True) == spaced
    assert next_token(tokenizer, "(", " Mary") == spaced, "a blank that is written is meant"
    assert next_token(tokenizer, "(", "Mary", blank=False) is None, "without one it is four bytes"
    assert next_token(tokenizer, "(", "Mary") == spaced, "the form that is one token"
    assert [tokenizer.decode(one) for one in added_tokens(tokenizer, "(", "Mary")] == list("Mary")


def test_behind_a_blank_the_word_comes_without_one():
    """The tokenizer would take the blank into the word; a model that has read it does not."""
    tokenizer = byte_tokenizer()
    assert next_token(tokenizer, "to ", "M") == tokenizer.convert_tokens_to_ids("M")
    assert next_token(tokenizer, "to\n", "M") == tokenizer.convert_tokens_to_ids("M")


def test_older_llama_tokenizers_are_asked_in_context():
    """A word by itself begins with a blank of its own there: " book" alone is two tokens."""
    from tokenizers import Tokenizer, models, normalizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "▁", "▁is", "▁book", "b", "o", "k", "i", "s"]
    merges = [("▁", "i"), ("▁i", "s"), ("▁", "b"), ("▁b", "o"), ("▁bo", "o"), ("▁boo", "k")]
    vocabulary = [*words, "▁i", "▁b", "▁bo", "▁boo"]
    backend = Tokenizer(models.BPE({one: i for i, one in enumerate(vocabulary)}, merges))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    assert len(tokenizer(" book")["input_ids"]) == 2
    assert next_token(tokenizer, "is", "book", blank=True) == 3
    assert tokens_behind(tokenizer, "book") == [1]


def test_unknown_words_are_none():
    assert next_token(words_tokenizer(), "to", "Zebulon") is None
    assert next_token(words_tokenizer(), "to", "  ") is None

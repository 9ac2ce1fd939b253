"""Indirect-object sentences: known answers, the same draw for the same seed, roles on the right
tokens.
"""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_models import byte_tokenizer, words_tokenizer

from nnheads.errors import BadInput
from nnheads.prompts.format import shape_error
from nnheads.prompts.ioi import CORRUPTIONS, ORDERS, corrupt, draw, ioi, single_token_names
from nnheads.prompts.ioi_spans import SPANS, with_spans
from nnheads.prompts.ioi_words import (
    ADJECTIVES,
    HELD_OUT_NAMES,
    HELD_OUT_TEMPLATES,
    NAMES,
    OBJECTS,
    PLACES,
    TEMPLATES,
)

TEMPLATE = "When {first} and {second} met, {subject} gave it to"
FIVE = ["Io", "Su", "Xa", "Yo", "Zu"]


@pytest.mark.parametrize(
    ("order", "corruption", "clean", "corrupted", "right"),
    [
        (
            "ABBA",
            "other",
            "When Io and Su met, Su gave it to",
            "When Io and Su met, Io gave it to",
            "Su",
        ),
        (
            "BABA",
            "other",
            "When Su and Io met, Su gave it to",
            "When Su and Io met, Io gave it to",
            "Su",
        ),
        (
            "ABBA",
            "random",
            "When Io and Su met, Su gave it to",
            "When Io and Su met, Xa gave it to",
            None,
        ),
        (
            "BABA",
            "random",
            "When Su and Io met, Su gave it to",
            "When Su and Io met, Xa gave it to",
            None,
        ),
        (
            "ABBA",
            "abc",
            "When Io and Su met, Su gave it to",
            "When Xa and Yo met, Zu gave it to",
            None,
        ),
        (
            "BABA",
            "abc",
            "When Su and Io met, Su gave it to",
            "When Xa and Yo met, Zu gave it to",
            None,
        ),
        (
            "ABBA",
            "swapped",
            "When Io and Su met, Su gave it to",
            "When Su and Io met, Su gave it to",
            "Io",
        ),
        (
            "BABA",
            "swapped",
            "When Su and Io met, Su gave it to",
            "When Io and Su met, Su gave it to",
            "Io",
        ),
    ],
)
def test_each_corruption_is_what_it_says(order, corruption, clean, corrupted, right):
    pair = corrupt(TEMPLATE, order, FIVE, corruption, {})
    assert (pair.clean, pair.corrupted, pair.corrupted_answer) == (clean, corrupted, right)
    assert (pair.answer, pair.wrong) == ("Io", "Su")
    words = {name: pair.clean[slice(*span)] for name, span in pair.roles.items()}
    assert words == {"IO": "Io", "S1": "Su", "S2": "Su", "END": "o"}
    assert pair.roles["S1"] < pair.roles["S2"]


@given(
    st.integers(0, 2**32),
    st.integers(1, 45),
    st.sampled_from(sorted(CORRUPTIONS)),
    st.integers(1, 20),
)
def test_a_draw_is_decided_by_its_seed_and_longer_draws_begin_alike(seed, n, corruption, templates):
    options = {
        "seed": seed,
        "corruption": corruption,
        "templates": TEMPLATES[:templates],
        "names": NAMES,
    }
    pairs = draw(n, **options)
    assert pairs == draw(n, **options) and pairs == draw(n + 3, **options)[:n]
    for pair in pairs:
        assert pair.answer != pair.wrong and {pair.answer, pair.wrong} <= set(NAMES)
        assert (
            len(pair.clean.split()) == len(pair.corrupted.split()) and pair.clean != pair.corrupted
        )


def test_spread_moves_the_end_away_from_the_second_subject_and_changes_nothing_else():
    plain, spread = (ioi(words_tokenizer(), 60, seed=3, spread=spread) for spread in (0, 3))
    far = (spread["role_END"] - spread["role_S2"]).values
    assert set((plain["role_END"] - plain["role_S2"]).values) == {4} and set(far) == {4, 5, 6, 7}
    for name in ("answer", "wrong", "template", "order", "subject"):
        np.testing.assert_array_equal(plain[name], spread[name])
    for order in ORDERS:
        assert set(far[spread["order"].values == order]) == {4, 5, 6, 7}, (
            "distances and orders are drawn apart"
        )
    words = [text.split() for text in spread["clean_text"].values]
    bare = [[word for word in row if word not in ADJECTIVES] for row in words]
    assert bare == [text.split() for text in plain["clean_text"].values]
    changed = spread["token"] != spread["corrupted"]
    assert (changed.sum("position") == 1).all(), "the corrupted sentence has the same adjectives"
    assert spread.attrs["spread"] == 3


@pytest.mark.parametrize("spread", [-1, len(ADJECTIVES) + 1])
def test_a_spread_that_is_not_possible_is_refused(spread):
    with pytest.raises(
        BadInput, match=f"spread {spread} is not possible; there are {len(ADJECTIVES)} adjectives"
    ):
        ioi(words_tokenizer(), 4, spread=spread)


def test_another_seed_draws_other_sentences():
    one, two = (
        draw(20, seed=seed, corruption="other", templates=TEMPLATES, names=NAMES) for seed in (0, 1)
    )
    assert [pair.clean for pair in one] != [pair.clean for pair in two]


def test_a_known_draw_stays_what_it_was():
    """A change here changes every published number that names a seed."""
    pair = draw(1, seed=0, corruption="other", templates=TEMPLATES, names=NAMES)[0]
    assert pair.clean == "When Michael and Stephen went to the castle, Stephen gave the hat to"


@pytest.mark.parametrize("count", [1, 2, 3, 20])
def test_two_rounds_of_templates_meet_both_orders(count):
    pairs = draw(2 * count, seed=0, corruption="other", templates=TEMPLATES[:count], names=NAMES)
    met = {(pair.about["template"], pair.about["order"]) for pair in pairs}
    assert met == {(template, order) for template in range(count) for order in ORDERS}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_every_template_of_ours_passes_the_filter(template, order):
    filled = template.replace("{place}", PLACES[0]).replace("{object}", OBJECTS[0])
    pair = corrupt(filled, order, FIVE, "other", {})
    assert shape_error(pair.clean, "Io", "Su") is None
    assert shape_error(pair.corrupted, pair.corrupted_answer, pair.answer) is None
    assert re.match(r"\w+ ", pair.clean) and "{" not in pair.clean and pair.clean.endswith(" to")


def test_the_words_are_distinct_and_no_name_is_a_word_of_a_sentence():
    for words in (NAMES, PLACES, OBJECTS, TEMPLATES):
        assert len(set(words)) == len(words)
    sentences = " ".join([*TEMPLATES, *PLACES, *OBJECTS])
    assert not set(NAMES) & set(re.findall(r"\w+", sentences))
    assert max(HELD_OUT_TEMPLATES) == len(TEMPLATES) - 1 and max(HELD_OUT_NAMES) == len(NAMES) - 1


@pytest.mark.parametrize("corruption", CORRUPTIONS)
@pytest.mark.parametrize("tokenizer", [words_tokenizer(), byte_tokenizer()], ids=["words", "bytes"])
def test_roles_point_at_their_words_in_both_orders_and_with_padding(tokenizer, corruption):
    prompts = ioi(tokenizer, 40, seed=3, corruption=corruption)
    assert prompts.sizes["batch"] == 40 and json.loads(prompts.attrs["dropped"]) == {}
    assert set(prompts["order"].values) == set(ORDERS) and set(prompts["mask"].values.ravel()) == {
        0,
        1,
    }
    ends = {"IO": "indirect_object", "S1": "subject", "S2": "subject"}
    for role, label in ends.items():
        tokens = prompts["token"].isel(position=prompts[f"role_{role}"]).values
        assert [tokenizer.decode([token]).strip() for token in tokens] == prompts[
            label
        ].values.tolist()
    assert bool((prompts["role_S1"] < prompts["role_S2"]).all())
    first = np.where(prompts["order"].values == "ABBA", prompts["role_IO"], prompts["role_S1"])
    assert (first == np.minimum(prompts["role_IO"], prompts["role_S1"])).all()
    assert bool((prompts["role_END"] == prompts.sizes["position"] - 1).all())


@pytest.mark.parametrize("tokenizer", [words_tokenizer(), byte_tokenizer()], ids=["words", "bytes"])
@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_tokens_say_what_the_texts_say(tokenizer, corruption):
    prompts = ioi(tokenizer, 8, corruption=corruption)
    for row in range(8):
        one = prompts.isel(batch=row)
        real = one["mask"].values.astype(bool)
        for ids, text in (("token", "clean_text"), ("corrupted", "corrupted_text")):
            assert one[ids].values[real].tolist() == tokenizer(str(one[text].values))["input_ids"]
        assert tokenizer.decode([int(one["answer"])]).strip() == str(one["indirect_object"].values)
        assert tokenizer.decode([int(one["wrong"])]).strip() == str(one["subject"].values)
    has_answer = corruption in ("other", "swapped")
    assert bool(((prompts["corrupted_answer"] >= 0) == has_answer).all())
    if has_answer:
        right = {"other": "wrong", "swapped": "answer"}[corruption]
        assert bool((prompts["corrupted_answer"] == prompts[right]).all())


def test_names_that_the_tokenizer_splits_are_left_out_and_counted():
    whole = ["Mary", "John", "Anna", "Leo", "Max", "Rita"]
    assert sorted(single_token_names(byte_tokenizer())) == sorted(whole)
    prompts = ioi(byte_tokenizer(), 30)
    assert prompts.attrs["names_single"] == 6 and prompts.attrs["names_split"] == len(NAMES) - 6
    assert set(prompts["indirect_object"].values) | set(prompts["subject"].values) <= set(whole)
    assert single_token_names(words_tokenizer(), ["Mary", "Zebulon", "John"]) == ["Mary", "John"]
    assert single_token_names(words_tokenizer()) == list(NAMES)


def test_a_tokenizer_with_too_few_names_is_refused():
    with pytest.raises(
        BadInput, match=f"only 3 of {len(NAMES)} names are single tokens of this tokenizer; 5 are"
    ):
        ioi(byte_tokenizer(("Mary", "John", "Anna")), 4)


def test_impossible_numbers_and_corruptions_are_refused():
    with pytest.raises(BadInput, match="0 prompts were asked for"):
        ioi(words_tokenizer(), 0)
    with pytest.raises(BadInput, match="corruption 'zzz' is not known"):
        ioi(words_tokenizer(), 1, corruption="zzz")
    with pytest.raises(BadInput, match="seed -1 is not possible"):
        ioi(words_tokenizer(), 1, seed=-1)


def test_what_was_drawn_is_written_down():
    prompts = ioi(words_tokenizer(), 5, seed=7, corruption="abc")
    assert {key: prompts.attrs[key] for key in ("seed", "corruption", "asked", "about")} == {
        "seed": 7,
        "corruption": "abc",
        "asked": 5,
        "about": CORRUPTIONS["abc"],
    }


def test_spans_stand_where_the_roles_say():
    prompts = ioi(words_tokenizer(), 12, seed=2, corruption="abc")
    spanned = with_spans(prompts, seed=2)
    kinds = spanned["kind"].values
    place = {name: prompts[f"role_{name}"].values for name in ("IO", "S1", "S2", "END")}
    looks = {
        "name_mover": ("END", 0, "IO", 0),
        "subject": ("END", 0, "S2", 0),
        "duplicate": ("S2", 0, "S1", 0),
        "induction": ("S2", 0, "S1", 1),
        "previous": ("S1", 1, "S1", 0),
        "before_end": ("END", 0, "END", -1),
        "name_mover_other": ("END", 0, "S1", 0),
        "duplicate_other": ("S2", 0, "IO", 0),
        "induction_other": ("S2", 0, "IO", 1),
    }
    assert (
        [kind for kind in dict.fromkeys(kinds) if not kind.endswith("~null")]
        == list(looks)
        == list(SPANS)
    )
    for kind, (query, further, key, beyond) in looks.items():
        own = spanned.isel(span=kinds == kind)
        assert np.array_equal(own["query"].values[:, 0], place[query] + further)
        assert np.array_equal(own["key_start"].values[:, 0], place[key] + beyond)
        assert bool((own["key_stop"] == own["key_start"] + 1).all())
        null = spanned.isel(span=kinds == f"{kind}~null")
        real = null["query"].values >= 0
        assert np.all(null["key_start"].values[real] <= null["query"].values[real])
    assert (
        np.array_equal(spanned["corrupted"], prompts["corrupted"])
        and spanned.attrs["corruption"] == "abc"
    )


def test_spans_need_roles():
    prompts = ioi(words_tokenizer(), 4).drop_vars(["role_S1", "role_IO"])
    with pytest.raises(BadInput, match=r"no role IO, S1"):
        with_spans(prompts)

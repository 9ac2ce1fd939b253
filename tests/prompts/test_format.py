"""The format filter against a slow definition in plain Python, and sentences turned back into
pairs.
"""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nnheads.prompts.format import from_sentences, keep_well_formed, shape_error
from nnheads.prompts.ioi import CORRUPTIONS, draw
from nnheads.prompts.ioi_words import NAMES, TEMPLATES
from nnheads.prompts.pair import Pair

COUNTS = "not the shape of the task: the answer once and the wrong name twice"
ORDER = "not the shape of the task: both names must be introduced before one is repeated"
END = "does not stop where a name is expected"


def words_of(sentence: str) -> list[str]:
    return "".join(c if c.isalnum() or c == "_" else " " for c in sentence).split()


def slowly(sentence: str, answer: str, wrong: str) -> str | None:
    """The definition, word by word; for names of one word."""
    words = words_of(sentence)
    if words.count(answer) != 1 or words.count(wrong) != 2:
        return COUNTS
    if [word for word in words if word in (answer, wrong)][-1] == answer:
        return ORDER
    last = sentence.rstrip()[-1]
    if not (last.isalnum() or last == "_") or words[-1] in (answer, wrong):
        return END
    return None


pieces = st.sampled_from(
    [
        "Mary",
        "John",
        "Mary",
        "John",
        "Marys",
        "mary",
        "Ann",
        "and",
        "to",
        ",",
        ".",
        "\n",
        "é",
        "_",
        '"',
        " ",
    ]
)


@given(
    st.lists(pieces, max_size=9), st.sampled_from(["", " "]), st.sampled_from(["Mary", "Ann", "é"])
)
@example(["Mary", "and", "John", ",", "John", "to"], " ", "Mary")
@example(["John", "and", "Mary", ",", "John", "to", "\n"], " ", "Mary")
@example(["John", "and", "John", ",", "Mary", "to"], " ", "Mary")
@example(["Mary", "and", "John", ",", "John"], " ", "Mary")
@example(["Mary", "and", "John", ",", "John", "to", "."], " ", "Mary")
def test_the_filter_agrees_with_its_definition(words, between, answer):
    sentence = between.join(words)
    assert shape_error(sentence, answer, "John") == slowly(sentence, answer, "John")


@given(st.text(max_size=60), st.text(max_size=5), st.text(max_size=5))
@example("J.R. and (x met, (x gave to", "J.R.", "(x")
@example("", "", "")
def test_arbitrary_text_never_crashes_the_filter(sentence, answer, wrong):
    assert shape_error(sentence, answer, wrong) in (None, COUNTS, ORDER, END)


def test_names_that_end_in_a_point_or_have_two_words_are_found():
    assert shape_error("When J.R. and Mary Ann met, J.R. gave a hat to", "Mary Ann", "J.R.") is None
    assert shape_error("When Ann and Mary Ann met, Ann gave a hat to", "Mary Ann", "Ann") == COUNTS


def test_a_very_long_sentence_is_judged_at_once():
    long = "When Mary and John met, " + "so " * 50_000 + "John gave it to"
    assert shape_error(long, "Mary", "John") is None
    assert shape_error("Mary John " * 20_000, "Mary", "John") == COUNTS


@given(
    st.integers(0, 1000),
    st.sampled_from(sorted(CORRUPTIONS)),
    st.sampled_from(["", ".", "...", " ___", "…", '"']),
)
def test_sentences_of_ours_are_read_back_as_the_pairs_they_came_from(seed, corruption, ending):
    drawn = draw(6, seed=seed, corruption=corruption, templates=TEMPLATES[seed % 20 :], names=NAMES)
    read, dropped = from_sentences([f"  {pair.clean}{ending}\n" for pair in drawn], corruption)
    assert not dropped and len(read) == len(drawn)
    for ours, theirs in zip(drawn, read):
        assert (theirs.clean, theirs.answer, theirs.wrong, theirs.roles) == (
            ours.clean,
            ours.answer,
            ours.wrong,
            ours.roles,
        )
        assert theirs.about["order"] == ours.about["order"]
        if corruption in ("other", "swapped"):  # the others bring names that only the draw knows
            assert (theirs.corrupted, theirs.corrupted_answer) == (
                ours.corrupted,
                ours.corrupted_answer,
            )
        else:
            assert (
                len(theirs.corrupted.split()) == len(theirs.clean.split())
                and theirs.corrupted_answer is None
            )
    assert keep_well_formed(read)[0] == read


@pytest.mark.parametrize(
    ("sentence", "reason"),
    [
        ("", "not exactly two known names, one of them twice"),
        ("The cat gave a hat to", "not exactly two known names, one of them twice"),
        (
            "Mary and John and Paul met, John gave a hat to",
            "not exactly two known names, one of them twice",
        ),
        ("Mary and John met, Mary told John to", "not exactly two known names, one of them twice"),
        ("Mary saw Mary and then John left to", ORDER),
        (
            "Mary and John met, John gave a hat to John",
            "not exactly two known names, one of them twice",
        ),
        ("Mary met John, a hat was thrown by John", END),
        ("Mary and John met; John asked why?", END),
    ],
)
def test_every_reason_to_drop_a_sentence_is_counted(sentence, reason):
    pairs, dropped = from_sentences(
        [sentence, "Mary and John met, John gave a hat to", sentence], "other"
    )
    assert [pair.answer for pair in pairs] == ["Mary"] and dropped == {reason: 2}


@given(st.lists(st.text(max_size=60), max_size=4), st.sampled_from(sorted(CORRUPTIONS)))
@example(["{first} and Mary and John, John {subject} {x} gave to"], "abc")
def test_arbitrary_sentences_are_kept_or_counted(sentences, corruption):
    pairs, dropped = from_sentences(sentences, corruption)
    assert len(pairs) + dropped.total() == len(sentences)
    assert all(shape_error(pair.clean, pair.answer, pair.wrong) is None for pair in pairs)


def test_pairs_that_end_differently_or_have_no_shape_are_counted():
    good = Pair(
        "Mary and John met, John gave to", "Mary and John met, Mary gave to", "Mary", "John"
    )
    unlike = Pair(good.clean, "Mary and John met, Mary gave for", "Mary", "John")
    blank = Pair(good.clean, " ", "Mary", "John")
    shapeless = Pair("Mary gave to", "John gave to", "Mary", "John")
    kept, dropped = keep_well_formed([good, unlike, blank, shapeless])
    assert kept == [good]
    assert dropped == {"clean and corrupted do not end with the same word": 2, COUNTS: 1}

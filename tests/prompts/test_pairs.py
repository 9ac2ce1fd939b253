"""Pairs from files and for a tokenizer: nothing but BadInput for bad input, and every position
where it belongs.
"""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from random_models import byte_tokenizer, words_tokenizer

from nnheads.errors import BadInput
from nnheads.models.texts import next_token
from nnheads.prompts.pair import Pair
from nnheads.prompts.pair_files import FIELDS, read_pairs
from nnheads.prompts.pairs import one_pair, token_texts, tokenize

GOOD = {
    "clean": "Then Mary gave the book to",
    "corrupted": "Then John gave the book to",
    "answer": "John",
    "wrong": "Mary",
}
LONG = Pair(
    "When Mary and John met, Mary gave the book to",
    "When Mary and John met, John gave the book to",
    "John",
    "Mary",
)
SHORT = Pair(**GOOD)


def write_lines(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(str.strip)


@given(st.lists(st.fixed_dictionaries(dict.fromkeys(FIELDS, text)), min_size=1, max_size=4))
@example([{**GOOD, "clean": "a\u2028b\x0bc\x1dd\x85e"}])
@example([{**GOOD, "clean": 'two\nlines, and a "quote"'}])
def test_json_lines_and_csv_give_back_what_was_written(tmp_path_factory, records):
    folder = tmp_path_factory.mktemp("pairs", numbered=True)
    lines = folder / "pairs.jsonl"
    lines.write_text(
        "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records),
        encoding="utf-8",
    )
    assert read_pairs(lines) == [Pair(**record) for record in records]
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, FIELDS)
    writer.writeheader()
    writer.writerows(records)
    path = folder / "pairs.csv"
    path.write_text(table.getvalue(), encoding="utf-8", newline="")
    if not any("\0" in value for record in records for value in record.values()):
        assert read_pairs(path) == [Pair(**record) for record in records]


@given(st.binary(max_size=200), st.sampled_from([".jsonl", ".csv", ""]))
@example(b"[" * 100_000, ".jsonl")
@example(b"9" * 5000, ".jsonl")
@example(b"x" * 200_000, ".csv")
@example(b'clean,corrupted\n"' + b"x" * 200_000, ".csv")
@example(b'{"clean": "\\ud800", "corrupted": "b", "answer": "c", "wrong": "d"}', ".jsonl")
@example(
    b'{"clean": "a", "corrupted": "b", "answer": "c", "wrong": "d", "corrupted_answer": 5}',
    ".jsonl",
)
@example(b"\0", ".csv")
def test_arbitrary_bytes_raise_nothing_but_bad_input(tmp_path_factory, content, suffix):
    path = tmp_path_factory.mktemp("bytes", numbered=True) / f"pairs{suffix}"
    path.write_bytes(content)
    try:
        pairs = read_pairs(path)
    except BadInput as error:
        assert len(str(error).splitlines()) == 1 and str(path) in str(error)
    else:
        assert pairs and all(getattr(pair, name).strip() for pair in pairs for name in FIELDS)
        assert all(isinstance(pair.corrupted_answer, str | None) for pair in pairs)


@given(st.text(max_size=200))
@example('{"clean": 1}\n')
@example("clean,corrupted,answer,wrong\n,,,")
def test_arbitrary_text_raises_nothing_but_bad_input(tmp_path_factory, content):
    for suffix in (".jsonl", ".csv"):
        path = tmp_path_factory.mktemp("text", numbered=True) / f"pairs{suffix}"
        path.write_bytes(content.encode("utf-8", "surrogatepass"))
        with pytest.raises(BadInput):
            read_pairs(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.jsonl",
            b"",
            "holds no pairs.*clean, corrupted, answer, wrong",
        ),
        ("a.csv", b"", "holds no pairs"),
        ("a.csv", b"clean,corrupted,answer,wrong\n", "holds no pairs"),
        (
            "a.csv",
            b"Mary,John,Mary,John\nMary,John,Mary,John\n",
            "line 1: the header names no 'clean'",
        ),
        ("a.jsonl", b"\n\n  \n", "holds no pairs"),
        ("a.jsonl", b"\xff\xfe\x00", "is not a text file in UTF-8"),
        ("a.jsonl", b'{"clean": "a"', "line 1: not JSON"),
        ("a.jsonl", b"[1, 2]", "line 1: expected an object"),
        (
            "a.jsonl",
            b'{"clean": "a", "corrupted": "b", "answer": " ", "wrong": "d"}',
            "line 1: 'answer' is missing or",
        ),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadInput, match=message):
        read_pairs(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.jsonl", tmp_path, "\0"):
        with pytest.raises(BadInput, match=r"No file .*Expected \.jsonl or \.csv"):
            read_pairs(path)


def test_the_line_of_an_incomplete_record_is_named(tmp_path):
    without = {key: value for key, value in GOOD.items() if key != "wrong"}
    with pytest.raises(BadInput, match=r"line 3: 'wrong' is missing or empty"):
        read_pairs(write_lines(tmp_path / "a.jsonl", GOOD, GOOD, without))
    table = tmp_path / "a.csv"
    table.write_text('clean,corrupted,answer,wrong\n"two\nlines",b,c,d\na,b,c\n')
    with pytest.raises(BadInput, match=r"line 4: 'wrong' is missing or empty"):
        read_pairs(table)


def test_a_byte_order_mark_and_blank_lines_are_read_over(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        b"\xef\xbb\xbf" + json.dumps({**GOOD, "corrupted_answer": "Mary"}).encode() + b"\r\n\r\n"
    )
    assert read_pairs(path) == [Pair(**GOOD, corrupted_answer="Mary")]


def test_rows_are_padded_on_the_left_and_keep_their_numbers():
    tokenizer = words_tokenizer()
    unequal = Pair("Then Mary went to", "Then Mary and John went to", "John", "Mary")
    dataset = tokenize(tokenizer, [LONG, unequal, SHORT])
    assert dataset["token"].shape == (2, 11) and dataset["batch"].values.tolist() == [0, 2]
    assert dataset["mask"].sum("position").values.tolist() == [11, 6]
    assert dataset["mask"].values[1].tolist() == [0] * 5 + [1] * 6
    for name, pairs in (("token", "clean"), ("corrupted", "corrupted")):
        ids = dataset[name].values[1]
        assert ids[:5].tolist() == [tokenizer.pad_token_id] * 5
        assert ids[5:].tolist() == tokenizer(GOOD[pairs])["input_ids"]
    assert tokenizer.convert_ids_to_tokens(dataset["answer"].values.tolist()) == ["John", "John"]
    assert tokenizer.convert_ids_to_tokens(dataset["wrong"].values.tolist()) == ["Mary", "Mary"]
    assert dataset["corrupted_answer"].values.tolist() == [-1, -1]
    assert dataset.attrs["asked"] == 3
    assert json.loads(dataset.attrs["dropped"]) == {
        "clean and corrupted differ in their number of tokens": 1
    }


def test_a_role_keeps_its_token_when_the_row_is_padded():
    def with_roles(pair):
        start = pair.clean.rindex("Mary")
        return Pair(
            pair.clean, pair.corrupted, pair.answer, pair.wrong, roles={"S": (start, start + 4)}
        )

    dataset = tokenize(words_tokenizer(), [with_roles(LONG), with_roles(SHORT)])
    at_role = dataset["token"].isel(position=dataset["role_S"]).values
    assert words_tokenizer().convert_ids_to_tokens(at_role.tolist()) == ["Mary", "Mary"]
    assert dataset["role_S"].values.tolist() == [6, 6]


def test_no_pairs_at_all_are_refused():
    with pytest.raises(BadInput, match="none of 0 prompt pairs can be used: there are none"):
        tokenize(words_tokenizer(), [])


def test_one_pair_shows_both_rows_of_tokens():
    with pytest.raises(BadInput) as refusal:
        one_pair(
            words_tokenizer(),
            Pair(GOOD["clean"], "Then Mary and John gave the book to", "John", "Mary"),
        )
    assert str(refusal.value).splitlines() == [
        "clean and corrupted have 6 and 8 tokens; they must line up one to one",
        "  clean     Then | Mary | gave | the | book | to",
        "  corrupted Then | Mary | and | John | gave | the | book | to",
    ]


def test_one_pair_stays_three_lines_when_a_token_is_a_line_break():
    with pytest.raises(BadInput) as refusal:
        one_pair(byte_tokenizer(), Pair("a\nb", "a", "b", "c"))
    assert len(str(refusal.value).splitlines()) == 3 and r"a | \n | b" in str(refusal.value)


def test_one_pair_shows_the_pieces_of_a_word():
    with pytest.raises(
        BadInput,
        match=r"answer 'Mary John' is not one token after the clean prompt but Mary \| John",
    ):
        one_pair(words_tokenizer(), Pair(**{**GOOD, "answer": "Mary John"}))
    with pytest.raises(
        BadInput, match=r"wrong 'Zed' is not one token after the clean prompt but   \| Z \| e \| d"
    ):
        one_pair(byte_tokenizer(), Pair("to Mary", "to John", "Mary", "Zed"))


def test_one_pair_equals_tokenize():
    assert one_pair(words_tokenizer(), SHORT).identical(tokenize(words_tokenizer(), [SHORT]))


def test_next_token_respects_words_that_merge_and_words_that_bring_their_space():
    tokenizer = byte_tokenizer()
    mary = tokenizer.convert_tokens_to_ids("ĠMary")
    assert next_token(tokenizer, "to", "Mary") == next_token(tokenizer, "to", " Mary") == mary
    assert next_token(tokenizer, "to", "Zed") is None
    assert next_token(tokenizer, "to", "") is None
    assert next_token(tokenizer, " Mar", "\u0301") is None
    assert next_token(words_tokenizer(), "to", "Zebulon") is None


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_token_texts_say_something_about_every_id(content):
    tokenizer = byte_tokenizer()
    ids = [*tokenizer(content)["input_ids"], len(tokenizer), len(tokenizer) + 7]
    texts = token_texts(tokenizer, np.array(ids))
    assert len(texts) == len(ids) and all(isinstance(item, str) and item for item in texts)
    assert texts[-1] == f"<{len(tokenizer) + 7}>"


def test_a_file_says_how_words_are_taken(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({**GOOD, "blank": False}))
    assert read_pairs(path)[0].blank is False
    path.write_text(json.dumps({**GOOD, "blank": "perhaps"}))
    with pytest.raises(BadInput, match=r"line 1: blank is 'perhaps'"):
        read_pairs(path)

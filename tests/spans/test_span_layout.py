"""Spans: padding, random targets, and the user's own from a file."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_models import byte_tokenizer, words_tokenizer

from nnheads.errors import BadInput
from nnheads.models.texts import encode_with_offsets as encode
from nnheads.spans.files import kinds_in, read_span_records, read_spans
from nnheads.spans.layout import pad_left, stack_spans
from nnheads.spans.lines import numbered_lines
from nnheads.spans.nulls import NULL, NULL_DRAWS, null_in_rows, null_spans

TEXT = "Mary gave the book to John"
GOOD = {"text": TEXT, "spans": [{"kind": "giver", "query": "to", "key": "Mary"}]}


@st.composite
def any_spans(draw):
    """Spans that a prompt may have: query -1 where there is none, keys not after the query."""
    rows = []
    for _ in range(draw(st.integers(1, 6))):
        query = draw(st.integers(0, 12))
        start = draw(st.integers(0, query))
        rows.append(
            draw(st.sampled_from([(query, start, draw(st.integers(start, query)) + 1), (-1, 0, 1)]))
        )
    return tuple(np.array([[row[part] for row in rows]]) for part in range(3))


@given(any_spans(), st.integers(0, 2**32 - 1), st.integers(0, 3))
def test_random_targets_are_never_the_true_one_the_first_token_or_the_future(spans, seed, first):
    drawn = null_spans(spans, np.random.default_rng(seed), first=first)
    true = [np.tile(one, (1, NULL_DRAWS)) for one in spans]
    assert drawn[0].shape == true[0].shape
    for query, start, stop, asked, low, high in zip(*(one[0] for one in (*drawn, *true))):
        room = asked + 1 - first - (high - low) + 1  # places for a span of this width
        if asked < 0 or room - (first <= low) <= 0:
            assert query == -1
            continue
        assert query == asked and stop - start == high - low
        assert first <= start and stop <= query + 1 and start != low


def test_random_targets_fall_on_every_other_place_alike():
    spans = tuple(np.full((1, 2000), value) for value in (5, 3, 4))
    _, start, _ = null_spans(spans, np.random.default_rng(0), first=1)
    places, counts = np.unique(start, return_counts=True)
    assert places.tolist() == [1, 2, 4, 5]
    assert np.abs(counts / counts.sum() - 0.25).max() < 0.02


@given(st.lists(st.integers(3, 9), min_size=1, max_size=4), st.integers(0, 999))
def test_random_targets_are_never_in_the_padding(lengths, seed):
    rows = [[(length - 1, 1, 2)] for length in lengths]
    _, mask, shift = pad_left([[7] * length for length in lengths], 0)
    query, start, stop = null_in_rows(stack_spans(rows, shift), shift, np.random.default_rng(seed))
    assert (
        query == mask.shape[1] - 1
    ).all()  # padding on the left: every text ends at the same place
    for row in range(len(lengths)):
        assert (start[row] > shift[row]).all() and (stop[row] <= query[row] + 1).all()
        assert (start[row] != shift[row] + 1).all()


def test_padding_stands_on_the_left_and_moves_the_spans():
    token, mask, shift = pad_left([[5, 6, 7], [8]], 9)
    assert token.tolist() == [[5, 6, 7], [9, 9, 8]] and mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    query, start, stop = stack_spans([[(2, 0, 1), (2, 1, 3)], [(0, 0, 1)]], shift)
    assert query.tolist() == [[2, 2], [2, -1]]
    assert start.tolist() == [[0, 1], [2, 0]] and stop.tolist() == [[1, 3], [3, 1]]


def write(folder, *records) -> str:
    path = folder / "spans.jsonl"
    path.write_text(
        "\n".join(one if isinstance(one, str) else json.dumps(one) for one in records),
        encoding="utf-8",
    )
    return path


@pytest.mark.parametrize("build", [words_tokenizer, byte_tokenizer], ids=["words", "bytes"])
def test_pieces_of_the_text_become_the_tokens_that_cover_them(build, tmp_path):
    tokenizer = build()
    spans = [
        {"kind": "a", "query": "to", "key": "the book"},
        {"kind": "b", "query": [22, 26], "key": [0, 4]},
    ]
    found = read_spans(write(tmp_path, {"text": TEXT, "spans": spans}), tokenizer)
    ids, offsets = encode(tokenizer, TEXT)
    assert found["token"].values[0].tolist() == ids

    def covering(start: int, stop: int) -> list[int]:
        return [i for i, (low, high) in enumerate(offsets) if low < stop and high > start]

    for kind, query, key in (("a", (19, 21), (10, 18)), ("b", (22, 26), (0, 4))):
        own = found.isel(span=found["kind"].values == kind)
        tokens = covering(*key)
        assert own["query"].values.tolist() == [[covering(*query)[-1]]]
        assert [own["key_start"].item(), own["key_stop"].item()] == [tokens[0], tokens[-1] + 1]
        assert (found["kind"].values == f"{kind}{NULL}").sum() == NULL_DRAWS


def test_lines_of_different_length_and_kinds_share_a_dataset(tmp_path):
    other = {"text": "Mary gave", "spans": [{"query": "gave", "key": "Mary"}]}
    path = write(tmp_path, GOOD, "", other)
    found = read_spans(path, words_tokenizer())
    assert kinds_in(read_span_records(path)) == ["giver", "spans"]
    assert found["mask"].values.sum(1).tolist() == [6, 2]
    assert found["query"].values[:, found["kind"].values == "giver"].tolist() == [[4], [-1]]
    assert found["query"].values[:, found["kind"].values == "spans"].tolist() == [[-1], [5]]
    assert found["key_start"].values[1, found["kind"].values == "spans"].tolist() == [4]
    assert read_spans(path, words_tokenizer(), n=1).sizes["batch"] == 1


def span(**changes) -> dict:
    return {**GOOD, "spans": [{**GOOD["spans"][0], **changes}]}


WRONG = {
    "nothing": ([], "is empty; expected one text with its spans a line"),
    "half a line": ([GOOD, '{"text": '], "line 2: expected an object with text and spans"),
    "a list": (["[]"], "line 1: expected an object with text and spans"),
    "a number": (["3"], "line 1: expected an object with text and spans"),
    "no spans": ([{"text": TEXT}], "line 1: expected an object with text and spans"),
    "an empty list": ([{**GOOD, "spans": []}], "spans a list that is not empty"),
    "blanks": ([{**GOOD, "text": " "}], "text must be words"),
    "a text that is none": ([{**GOOD, "text": 5}], "text must be words"),
    "half a span": ([{**GOOD, "spans": [{"query": "to"}]}], "each span needs a query and a key"),
    "a word that is not there": ([span(key="Anna")], "'Anna' occurs 0 times; give"),
    "a word that is there twice": (
        [span(key="o")],
        r"'o' occurs \d times; give \[start, stop\] in characters",
    ),
    "an empty word": ([span(key="")], "'' is neither words of the text nor"),
    "three numbers": ([span(key=[1, 2, 3])], r"\[1, 2, 3\] is neither words of the text nor"),
    "characters that are not there": ([span(key=[90, 95])], "90 to 95 are not in a text"),
    "characters beyond the end": ([span(query=[0, 999])], "0 to 999 are not in a text"),
    "characters backwards": ([span(key=[5, 2])], "5 to 2 are not in a text"),
    "the future": ([span(query="Mary", key="to")], "the key 'to' comes after its query 'Mary'"),
    "a kind that is a path": (
        [span(kind="../x")],
        r"kind '../x' cannot name a head type; use up to 60 letters",
    ),
    "a kind that looks like a null": ([span(kind="a~null")], "cannot name a head type"),
    "a kind that looks like a step": ([span(kind="a@1")], "cannot name a head type"),
    "a kind that is a number": ([span(kind=3)], "kind 3 cannot name a head type"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_does_not_fit_is_refused_by_line(name, tmp_path):
    lines, message = WRONG[name]
    with pytest.raises(BadInput, match=message) as said:
        read_spans(write(tmp_path, *lines), words_tokenizer())
    assert "\n" not in str(said.value)


def test_what_is_no_file_of_text_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"^/dev/null is no file of texts; expected lines$"):
        numbered_lines("/dev/null", "lines")
    with pytest.raises(BadInput, match=r"no file '.*nowhere.jsonl'"):
        read_spans(tmp_path / "nowhere.jsonl", words_tokenizer())
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    with pytest.raises(BadInput, match="is not a text file in UTF-8"):
        read_spans(tmp_path / "binary", words_tokenizer())


def test_a_tokenizer_that_does_not_say_where_its_tokens_are_is_refused():
    class Slow:
        is_fast = False

    with pytest.raises(BadInput, match="does not say where its tokens are"):
        encode(Slow(), TEXT)


def test_a_line_ends_where_json_lines_end(tmp_path):
    """U+2028 ends a line for Python, but may stand inside a JSON text."""
    line = json.dumps({**GOOD, "text": f"{TEXT}\u2028"}, ensure_ascii=False)
    assert len(read_span_records(write(tmp_path, line, GOOD))) == 2


KEYS = st.sampled_from(["text", "spans", "kind", "query", "key"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
)


@given(VALUES)
def test_no_line_leads_to_anything_but_spans_or_a_refusal(record):
    with tempfile.TemporaryDirectory() as folder:
        path = write(
            Path(folder), record if isinstance(record, dict) else {**GOOD, "spans": [record]}
        )
        try:
            read_spans(path, words_tokenizer())
        except BadInput as error:
            assert len(str(error).splitlines()) == 1

"""Needles: the positions hold what they are said to hold, at every depth, whatever the tokenizer
and the answer.
"""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_models import byte_tokenizer, words_tokenizer

from nnheads.errors import BadInput
from nnheads.prompts.haystack import read_folder
from nnheads.prompts.needle import DEPTHS, cells, needle
from nnheads.prompts.needles import CODE_LENGTH, read_needles
from nnheads.spans.nulls import NULL


def record(fact: str, question: str, answer: str) -> dict:
    return {"needle": fact, "question": question, "answer": answer}


ENGLISH = [
    record("The secret of Anna is a blue lamp.", "What is the secret of Anna?", "a blue lamp"),
    record("Zürich lies by a lake.", "What lies by a lake?", "Zürich"),
    record("The number is 4711.", "What is the number?", "4711"),
]
TERSE = [
    record("the code of Mary is green .", "what is the code of Mary ?", "green"),
    record("the code of John is red blue black .", "what is the code of John ?", "red blue black"),
]


def write(folder, records) -> str:
    path = folder / "needles.jsonl"
    lines = (
        one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in records
    )
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def reference_tokenizer():
    import nnheads

    return nnheads.load("reference").tokenizer


def of(prompts, kind: str, case: int):
    own = prompts.isel(batch=case, span=prompts["kind"].values == kind)
    triples = zip(*(own[name].values.tolist() for name in ("query", "key_start", "key_stop")))
    return [one for one in triples if one[0] >= 0]


def test_made_up_codes_stand_where_they_are_said_to_at_every_depth(reference_tokenizer):
    prompts = needle(reference_tokenizer, 20, lengths=[100, 160])
    assert sorted(set(prompts["depth_asked"].values)) == sorted(DEPTHS)
    assert set(prompts["length"].values) == {100, 160}
    assert (
        abs(prompts["depth"] - prompts["depth_asked"]) < 0.15
    ).all()  # half of a sentence of up to 14 words
    for case in range(20):
        token = prompts["token"].values[case]
        spans = of(prompts, "retrieval", case)
        assert len(spans) == CODE_LENGTH
        for number, (query, low, high) in enumerate(spans):
            assert (
                high == low + 1
                and token[low] == token[query + 1] == prompts["target"].values[case, number]
            )
            assert query == prompts["ask"].values[case, number] and low == spans[0][1] + number
        words = reference_tokenizer.decode(token[spans[0][1] - 5 : spans[0][1]]).split()
        assert words[:3] == ["the", "code", "of"] and words[4] == "is"
        assert all(one[1:] == (spans[0][1], spans[-1][2]) for one in of(prompts, "needle", case))
        first = int((prompts["mask"].values[case] == 0).sum())
        share = (spans[0][1] - first) / (spans[0][0] - first)
        assert (
            abs(share - prompts["depth"].values[case]) < 0.3
        )  # sentences are long and the question follows


def test_prompts_share_a_text_until_all_cells_were_there_once_and_no_code_comes_twice(
    reference_tokenizer,
):
    prompts = needle(reference_tokenizer, 10, lengths=[100, 160], depths=[0.0, 1.0])
    assert prompts["haystack_number"].values.tolist() == [0] * 4 + [1] * 4 + [2] * 2
    assert len({tuple(row) for row in prompts["target"].values.tolist()}) == 10
    ends = [
        str(text).split("the code of")[0] for text in prompts["text"].values
    ]  # with the needle at the end
    assert ends[3].startswith(ends[2]) and not ends[7].startswith(ends[2]) and len(ends[2]) > 100


def test_needles_of_ones_own_move_to_where_other_lengths_have_them(reference_tokenizer, tmp_path):
    path = write(tmp_path, TERSE[:1])
    prompts = needle(reference_tokenizer, 20, lengths=[100, 110], needles=path)
    places = prompts["key_start"].values[:, 0] - (prompts["mask"].values == 0).sum(1)
    made_up = needle(reference_tokenizer, 20, lengths=[100, 110])
    others = made_up["key_start"].values[:, 0] - (made_up["mask"].values == 0).sum(1)
    assert len(set(places)) < len(set(others))


def test_depth_zero_is_the_start_and_depth_one_the_end(reference_tokenizer):
    prompts = needle(reference_tokenizer, 2, lengths=[120], depths=[0.0, 1.0])
    texts = [str(text) for text in prompts["text"].values]
    assert texts[0].startswith("the code of") and texts[1].index("the code of") > len(texts[1]) / 2


@pytest.mark.parametrize("depth", [0.0, 0.5, 1.0])
def test_answers_of_any_length_and_script_are_found_again(depth, tmp_path):
    tokenizer = byte_tokenizer()
    prompts = needle(tokenizer, 3, lengths=[500], depths=[depth], needles=write(tmp_path, ENGLISH))
    sizes = []
    for case, expected in enumerate(ENGLISH):
        spans, token = of(prompts, "retrieval", case), prompts["token"].values[case]
        sizes.append(len(spans))
        said = tokenizer.decode([token[query + 1] for query, *_ in spans])
        kept = tokenizer.decode([place for _, low, high in spans for place in token[low:high]])
        assert said.strip() == kept.strip() == expected["answer"]
        _, low, high = of(prompts, "needle", case)[0]
        assert tokenizer.decode(token[low:high]).strip() == expected["answer"]
    assert len(set(sizes)) > 1
    ask, target = prompts["ask"].values, prompts["target"].values
    assert (ask >= 0).sum(1).tolist() == sizes
    assert np.array_equal(ask < 0, target < 0)


def test_nulls_stay_in_the_text_under_padding(reference_tokenizer, tmp_path):
    prompts = needle(reference_tokenizer, 8, lengths=[60, 100], needles=write(tmp_path, TERSE))
    first = (prompts["mask"].values == 0).sum(1)
    assert first.max() > 20 and first.min() == 0
    for case in range(8):
        true = {query: low for query, low, _ in of(prompts, "retrieval", case)}
        null = of(prompts, f"retrieval{NULL}", case)
        assert len(null) == 4 * len(true)
        for query, low, high in null:
            assert first[case] < low < high <= query + 1 and low != true[query]


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 5), st.integers(1, 3))
def test_a_grid_is_covered_before_anything_comes_twice(n, lengths, depths, needles):
    sizes, places = list(range(10, 10 + lengths)), [step / 10 for step in range(depths)]
    drawn = cells(n, sizes, places, needles)
    total = lengths * depths * needles
    assert len(drawn) == n and len(set(drawn)) == min(n, total)
    assert {which for *_, which in drawn} <= set(range(needles))


def test_a_few_prompts_meet_every_length_and_depth():
    drawn = cells(32, list(range(20)), list(DEPTHS), 1)
    assert len({length for length, *_ in drawn}) >= 16 and {depth for _, depth, _ in drawn} == set(
        DEPTHS
    )


WRONG = {
    "nothing": ([], "is empty; expected one needle with its question and answer a line"),
    "half a line": (
        [TERSE[0], '{"needle": '],
        "line 2: expected an object with needle, question and answer",
    ),
    "no answer": ([{"needle": "a", "question": "b"}], "line 1: expected an object with needle"),
    "a number": ([{**TERSE[0], "answer": 3}], "needle, question and answer must be words"),
    "blanks": ([{**TERSE[0], "question": " "}], "needle, question and answer must be words"),
    "an answer that is not there": (
        [{**TERSE[0], "answer": "red"}],
        "the answer 'red' occurs 0 times in the needle",
    ),
    "an answer that is there twice": (
        [{**TERSE[0], "answer": "e"}],
        r"occurs \d times in the needle",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_needles_that_do_not_fit_are_refused_by_line(name, tmp_path):
    lines, message = WRONG[name]
    with pytest.raises(BadInput, match=message):
        needle(words_tokenizer(), 1, lengths=[60], needles=write(tmp_path, lines))


def test_what_is_no_file_of_needles_is_refused(tmp_path):
    with pytest.raises(
        BadInput,
        match=r"no file '.*'; expected one needle with its question and answer a line, as JSON",
    ):
        read_needles(tmp_path / "nowhere")
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    with pytest.raises(BadInput, match="is not a text file in UTF-8"):
        read_needles(tmp_path / "binary")


def test_a_haystack_is_read_from_all_text_files_of_a_folder(reference_tokenizer, tmp_path):
    (tmp_path / "a.txt").write_text("the cat is here. the dog is there")
    (tmp_path / "b.txt").write_text("all\nis   well.")
    (tmp_path / "c.md").write_text("not read.")
    assert read_folder(tmp_path) == ["the cat is here.", "the dog is there all is well."]
    prompts = needle(reference_tokenizer, 2, lengths=[60], haystack=tmp_path)
    assert all("the cat is here." in str(text) for text in prompts["text"].values)
    assert prompts.attrs["haystack"] == tmp_path.name


def test_a_folder_without_text_is_no_haystack(tmp_path):
    with pytest.raises(BadInput, match=r"no folder '/no/such'"):
        read_folder("/no/such")
    with pytest.raises(BadInput, match=r"holds no .txt file with sentences"):
        read_folder(tmp_path)
    (tmp_path / "a.txt").write_text(" . . ")
    with pytest.raises(BadInput, match=r"holds no .txt file with sentences"):
        read_folder(tmp_path)
    (tmp_path / "b.txt").write_bytes(bytes(range(256)))
    with pytest.raises(BadInput, match=r"b.txt is not a text file in UTF-8"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "0 prompts were asked for"),
        (
            {"lengths": [10]},
            r"10 tokens cannot hold needle, question and answer \(\d+ tokens\)",
        ),
        (
            {"depths": [0.5, 1.5]},
            r"1\.5.*0 \(start\) to 1 \(end\)",
        ),
    ],
)
def test_prompts_that_cannot_be_are_refused(options, message):
    with pytest.raises(BadInput, match=message):
        needle(words_tokenizer(), **options)


def test_words_that_a_tokenizer_does_not_know_are_no_answer(tmp_path):
    with pytest.raises(BadInput, match="not know all words of the answer 'Zürich'"):
        needle(words_tokenizer(), 1, lengths=[60], needles=write(tmp_path, ENGLISH[1:2]))


def test_an_answer_that_a_tokenizer_drops_is_refused(tmp_path):
    from tokenizers import normalizers

    tokenizer = copy.deepcopy(byte_tokenizer())
    tokenizer.backend_tokenizer.normalizer = normalizers.BertNormalizer(clean_text=True)
    path = write(tmp_path, [record("the bell is \x07 .", "what is the bell ?", "\x07")])
    with pytest.raises(BadInput, match=r"no token for the answer '\\x07'"):
        needle(tokenizer, 1, lengths=[200], needles=path)


def test_codes_need_words_that_are_one_token():
    with pytest.raises(BadInput, match=r"\d code words are single tokens.*8"):
        needle(byte_tokenizer(), 1, lengths=[400])


@given(
    st.text(min_size=1, max_size=12),
    st.text(max_size=8),
    st.text(max_size=8),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_any_text_is_found_again_in_the_needle_or_refused(answer, before, after, depth):
    tokenizer = byte_tokenizer()
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), [record(before + answer + after, "what is it ?", answer)])
        try:
            prompts = needle(tokenizer, 1, lengths=[300], depths=[depth], needles=path)
        except BadInput as error:
            assert len(str(error).splitlines()) == 1
            return
    token, spans = prompts["token"].values[0], of(prompts, "retrieval", 0)
    said = tokenizer.decode([token[query + 1] for query, *_ in spans])
    assert said.strip() == answer.strip()
    assert all(0 <= low < high <= query for query, low, high in spans)
    _, low, high = of(prompts, "needle", 0)[0]
    assert answer.strip() in tokenizer.decode(token[low:high])


HAYSTACKS = {
    "a list": "\n".join(f"- item {number} of a list" for number in range(2000)),
    "one endless word": "abcdefghij" * 3000,
    "a script without blanks": "我喜欢读书。他在山上看见一只鸟，" * 600,
    "one long sentence": "the cat and " * 3000,
}


@pytest.mark.parametrize("name", HAYSTACKS)
def test_any_text_fills_a_prompt_to_the_length_that_was_asked_for(name, tmp_path):
    (tmp_path / "a.txt").write_text(HAYSTACKS[name], encoding="utf-8")
    needles = write(tmp_path, ENGLISH[2:])
    prompts = needle(byte_tokenizer(), 6, lengths=[500, 2000], haystack=tmp_path, needles=needles)
    real = prompts["mask"].sum("position").values
    assert (prompts["tokens"].values == real).all(), "what a prompt has is said"
    assert (real <= prompts["length"].values).all()
    assert (real >= 0.8 * prompts["length"].values).all()
    far = prompts["length"].values == 2000
    assert len(set(prompts["depth"].values[far].round(2))) == far.sum(), "at every depth"


def test_sentences_longer_than_a_prompt_are_cut(tmp_path):
    sentence = "word " * 90
    (tmp_path / "a.txt").write_text(". ".join([sentence.strip()] * 20))
    needles = write(tmp_path, ENGLISH[2:])
    prompts = needle(byte_tokenizer(), 4, lengths=[300], haystack=tmp_path, needles=needles)
    assert (prompts["tokens"].values >= 260).all()


def test_needles_in_the_form_of_retrieval_head_are_read(tmp_path):
    """`real_needle` is the answer, and need not be spelled as in the needle."""
    own = {
        "needle": "Mr Green is disliked because he sings.",
        "question": "Why is Mr Green disliked?",
        "real_needle": "Because he sings.",
    }
    (found,) = read_needles(write(tmp_path, [json.dumps(own)]))
    assert found.answer == "because he sings." and found.fact[found.start :] == found.answer


def test_a_haystack_in_a_language_that_the_tokenizer_does_not_know_is_refused(
    reference_tokenizer, tmp_path
):
    (tmp_path / "a.txt").write_text("我喜欢读书 在山上看见 一只鸟. " * 50, encoding="utf-8")
    with pytest.raises(BadInput, match="knows less than half of the words"):
        needle(reference_tokenizer, 1, lengths=[60], haystack=tmp_path)

"""Questions from every form in which TruthfulQA is published, and the statements made of them."""

from __future__ import annotations

import csv
import json
import sys
import types

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from random_models import byte_tokenizer, words_tokenizer

from nnheads.errors import BadInput
from nnheads.prompts.questions import Question
from nnheads.prompts.statements import statements
from nnheads.prompts.truth import (
    REFERENCE_TEMPLATE,
    knows_reference,
    read_questions,
    sound,
    template_for,
)
from nnheads.prompts.truth_files import records_of
from nnheads.prompts.world import build_tokenizer

OLD = (
    "Type",
    "Category",
    "Question",
    "Best Answer",
    "Correct Answers",
    "Incorrect Answers",
    "Source",
)
NEW = (*OLD[:4], "Best Incorrect Answer", *OLD[4:])
ROW = {
    "Type": "Adversarial",
    "Category": "Law",
    "Question": "Is it so, then?",
    "Best Answer": "It is",
    "Best Incorrect Answer": "No",
    "Correct Answers": "It is; Yes, it is; ",
    "Incorrect Answers": "No; Never;",
    "Source": "http://x",
}
PLAIN = Question("Is it so, then?", ("It is", "Yes, it is"), ("No", "Never"), "It is", "Law")


def table(path, columns=OLD, rows=(ROW,), bom: bool = False):
    with path.open("w", encoding="utf-8-sig" if bom else "utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize(
    ("columns", "bom"), [(OLD, False), (NEW, False), (NEW, True), (OLD[1:], True)]
)
def test_every_published_table_reads_the_same(columns, bom, tmp_path):
    assert read_questions(table(tmp_path / "t.csv", columns, bom=bom)) == ((PLAIN,), {})


@pytest.mark.parametrize("count", [817, 790])
def test_tables_of_both_sizes_load_and_split_the_same_way_every_time(count, tmp_path):
    from nnheads.truth.folds import folds

    rows = [{**ROW, "Question": f"Is {number} so?"} for number in range(count)]
    found, dropped = read_questions(
        table(tmp_path / "t.csv", NEW if count == 790 else OLD, rows, bom=count == 790)
    )
    assert len(found) == count and not dropped
    assert [one.question for one in found] == [row["Question"] for row in rows]
    assert folds(len(found)) == folds(len(found))
    assert len(read_questions(tmp_path / "t.csv", limit=5)[0]) == 5


def test_the_task_file_lists_and_the_hub_say_the_same(tmp_path):
    one = {"It is": 1, "No": 0}
    two = {"It is": 1, "Yes, it is": 1, "No": 0, "Never": 0}
    record = {
        "question": "Is it so, then?",
        "mc0_targets": one,
        "mc1_targets": one,
        "mc2_targets": two,
    }
    (tmp_path / "mc_task.json").write_text("\ufeff" + json.dumps([record], indent=1))
    expected = Question(*PLAIN.__dict__.values()).__dict__ | {"category": ""}
    assert read_questions(tmp_path / "mc_task.json")[0][0].__dict__ == expected
    chosen = {
        f"mc{number}_targets": {"choices": [*own], "labels": [*own.values()]}
        for number, own in ((1, one), (2, two))
    }
    hub = {"question": "Is it so, then?", **chosen}
    sides = {"correct_answers": list(two)[:2], "incorrect_answers": list(two)[2:]}
    generation = {"question": "Is it so, then?", "best_answer": "It is", **sides, "category": "Law"}
    short = {
        "question": "Is it so, then?",
        "true": list(two)[:2],
        "false": list(two)[2:],
        "best": "It is",
    }
    for number, row in enumerate((hub, generation, short)):
        path = tmp_path / f"{number}.jsonl"
        path.write_text(json.dumps(row) + "\n\n")
        found = read_questions(path)[0][0].__dict__
        assert found == expected | {"category": row.get("category", "")}


def test_a_hub_data_set_is_read_through_datasets(monkeypatch):
    row = {
        "question": "So?",
        "best_answer": "Yes",
        "correct_answers": ["Yes"],
        "incorrect_answers": ["No"],
    }
    asked = []

    def load_dataset(name, configuration):
        asked.append((name, configuration))
        return {"validation": [row]}

    fake = types.SimpleNamespace(
        get_dataset_config_names=lambda name: ["generation", "multiple_choice"],
        load_dataset=load_dataset,
    )
    monkeypatch.setitem(sys.modules, "datasets", fake)
    assert read_questions("owner/name")[0] == (Question("So?", ("Yes",), ("No",), "Yes"),)
    read_questions("owner/name:generation")
    read_questions("tqa_gen")
    chosen = [
        ("owner/name", "multiple_choice"),
        ("owner/name", "generation"),
        ("truthfulqa/truthful_qa", "generation"),
    ]
    assert asked == chosen
    with pytest.raises(BadInput, match="has no configuration 'other'"):
        read_questions("owner/name:other")

    def fails(*_):
        raise ConnectionError("no route\nto the Hub")

    monkeypatch.setattr(fake, "load_dataset", fails)
    with pytest.raises(BadInput, match="data set 'owner/name' cannot be read: no route"):
        read_questions("owner/name")


def test_without_datasets_a_hub_data_set_is_refused_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(BadInput, match=r"needs the package datasets") as caught:
        read_questions("owner/name")
    assert "\n" not in str(caught.value)


def test_what_is_not_sound_is_merged_or_left_out_and_counted():
    records = [
        Question("Is it?", ("Yes", " yes. ", ""), ("No",), "Yes"),
        Question("Where?", ("Here", "Both"), ("both", "There"), "Here"),
        Question("is  IT?", ("Perhaps",), ("Never",), "Surely"),
        Question("When?", ("Now",), ("",), "Now"),
        Question("Who?", (), ("Nobody",), ""),
        Question("Why?", ("Because",), ("Luck",), "It must"),
    ]
    kept, dropped = sound(records)
    assert [one.question for one in kept] == ["Is it?", "Where?", "Why?"]
    assert kept[0] == Question("Is it?", ("Yes", "Perhaps"), ("No", "Never"), "Yes")
    assert kept[1] == Question("Where?", ("Here",), ("There",), "Here")
    assert kept[2].true == ("It must", "Because") and kept[2].best == "It must"
    assert dropped == {
        "questions that came twice, merged": 1,
        "empty answers, left out": 2,
        "answers that came twice, left out": 1,
        "answers both true and false, left out": 1,
        "questions without a false answer, left out": 1,
        "questions without a true answer, left out": 1,
        "best answers added to the true ones": 1,
    }


texts = st.text("ab .;", max_size=4)


answers = st.lists(texts, max_size=4).map(tuple)


@hypothesis.given(st.lists(st.builds(Question, texts, answers, answers, texts)))
def test_whatever_is_read_keeps_the_promises(records):
    kept, dropped = sound(records)
    assert all(isinstance(count, int) and count > 0 for count in dropped.values())
    assert (
        len({" ".join(one.question.casefold().split()) for one in kept})
        == len(kept)
        <= len(records)
    )
    for one in kept:
        assert one.true and one.false and one.best in one.true
        assert not set(one.true) & set(one.false) and all(
            text.strip() for text in one.true + one.false
        )


def write(path, text: str):
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return path


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "t.csv",
            "Question,Best Answer\na,b\n",
            r"t.csv, line 1: the header names no 'Correct Answers'",
        ),
        ("t.csv", "", "t.csv is empty"),
        ("t.csv", ",".join(OLD) + "\nx,y,,b,c,d,e\n", "t.csv, line 2: the question is empty"),
        ("t.csv", ",".join(OLD) + "\n", "holds no question with a true and a false answer"),
        (
            "t.csv",
            ",".join(OLD) + '\n"x' + "y" * 200_000,
            r"t.csv, line 1: not CSV \(field larger than field limit",
        ),
        ("t.csv", "\udcff", "is not a text file in UTF-8"),
        ("t.json", "[{]", "t.json is not JSON, but begins as a list does"),
        ("t.json", "[3]", "t.json, entry 1: expected an object with question, true, false, best"),
        ("t.jsonl", "{", "t.jsonl, line 1: not JSON"),
        ("t.jsonl", '{"true": [], "false": []}', "line 1: 'question' is missing or empty"),
        (
            "t.jsonl",
            '{"question": "a", "false": []}',
            r"line 1: 'true' \(or 'correct_answers'\) is missing",
        ),
        (
            "t.jsonl",
            '{"question": "a", "true": "b", "false": []}',
            "'true' must be a list of texts",
        ),
        (
            "t.jsonl",
            '{"question": "a", "true": [3], "false": []}',
            "'true' must be a list of texts",
        ),
        (
            "t.jsonl",
            '{"question": "\\ud800", "true": [], "false": []}',
            "'question' holds half a character",
        ),
        (
            "t.jsonl",
            '{"question": "a", "true": ["\\ud800"], "false": []}',
            "'true' holds half a character",
        ),
        (
            "t.jsonl",
            '{"question": "a", "true": ["b"], "false": ["c"], "best": 3}',
            "'best' is missing or empty",
        ),
        (
            "t.jsonl",
            '{"question": "a", "mc1_targets": {"b": 2}}',
            "'mc1_targets' must say 0 or 1 for each answer",
        ),
        (
            "t.jsonl",
            '{"question": "a", "mc1_targets": {"choices": ["b"], "labels": []}}',
            "as many labels as choices",
        ),
        (
            "t.jsonl",
            '{"question": "a", "true": ["b"], "false": []}',
            "holds no question with a true and a false",
        ),
    ],
)
def test_files_that_cannot_be_used_are_refused_by_file_and_row(name, text, message, tmp_path):
    with pytest.raises(BadInput, match=message) as caught:
        read_questions(write(tmp_path / name, text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["no.csv", "folder/no.jsonl", "nothing", "a/b/c"])
def test_missing_sources(source):
    with pytest.raises(BadInput, match=f"no file '{source}'; expected a TruthfulQA CSV"):
        read_questions(source)
    with pytest.raises(BadInput, match="0 questions were asked for"):
        read_questions(source, limit=0)


def test_the_reference_model_has_its_own_questions():
    found, dropped = read_questions("reference")
    assert len(found) == 200 and not dropped and all(len(one.false) == 3 for one in found)
    assert template_for("reference") == REFERENCE_TEMPLATE and template_for("x.csv").startswith(
        "Q:"
    )
    assert knows_reference(build_tokenizer())
    assert not knows_reference(words_tokenizer()) and not knows_reference(byte_tokenizer())


QUESTIONS = (
    Question("what is the code of Mary ?", ("park", "the library"), ("market",), "the library"),
    Question("what is the code of John ?", ("beach",), ("hotel", "farm", "park"), "beach"),
)


@pytest.mark.parametrize("tokenizer", [words_tokenizer, byte_tokenizer, build_tokenizer])
def test_a_row_for_each_answer_in_which_its_tokens_are_known(tokenizer):
    tokenizer, template = tokenizer(), "{question} {answer} ."
    prompts = statements(tokenizer, QUESTIONS, template=template, seed=3, dropped={"x": 2})
    assert prompts["question"].values.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert prompts["label"].values.tolist() == [1, 1, 0, 1, 0, 0, 0]
    assert prompts["is_best"].values.tolist() == [0, 1, 0, 1, 0, 0, 0]
    assert (
        json.loads(prompts.attrs["dropped"]) == {"x": 2} and prompts.attrs["template"] == template
    )
    assert prompts.attrs["seed"] == 3 and prompts.attrs["questions"] == 2
    assert (prompts["mask"].values[:, -1] == 1).all()
    for row in range(7):
        one = prompts.isel(batch=row)
        ids = one["token"].values[one["mask"].values == 1].tolist()
        text = f"{QUESTIONS[int(one['question'])].question} {one['answer_text'].item()} ."
        assert ids == tokenizer(text)["input_ids"]
        start, length = int(one["prompt_length"]), int(one["answer_length"])
        spelled = tokenizer.decode(ids[start : start + length]).replace(" ", "")
        assert spelled == one["answer_text"].item().replace(" ", "")
        assert "?" in tokenizer.decode(ids[:start]) and "." in tokenizer.decode(
            ids[start + length :]
        )


def test_a_token_that_begins_in_the_prompt_is_the_answers():
    prompts = statements(byte_tokenizer(("Mary",)), (Question("Who?", ("Mary",), ("No",), "Mary"),))
    one = prompts.isel(batch=0)
    assert (
        int(one["answer_length"]) == 1 and int(one["prompt_length"]) == int(one["mask"].sum()) - 1
    )


def test_most_answers_keeps_the_best_and_draws_others():
    tokenizer = words_tokenizer()
    prompts = statements(tokenizer, QUESTIONS, template=REFERENCE_TEMPLATE, most=1)
    assert prompts["answer_text"].values.tolist() == ["the library", "market", "beach", "hotel"]
    more = [
        statements(tokenizer, QUESTIONS, template=REFERENCE_TEMPLATE, most=2, seed=seed)
        for seed in range(20)
    ]
    seen = {tuple(one["answer_text"].values[-2:]) for one in more}
    assert seen == {("hotel", "farm"), ("hotel", "park")}


def test_questions_in_words_that_the_tokenizer_does_not_know_are_left_out():
    unknown = Question("what is Zyx ?", ("park",), ("beach",), "park")
    prompts = statements(words_tokenizer(), (unknown, *QUESTIONS), template=REFERENCE_TEMPLATE)
    assert set(prompts["question"].values) == {1, 2} and prompts.attrs["questions"] == 3
    assert json.loads(prompts.attrs["dropped"]) == {
        "questions with words unknown to the tokenizer, left out": 1
    }
    with pytest.raises(BadInput, match="does not know the words of any of 1 questions"):
        statements(words_tokenizer(), (unknown,), template=REFERENCE_TEMPLATE)


@pytest.mark.parametrize(
    "template",
    ["{question}", "{answer} {question}", "{question} {answer} {x}", "{question}{answer}{answer}"],
)
def test_templates_without_their_places_are_refused(template):
    with pytest.raises(BadInput, match=r"must hold \{question\} and after it \{answer\}"):
        statements(words_tokenizer(), QUESTIONS, template=template)


def test_no_answers_cannot_be_asked_for():
    with pytest.raises(BadInput, match="0 answers of a question were asked for"):
        statements(words_tokenizer(), QUESTIONS, template=REFERENCE_TEMPLATE, most=0)


def test_braces_in_a_question_are_text():
    prompts = statements(
        byte_tokenizer(), (Question("What is {answer}?", ("{question}",), ("No",), "{question}"),)
    )
    ids = prompts["token"].values[0][prompts["mask"].values[0] == 1]
    assert byte_tokenizer().decode(ids) == "Q: What is {answer}? A: {question}"


def test_records_may_be_asked_for_as_they_are(tmp_path):
    found = records_of(table(tmp_path / "t.csv", rows=(ROW, ROW)))
    assert len(found) == 2 and found[0].true == ("It is", "Yes, it is")
    assert np.array_equal([one.category for one in found], ["Law", "Law"])


def test_a_blank_answer_is_refused():
    blank = Question("is it", ("  ",), ("no",), "  ")
    with pytest.raises(BadInput, match="an answer of question 'is it' is blank"):
        statements(byte_tokenizer(), (blank,))


def test_a_folder_is_called_one(tmp_path):
    with pytest.raises(BadInput, match=f"'{tmp_path}' is a folder; expected"):
        records_of(tmp_path)

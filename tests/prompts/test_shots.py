"""Prompts that show a task: what they look like, what is held out, the audit, and any file that a
user may have.
"""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_models import whole_words, words_tokenizer

import nnheads
from nnheads.errors import BadInput
from nnheads.prompts.shot_tasks import Layout, Task, audited, own_tasks, read_tasks, split, written
from nnheads.prompts.shot_words import TASKS
from nnheads.prompts.shots import KINDS, shots

PAIRS = [(str(number), str(number + 1)) for number in range(20)]
PLAIN = Layout(question="input : {} copy :", answer=" {}", gap=" . ")


def english_tokenizer():
    """The words of our own tasks, each whole."""
    own = [word for pairs in TASKS.values() for pair in pairs for word in pair]
    return whole_words(dict.fromkeys(["<unk>", "Q", ":", "A", *own]))


def one_task(count: int = 20) -> Task:
    tokenizer = words_tokenizer()
    return audited(tokenizer, {"next": PAIRS[:count]}, PLAIN, 1)[0][0]


def test_a_prompt_is_examples_and_a_question():
    tokenizer = words_tokenizer()
    prompts = shots(tokenizer, [one_task()], 3, count=2, layout=PLAIN)
    for case in range(3):
        words = tokenizer.decode(
            prompts["token"].values[case][prompts["mask"].values[case] == 1]
        ).split()
        for start in (0, 7):
            first, colon, word, copy, again, answer, gap = words[start : start + 7]
            assert (first, colon, copy, again, gap) == ("input", ":", "copy", ":", ".")
            assert int(answer) == int(word) + 1
        assert words[14:] == ["input", ":", prompts["input"].values[case], "copy", ":"]
        answer = int(prompts["target"][case, 0])
        assert tokenizer.decode([answer]) == prompts["output"].values[case]
        assert int(prompts["output"][case]) == int(prompts["input"][case]) + 1
    assert (prompts["ask"].values == prompts.sizes["position"] - 1).all()


def test_the_default_layout_is_that_of_the_paper():
    tokenizer = english_tokenizer()
    task = Task("capital", (("France", "Paris"), ("Spain", "Madrid")), (0, 0))
    from nnheads.prompts.shots import _text

    assert _text(task, [0], 1, False, Layout()) == "Q: France\nA: Paris\n\nQ: Spain\nA:"
    assert tokenizer.decode(tokenizer("Q: France\nA:")["input_ids"]) == "Q : France A :"


def test_shuffled_examples_are_the_same_words_with_none_in_place():
    tokenizer = words_tokenizer()
    made = {
        kind: shots(tokenizer, [one_task()], 6, count=5, kind=kind, seed=3, layout=PLAIN)
        for kind in KINDS
    }
    for name in ("target", "input", "task"):
        assert (made["shown"][name].values == made["shuffled"][name].values).all()
    for case in range(6):
        shown, shuffled = (
            tokenizer.decode(
                made[kind]["token"].values[case][made[kind]["mask"].values[case] == 1]
            ).split()
            for kind in ("shown", "shuffled")
        )
        assert Counter(shown) == Counter(shuffled)
        examples = [(shuffled[start + 2], shuffled[start + 5]) for start in range(0, 30, 7)]
        assert all(int(answer) != int(word) + 1 for word, answer in examples)
    none = made["none"]
    assert (
        none.sizes["position"] == 5
        and none["input"].values.tolist() == made["shown"]["input"].values.tolist()
    )


def test_questions_take_turns_and_never_come_twice_without_examples():
    tokenizer, task = words_tokenizer(), one_task(8)
    shown = shots(tokenizer, [task], 20, count=3, layout=PLAIN)
    assert set(Counter(shown["input"].values).values()) == {2, 3}
    none = shots(tokenizer, [task, task], 20, kind="none", layout=PLAIN)
    assert none.sizes["batch"] == 16 and list(np.unique(none["task"].values)) == [0, 1]
    assert len(set(none["input"].values[:8])) == 8


@given(st.integers(3, 20), st.integers(0, 5))
def test_what_is_held_out_is_never_shown(count, seed):
    task = Task("next", tuple(PAIRS[:count]), tuple(range(count)))
    (shown,), (held_out,) = split([task], seed)
    assert sorted(shown.pairs + held_out.pairs) == sorted(task.pairs)
    assert len(held_out.pairs) == max(1, int(0.3 * count))
    assert all(
        int(word) == answer
        for word, answer in zip((pair[0] for pair in shown.pairs), shown.answers)
    )


def test_words_that_the_tokenizer_splits_or_does_not_know_are_left_out():
    tokenizer = words_tokenizer()
    mixed = {"next": [*PAIRS, ("5", "Zebulon"), ("Zebulon", "5"), ("6", "7 8")], "few": PAIRS[:4]}
    (task,), dropped = audited(tokenizer, mixed, PLAIN, 10)
    assert task.pairs == tuple(PAIRS) and [tokenizer.decode([one]) for one in task.answers] == [
        b for _, b in PAIRS
    ]
    assert dropped == {"few": "4 of 4 pairs can be used, 10 shots need 15"}
    with pytest.raises(
        BadInput, match=r"no task can be shown to this model: of task 'next', 20 of 23 .* need 36"
    ):
        audited(tokenizer, mixed, PLAIN, 25)


@pytest.mark.parametrize("count", [1, 5, 10, 13])
def test_enough_pairs_are_enough(count):
    tokenizer = words_tokenizer()
    for size in range(1, 21):
        try:
            kept, _ = audited(tokenizer, {"next": PAIRS[:size]}, PLAIN, count)
        except BadInput:
            continue
        shown, held_out = split(kept)
        assert held_out[0].pairs and len(shown[0].pairs) > count
        shots(tokenizer, shown, 2, count=count, layout=PLAIN)
        return
    pytest.fail("twenty pairs must be enough")


def test_our_own_tasks_are_words_and_fit_their_language():
    for name, pairs in TASKS.items():
        inputs = [word for word, _ in pairs]
        assert len(set(inputs)) == len(inputs) >= 35, name
        assert all(len(text.split()) == 1 and text for pair in pairs for text in pair), name
        assert all(word != answer for word, answer in pairs), name
    tokenizer = english_tokenizer()
    tasks, layout = own_tasks(tokenizer)
    assert tasks is TASKS and layout == Layout()
    kept, dropped = audited(tokenizer, tasks, layout, 10)
    assert [task.name for task in kept] == list(TASKS) and not dropped
    reference = nnheads.load("reference").tokenizer
    tasks, layout = own_tasks(reference)
    kept, dropped = audited(reference, tasks, layout, 10)
    assert len(kept) == 8 and not dropped and all(len(task.pairs) == 25 for task in kept)


LINES = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {}, optional={name: st.text(max_size=4) for name in ("task", "input", "output")}
        ).map(json.dumps),
        st.text(max_size=6),
    ),
    max_size=5,
)


@given(LINES)
def test_any_file_is_read_or_refused_in_one_line(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("tasks") / "tasks.jsonl"
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    try:
        tasks = read_tasks(path)
    except BadInput as error:
        assert len(str(error).splitlines()) == 1 and str(error).startswith(str(path))
        return
    found = [(task, *pair) for task, pairs in tasks.items() for pair in pairs]
    records = [json.loads(line) for line in "\n".join(lines).split("\n") if line.strip()]
    assert sorted(found) == sorted(
        tuple(record[name].strip() for name in ("task", "input", "output")) for record in records
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "line 1: expected an object with task, input, output"),
        ('{"task": "a", "input": "b"}', "line 1: 'output' is missing or empty"),
        ('{"task": "a", "input": "b", "output": 3}', "line 1: 'output' is missing or empty"),
        ('{"task": "a", "input": " ", "output": "c"}', "line 1: 'input' is missing or empty"),
        (
            '{"task": "a", "input": "\\ud800", "output": "c"}',
            r"line 1: 'input' holds half a character",
        ),
        (
            '{"task": "a", "input": "b", "output": "c"}\n' * 2,
            "line 2: the pair 'b', 'c' comes twice in task 'a'",
        ),
        ("{", "line 1: not JSON"),
        ("", "is empty; expected one pair a line"),
    ],
)
def test_files_that_cannot_be_used_say_where(content, message, tmp_path):
    (tmp_path / "tasks.jsonl").write_text(content)
    with pytest.raises(BadInput, match=message):
        read_tasks(tmp_path / "tasks.jsonl")


def test_a_layout_of_ones_own():
    assert written(Layout(), question=r"{}\n->", answer=None, gap=", ") == Layout(
        "{}\n->", " {}", ", "
    )
    for text in ("no place", "{} {}", "{0}", "{} {x}", "}{}"):
        with pytest.raises(BadInput, match=r"must hold \{\} once, where the word stands"):
            written(Layout(), question=text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "0 prompts of 2 examples are not possible"),
        ({"n": 1, "count": 0}, "1 prompts of 0 examples are not possible"),
        ({"n": 1, "count": 20}, "task 'next' has 20 pairs; 20 examples need 21"),
        ({"n": 1, "kind": "many"}, "kind 'many' is not known; use one of shown, shuffled, none"),
    ],
)
def test_prompts_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(BadInput, match=message):
        shots(words_tokenizer(), [one_task()], **{"count": 2, "layout": PLAIN, **arguments})

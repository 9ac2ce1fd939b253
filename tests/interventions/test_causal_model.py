"""Causal models do what they say, and counterfactual pairs have the answers that follow."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from random_models import byte_tokenizer, words_tokenizer

from nnheads.errors import BadInput
from nnheads.interventions.causal_model import CausalModel, draw_counterfactuals
from nnheads.interventions.counterfactuals import from_texts, read_counterfactuals
from nnheads.interventions.tasks import IOI, PARITY, STEPS, TASKS, task_of

BITS = st.lists(st.integers(0, 1), min_size=2, max_size=9).map(tuple)


@given(BITS, BITS)
def test_an_interchanged_state_and_an_own_input_make_the_answer(base, source):
    assert PARITY.run({"bits": base})["answer"] == sum(base) % 2
    changed = PARITY.interchange({"bits": base}, state={"bits": source})
    assert changed == (sum(source[:-1]) + base[-1]) % 2
    both = PARITY.interchange({"bits": base}, state={"bits": source}, bit={"bits": source})
    assert both == sum(source) % 2 == PARITY.interchange({"bits": base}, answer={"bits": source})


def test_a_variable_can_be_fixed_and_everything_after_it_follows():
    sentence = {"first": "Mary", "second": "John", "repeated": "John"}
    assert IOI.run(sentence) == {"position": 0, "answer": "Mary"}
    assert IOI.run(sentence, position=1) == {"position": 1, "answer": "John"}
    other = {"first": "Anna", "second": "Leo", "repeated": "Anna"}
    assert (
        IOI.interchange(sentence, position=other) == "John"
        and IOI.interchange(sentence, answer=other) == "Leo"
    )


def test_every_second_pair_changes_the_answer_and_the_same_seed_draws_the_same():
    inputs = [{"bits": tuple(map(int, f"{number:04b}"))} for number in range(16)]
    drawn = draw_counterfactuals(PARITY, inputs, "state", 40)
    assert [one.changes for one in drawn] == [False, True] * 20
    for one in drawn:
        assert one.base != one.source
        assert one.answer == PARITY.interchange(inputs[one.base], state=inputs[one.source])
        assert one.changes == (one.answer != PARITY.run(inputs[one.base])["answer"])
    assert (
        drawn
        == draw_counterfactuals(PARITY, inputs, "state", 40)
        != draw_counterfactuals(PARITY, inputs, "state", 40, seed=1)
    )


def test_answers_of_many_sorts_change_in_every_pair():
    inputs = [
        {"first": f"name {number}", "second": "John", "repeated": "John"} for number in range(9)
    ]
    drawn = draw_counterfactuals(IOI, inputs, "answer", 12)
    assert (
        all(one.changes and one.answer == inputs[one.source]["first"] for one in drawn)
        and len(drawn) == 12
    )


def test_causal_models_that_cannot_be_are_refused():
    for functions, message in (
        ({}, "no function gives the output 'answer'; known: none"),
        (
            {"answer": lambda a: a, "a": lambda b: b, "b": lambda a: a},
            "variables a, answer, b depend on themselves",
        ),
        ({"answer": lambda *all: 0}, "the function of 'answer' must name its arguments"),
    ):
        with pytest.raises(BadInput, match=message):
            CausalModel(functions)
    with pytest.raises(BadInput, match="variable 'carry' is not known"):
        PARITY.interchange({"bits": (1, 0)}, carry={"bits": (1, 0)})
    with pytest.raises(BadInput, match="input 'bits' is missing"):
        PARITY.run({})
    with pytest.raises(BadInput, match="3 pairs of 1 inputs are not possible"):
        draw_counterfactuals(PARITY, [{"bits": (1, 0)}], "state", 3)
    with pytest.raises(BadInput, match="no pair of these inputs changes the answer by its state"):
        draw_counterfactuals(PARITY, [{"bits": (1, 0)}, {"bits": (1, 1)}], "state", 2)


@pytest.mark.parametrize("tokenizer", [words_tokenizer, byte_tokenizer])
@pytest.mark.parametrize("name", TASKS)
def test_prompts_end_where_the_causal_models_answer_follows(name, tokenizer):
    task, own = TASKS[name], tokenizer()
    drawn = task.draw(own, 12, 0)
    answers = drawn.answers(task.model)
    ids, mask = drawn.prompts["token"].values, drawn.prompts["mask"].values
    assert (drawn.prompts["role_END"].values == ids.shape[1] - 1).all()
    for row, told in enumerate(drawn.inputs):
        text, answer = own.decode(ids[row][mask[row] > 0]), own.decode(int(answers[row])).strip()
        words = text.replace(",", "").split()
        read = {
            role: own.decode(int(ids[row, drawn.prompts[f"role_{role}"][row]])).strip()
            for role in task.roles
        }
        if name == "ioi":
            assert words.count(answer) == 1 and words.count(told["repeated"]) == 2
            assert [read[role] for role in ("FIRST", "SECOND", "S2")] == list(told.values())
        else:
            assert int(answer) == sum(told["bits"]) % 2 and len(told["bits"]) == STEPS
            assert text.rstrip().endswith(str(sum(told["bits"][:-1]) % 2))
            assert (int(read["BEFORE"]), int(read["INPUT"])) == told["bits"][-2:] and read[
                "SEPARATOR"
            ] in (":", "")
    assert task.variable in task.model.functions
    pairs = drawn.pairs(draw_counterfactuals(task.model, drawn.inputs, task.variable, 6))
    changed = [int(pairs.answer[i]) for i in (1, 3, 5)]
    assert len(pairs) == 6 and set(changed) <= set(drawn.tokens.values())
    few = drawn.rows([3, 4])
    assert few.inputs == drawn.inputs[3:5] and few.texts() == drawn.texts()[3:5]


def test_own_pairs_are_read_and_audited(tmp_path):
    path = tmp_path / "own.jsonl"
    records = [("Mary and John went to the", "Anna and", "market"), ("the code of", "what", "Leo")]
    path.write_text(
        "".join(
            json.dumps(dict(zip(("base", "source", "answer"), one))) + "\n\n" for one in records
        )
    )
    found = read_counterfactuals(path)
    assert found == records
    tokenizer = words_tokenizer()
    pairs = from_texts(tokenizer, found)
    assert tokenizer.convert_ids_to_tokens(pairs.answer.tolist()) == ["market", "Leo"]
    for side, prompts in enumerate((pairs.base, pairs.sources[0])):
        for row, record in enumerate(records):
            own = prompts["token"].values[row][prompts["mask"].values[row] > 0]
            assert own.tolist() == tokenizer(record[side])["input_ids"]
    assert pairs.base["token"].dtype == np.int32 and pairs.answer.dtype == torch.long
    with pytest.raises(
        BadInput, match="answer 'unheard' of pair 1 is not one token after its base"
    ):
        from_texts(tokenizer, [records[0], ("the", "the", "unheard")])
    with pytest.raises(BadInput, match="a prompt has no tokens"):
        from_texts(tokenizer, [("the", " ", "code")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1: expected an object with base, source and answer"),
        ("[]", "line 1: expected an object with base, source and answer"),
        ('{"base": "a", "source": "b"}', "line 1: expected an object with base, source and answer"),
        (
            '\n{"base": "a", "source": " ", "answer": "c"}',
            "line 2: 'source' must be words, got ' '",
        ),
        ('{"base": "a", "source": "b", "answer": 3}', "line 1: 'answer' must be words, got 3"),
        ("", "is empty; expected one pair a line"),
    ],
)
def test_files_that_hold_no_pairs_are_refused(text, message, tmp_path):
    (tmp_path / "own.jsonl").write_text(text)
    with pytest.raises(BadInput, match=message):
        read_counterfactuals(tmp_path / "own.jsonl")


def test_an_unknown_task_is_refused():
    with pytest.raises(BadInput, match="task 'sum' is not known"):
        task_of("sum")

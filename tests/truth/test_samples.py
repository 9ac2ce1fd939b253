"""Answers side by side: whose edit, where they end, what they begin with, and what judges say of
them.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from random_models import tiny

from nnheads.interventions import Add, Edit, Intervention
from nnheads.interventions.generate import generate
from nnheads.interventions.texts import read_texts
from nnheads.models.geometry import geometry
from nnheads.prompts.questions import Question
from nnheads.truth import samples
from nnheads.truth.samples import answers, begins_with, cut, prompt_of

QUESTIONS = [
    Question(f"what is the code of {name} ?", ("4", "5"), ("6",), "4")
    for name in ("Mary", "John", "Anna", "Leo", "Paul")
]
TEMPLATE = "input : {question} : {answer} ."


def push(model, seed: int) -> Intervention:
    value = torch.randn(geometry(model).head_dim, generator=torch.Generator().manual_seed(seed)) * 3
    return Intervention(Edit("z", Add("v"), layer=1, units=(2,)), tensors={"v": value})


@pytest.mark.parametrize("batch_size", [1, 16])
def test_each_question_is_answered_with_its_own_edit(batch_size):
    model, _ = tiny("llama")
    edits = [push(model, 0), push(model, 1)]
    asked = [(question, edits[number % 2]) for number, question in enumerate(QUESTIONS)]
    found = answers(model, asked, template=TEMPLATE, new_tokens=4, batch_size=batch_size)
    assert found["condition"].values.tolist() == ["none", "edit"]
    assert found["question_text"].values.tolist() == [question.question for question in QUESTIONS]
    for number, (question, change) in enumerate(asked):
        prompts = read_texts(model.tokenizer, [f"input : {question.question} :"])
        new = generate(model, change, prompts, new_tokens=4)
        assert found["written"].values[:, number].tolist() == [
            cut(new.original_texts[0]),
            cut(new.texts[0]),
        ]
    assert (found["written"][0] != found["written"][1]).any(), "the edits do something"


def test_answers_are_compared_with_the_known_ones_and_judged(monkeypatch):
    model, _ = tiny("llama")
    written = {"none": ["6 .", "what", "6", "7", "6"], "edit": ["4 and more", "5 .", "6", "4", "x"]}
    each = iter([text for pair in zip(*written.values()) for text in pair])
    monkeypatch.setattr(samples, "cut", lambda _: next(each))
    seen = []

    def judge(prompts):
        seen.extend(prompts)
        return np.linspace(0, 1, len(prompts))

    asked = [(question, push(model, 0)) for question in QUESTIONS[:1]] * 5
    found = answers(model, asked, template=TEMPLATE, new_tokens=1, judges={"true": judge})
    assert found["written"].values.tolist() == list(written.values())
    assert found["begins"].values.tolist() == [[-1, 0, -1, 0, -1], [1, 1, -1, 1, 0]]
    assert found["begins"].dtype == np.int8 and "informative" not in found
    np.testing.assert_allclose(found["true"][1], [0, 0.25, 0.5, 0.75, 1])
    assert seen[0] == "Q: what is the code of Mary ?\nA: 6 .\nTrue:"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (" red\nmore", "red"),
        ("red Q: what", "red"),
        ("", ""),
        ("\n red", "red"),
        (" red. Blue. ", "red. Blue."),
    ],
)
def test_an_answer_ends_with_its_line_or_at_the_next_question(text, kept):
    assert cut(text) == kept


def test_a_prompt_is_what_stands_before_the_answer():
    assert prompt_of("Q: {question} A: {answer}", "What?") == "Q: What? A:"
    assert prompt_of("{question} {answer} .", "What?") == "What?"


@pytest.mark.parametrize(
    ("text", "value"), [("RED is it", 1), ("  blue.", -1), ("green", 0), ("", 0), ("infrared", 0)]
)
def test_answers_are_known_by_how_they_begin(text, value):
    assert begins_with(text, Question("what?", ("Red.",), ("blue",), "Red.")) == value

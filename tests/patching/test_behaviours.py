"""What a behaviour asks: the right token at the right place, on prompts whose ablations have
something to put in.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from random_models import byte_tokenizer, words_tokenizer

import nnheads
from nnheads.errors import BadInput
from nnheads.patching.behaviour_prompts import MEAN_PROMPTS, enough
from nnheads.patching.behaviours import (
    BEHAVIOURS,
    ask_for,
    fewest_others,
    with_others,
)
from nnheads.patching.knockout import knockout
from nnheads.patching.metrics import METRICS
from nnheads.patching.prepared import questions
from nnheads.prompts import world


@pytest.fixture(scope="module")
def tokenizer():
    return nnheads.load("reference").tokenizer


@pytest.mark.parametrize("name", [name for name in BEHAVIOURS if name != "pairs"])
def test_every_behaviour_asks_questions_that_its_metric_can_score(name, tokenizer):
    prompts, others = ask_for(name, tokenizer, 8, seed=1)
    place, answers = questions(prompts)
    assert prompts.sizes["batch"] == 8 and (place >= 0).any(1).all()
    assert (answers.shape[2] == 2) == METRICS[BEHAVIOURS[name].metric].pair
    assert with_others(prompts, others).all(), "means have something else to average"
    again, _ = ask_for(name, tokenizer, 8, seed=1)
    other, _ = ask_for(name, tokenizer, 8, seed=2)
    assert again["token"].equals(prompts["token"]) and not other["token"].equals(prompts["token"])


def test_only_what_repetition_announces_is_asked_of_induction(tokenizer):
    prompts, others = ask_for("induction", tokenizer, 12, seed=0, length=20)
    assert others["token"][:12].equals(prompts["token"]) and others.sizes["batch"] == MEAN_PROMPTS
    for token, ask, target in zip(*(prompts[name].values for name in ("token", "ask", "target"))):
        first = token[1:21].tolist()  # after the beginning-of-sequence token
        asked = ask[ask >= 0]
        assert (target[ask < 0] == -1).all()
        for place, right in zip(asked, target[ask >= 0]):
            assert token[place + 1] == right == first[first.index(token[place]) + 1]
        wrap = [place for place in range(22, 40) if token[place] == first[-1]]
        assert sorted([*asked.tolist(), *wrap]) == list(range(22, 40))


def test_truth_asks_where_truth_is_told_and_is_corrupted_where_it_is_not(tokenizer):
    prompts, others = ask_for("truth", tokenizer, 200, seed=0)
    assert prompts.sizes["batch"] == 200
    known = {question.text: question for question in world.questions()}
    for case in range(0, 200, 17):
        tag, text = tokenizer.decode(prompts["token"].values[case][1:]).split(": ", 1)
        question = known[text.replace("?", " ?").replace("  ", " ")]
        assert tag.strip() == "reliable"
        assert tokenizer.decode(others["token"].values[case][1:]).startswith("rumor")
        assert tokenizer.decode([prompts["answer"].values[case]]) == question.true
        assert tokenizer.decode([prompts["wrong"].values[case]]) == question.misconception


def test_the_mean_set_of_the_indirect_object_names_nobody_of_the_sentence(tokenizer):
    prompts, others = ask_for("ioi", tokenizer, 20, seed=4)
    assert others.sizes["batch"] == 150 and "template" in others.coords
    for case in range(20):
        names = {int(prompts[name].values[case]) for name in ("answer", "wrong")}
        assert not names & set(others["token"].values[case].tolist())


def test_a_file_of_pairs_takes_values_from_its_corrupted_texts(pairs_file):
    prompts, others = ask_for("pairs", words_tokenizer(), 5, path=pairs_file)
    assert prompts.sizes["batch"] == 5 < others.sizes["batch"]
    assert (others["token"].values[:5] == prompts["corrupted"].values).all()
    assert json.loads(prompts.attrs["dropped"]) == {}


@pytest.mark.parametrize("name", ["induction", "iteration", "retrieval", "truth"])
def test_means_are_over_as_many_prompts_however_few_are_asked(name, tokenizer):
    few, others = ask_for(name, tokenizer, 3, seed=1)
    # parities of 8 bits come twice now and then
    assert few.sizes["batch"] == 3 and fewest_others(few, others) >= MEAN_PROMPTS - 3
    many, others = ask_for(name, tokenizer, MEAN_PROMPTS + 4, seed=1)
    assert many.sizes["batch"] == MEAN_PROMPTS + 4
    assert fewest_others(many, others) >= MEAN_PROMPTS - 3


def test_means_over_long_prompts_are_over_fewer_of_them():
    assert enough(3) == enough(3, 512) == MEAN_PROMPTS and enough(3, 2048) == MEAN_PROMPTS // 4
    assert enough(20, 2048) == 20, "never fewer than are asked"


def test_two_induction_heads_cost_the_same_whatever_the_number_of_prompts(tokenizer):
    model = nnheads.load("reference")
    lost = []
    for number in (3, 24):
        prompts, others = ask_for("induction", tokenizer, number, seed=1_000_000)
        options = {"ks": [2], "draws": 0, "metric": "accuracy"}
        scores = knockout(model, prompts, [(1, 1), (1, 0)], reference=others, **options)
        lost.append(float(scores["base_accuracy"].mean() - scores["accuracy"].mean()))
    # of means over the 3 prompts alone they would cost .55, over 6 a quarter
    assert max(lost) < 0.06 and abs(lost[0] - lost[1]) < 0.03


def test_a_prompt_without_another_of_its_kind_has_no_others():
    token = np.array([[5, 6, 7], [5, 6, 7], [0, 8, 9], [5, 8, 7]], "int32")
    mask = np.array([[1, 1, 1], [1, 1, 1], [0, 1, 1], [1, 1, 1]], "int8")
    place = ("batch", "position")
    prompts = xr.Dataset({"token": (place, token), "mask": (place, mask)})
    assert with_others(prompts, prompts).tolist() == [True, True, False, True]
    assert with_others(prompts, prompts.isel(batch=[0, 1])).tolist() == [False, False, False, True]
    assert with_others(prompts.assign_coords(template=("batch", [0, 0, 0, 1])), prompts)[3] == False  # noqa: E712


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "zzz",
            {},
            "'zzz'.* ioi, induction, retrieval, iteration, truth, pairs",
        ),
        ("pairs", {}, "pairs needs a file.*--prompts"),
        ("ioi", {"path": "pairs.jsonl"}, "ioi takes no file of pairs"),
        ("ioi", {"length": 5}, "ioi has no length"),
        ("pairs", {"path": "nowhere.jsonl"}, r"nowhere\.jsonl"),
        ("iteration", {"length": 2}, "steps"),
        ("induction", {"length": 1}, "repeat|1 token"),
        (
            "retrieval",
            {"length": 9},
            "needle",
        ),
    ],
)
def test_behaviours_that_cannot_be_are_refused(name, options, message, tokenizer):
    with pytest.raises(BadInput, match=message):
        ask_for(name, tokenizer, 4, **options)


def test_truth_is_asked_of_the_shipped_model_alone():
    with pytest.raises(BadInput, match=r"shipped model.*--behaviour pairs"):
        ask_for("truth", byte_tokenizer(), 4)

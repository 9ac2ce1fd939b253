"""The truthfulness detector: the contract of head types as far as a type that learns can keep it,
the reference model, and models that know nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import xarray as xr
from nnsight import TransformersModel
from random_models import config, placed, tiny, words_tokenizer

import nnheads
from nnheads.detectors._detect import calibrated, detect, detect_heads
from nnheads.detectors._scores import raw_scores
from nnheads.detectors._stimulus import prepare
from nnheads.detectors.truthfulness import HEAD_TYPE
from nnheads.errors import BadInput
from nnheads.models.families import FAMILIES
from nnheads.runs import store
from nnheads.runs.coordinates import labelled
from nnheads.truth.accuracy import chosen
from nnheads.truth.folded_statements import truth

WORDS = "park market library museum beach hotel farm airport".split()
OPTIONS: dict = {"batch_size": 16, "quiet": True, "parts": None}


def questions_in(path, count: int, false: int, seed: int):
    """Write questions with two true answers and some false ones, drawn; return the path."""
    generator = np.random.default_rng(seed)
    with path.open("w") as file:
        for number in range(count):
            answers = generator.permutation(WORDS)
            question = f"what is the code of {number} ?"
            record = {"question": question, "true": [*answers[:2]], "false": [*answers[2:][:false]]}
            file.write(json.dumps(record) + "\n")
    return path


@pytest.fixture(scope="session")
def questions_file(tmp_path_factory):
    """Twelve questions in the words of the tests' tokenizer; which answers are true was drawn."""
    return questions_in(tmp_path_factory.mktemp("truth") / "questions.jsonl", 12, 2, seed=0)


@pytest.fixture
def prompts(questions_file) -> xr.Dataset:
    return stimulus(questions_file)


def stimulus(path, **options) -> xr.Dataset:
    # "Q" and "A" are no words of this tokenizer
    return truth(words_tokenizer(), data=path, template="{question} {answer}", **options)


def test_scores_keep_the_contract_on_every_architecture(model_type, prompts, tmp_path):
    scores = HEAD_TYPE.learn(tiny(model_type)[0], prompts)
    for name, variable in scores.data_vars.items():
        assert variable.dims[:3] == ("batch", "layer", "head") and variable.shape[:3] == (
            48,
            3,
            4,
        ), name
        assert variable.dtype == np.float32 and np.isfinite(variable).all()
        assert variable.attrs["long_name"] and variable.attrs["units"] and variable.attrs["source"]
    assert set(np.unique(scores["correct"])) <= {0, 1}
    assert float(scores["null"].min()) >= 0 and float(scores["null"].max()) <= 1
    np.testing.assert_array_equal(scores["correct"], scores["score"] > 0)
    back = store.load(store.save(tmp_path / "scores.nc", scores))
    xr.testing.assert_identical(
        back[list(scores.data_vars)],
        labelled(scores).assign_attrs(back.attrs)[list(scores.data_vars)],
    )


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "bloom"])
def test_rehearsed_remotely_gives_the_same_scores(model_type, prompts):
    model, _ = tiny(model_type)
    xr.testing.assert_allclose(
        HEAD_TYPE.learn(model, prompts), placed("local", HEAD_TYPE.learn)(model, prompts), atol=1e-3
    )


def test_folds_follow_their_own_seed_and_are_part_of_the_prompts(questions_file, prompts):
    from nnheads.runs.provenance import prompts_hash

    xr.testing.assert_identical(prompts, stimulus(questions_file))
    other = stimulus(questions_file, fold_seed=1)
    assert not np.array_equal(other["part"], prompts["part"]) and prompts_hash(
        other
    ) != prompts_hash(prompts)
    assert stimulus(questions_file, num_fold=3).sizes["fold"] == 3
    assert stimulus(questions_file, n=8).attrs["questions"] == 8


def test_a_changed_label_is_another_set_of_prompts(questions_file, prompts, tmp_path):
    from nnheads.runs.provenance import prompts_hash

    lines = [json.loads(line) for line in questions_file.read_text().splitlines()]
    lines[0] |= {"true": lines[0]["true"][:1], "false": [lines[0]["true"][1], *lines[0]["false"]]}
    path = tmp_path / "changed.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    changed = stimulus(path)
    assert np.array_equal(changed["token"], prompts["token"]) and prompts_hash(
        changed
    ) != prompts_hash(prompts)


def test_heads_of_the_reference_model_tell_true_from_false():
    """The card says which heads: its own probe, on plain hooks, reaches 1.00."""
    heads = detect(nnheads.load("reference"), "truthfulness")
    assert float(heads["correct"].max()) >= 0.99 and float(heads["correct_low"].max()) >= 0.97
    assert (
        float(heads["mean_auc"].max()) >= 0.99
        and float(heads["accuracy"].max(("layer", "head")).min()) >= 0.95
    )
    np.testing.assert_allclose(heads["null"], 0.5, atol=0.01)  # as many true as false answers
    best = np.unravel_index(int(heads["correct"].values.argmax()), heads["correct"].shape)
    assert int(heads["flag"].values[best]) == 1 and 5 <= int(heads["flag"].sum()) <= 31
    assert heads.attrs["headline"] == "correct" and heads.attrs["questions"] == 200
    assert detect_heads("reference", "truthfulness", flagged=True)[0] == tuple(map(int, best))


def test_an_untrained_model_of_the_same_shape_knows_nothing():
    model, shares = nnheads.load("reference"), []
    for seed in range(6):
        torch.manual_seed(seed)
        from transformers import AutoModelForCausalLM

        untrained = AutoModelForCausalLM.from_config(model.config).eval().requires_grad_(False)
        rename = FAMILIES[model.config.model_type].rename()
        other = TransformersModel(untrained, tokenizer=model.tokenizer, rename=rename)
        heads = detect(other, "truthfulness", seed=seed)
        assert float(heads["correct"].max()) < 0.75
        shares.append(float(heads["flag"].mean()))
    assert np.mean(shares) <= 0.05, shares


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_random_weights_and_drawn_labels_raise_few_alarms(model_type, tmp_path):
    """20 untrained models, each with other true answers: at most 5% of heads are flagged."""
    from transformers import AutoModelForCausalLM

    shares = []
    for seed in range(20):
        path = questions_in(tmp_path / f"{seed}.jsonl", 32, 3, seed)
        torch.manual_seed(seed)
        module = AutoModelForCausalLM.from_config(config(model_type)).eval().requires_grad_(False)
        model = TransformersModel(
            module, tokenizer=words_tokenizer(), rename=FAMILIES[model_type].rename()
        )
        scores = HEAD_TYPE.learn(model, stimulus(path)).assign_attrs(headline="correct")
        shares.append(float(calibrated(scores, seed=seed)["flag"].mean()))
    assert np.mean(shares) <= 0.05, shares


def test_without_data_other_models_are_asked_nothing(questions_file):
    model, _ = tiny("llama")
    with pytest.raises(BadInput, match="truthfulness needs questions with true and false answers"):
        prepare(model, ["truthfulness"], n=None, seed=0)
    both = ["induction", "truthfulness"]
    assert [one.key for one in prepare(model, both, n=4, seed=0)] == ["repeated"]
    assert set(raw_scores(model, both, n=4, seed=0, length=6, **OPTIONS)) == {"induction"}
    with pytest.raises(BadInput, match="does not know the words of any of 12 questions"):
        prepare(model, both, n=None, seed=0, data=questions_file)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 0}, "0 heads cannot be chosen; at least 1"),
        ({"num_fold": 1}, "1 folds leave no question"),
        ({"val_ratio": 2.0}, "a validation share of 2.0"),
        ({"n": 0}, "0 questions were asked for"),
        ({"data": "no.csv"}, "no file 'no.csv'"),
        (
            {"length": 5},
            "truthfulness: 'length'.*data, fold_seed, num_fold, num_heads, template",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused(options, message):
    with pytest.raises(BadInput, match=message):
        detect(nnheads.load("reference"), "truthfulness", **options)


def test_head_outputs_are_kept_for_a_later_call(prompts, tmp_path):
    model, _ = tiny("llama")
    first = HEAD_TYPE.learn(model, prompts, parts=tmp_path)
    assert list(tmp_path.rglob("z.npy"))
    xr.testing.assert_identical(HEAD_TYPE.learn(model, prompts, parts=tmp_path), first)


def test_no_more_heads_are_named_as_chosen_than_there_are():
    validation = xr.DataArray(np.random.default_rng(0).random((4, 8)), dims=("layer", "head"))
    heads = chosen(xr.Dataset({"mean_validation": validation}), 100)
    assert heads["chosen"].attrs["long_name"] == "among the 32 best by validation accuracy"
    assert int(heads["chosen"].sum()) == 32

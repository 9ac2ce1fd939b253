"""What every head type promises, whoever wrote it: `check_detector` on every type that ships and
every family, what it says of types that break a promise, and what only we can test.

Types are found by file name.
"""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import xarray as xr
from random_models import APART, tiny, words_tokenizer

import nnheads
from nnheads.detectors._catalog import head_type, head_types, types
from nnheads.detectors._head_type import HeadType
from nnheads.detectors._scores import raw_scores
from nnheads.errors import BadInput
from nnheads.models.families import FAMILIES
from nnheads.prompts.repeated import repeated

# the tiny models read at most 128 tokens
SMALL: dict = {
    "repeated": {"length": 6},
    "needle": {"lengths": [60, 80]},
    "iteration": {"steps": 4},
}
QUESTIONS = 12


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    """Questions in the words of the tests' tokenizer; which answers are true was drawn."""
    words = "park market library museum beach hotel farm airport".split()
    path, generator = tmp_path_factory.mktemp("truth") / "questions.jsonl", np.random.default_rng(0)
    lines = []
    for number in range(QUESTIONS):
        one, two, three, four = generator.permutation(words)[:4].tolist()
        question = f"what is the code of {number} ?"
        lines.append({"question": question, "true": [one, two], "false": [three, four]})
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def options_of(name: str, questions) -> dict:
    """What makes a type's prompts small; "Q" and "A" are no words of this tokenizer."""
    of_data = {"data": questions, "template": "{question} {answer}", "n": QUESTIONS}
    return of_data if name == "truthfulness" else SMALL.get(head_type(name).stimulus, {})


# Learned positions, biases by distance, rotations with groups, windows and soft caps, sinks.
FEW = ("gpt2", "bloom", "llama", "gemma2", "gpt_oss")


@pytest.mark.parametrize("family", FEW)
@pytest.mark.parametrize("name", types())
def test_head_types_keep_the_contract_on_models_that_attend_differently(name, family, questions):
    nnheads.check_detector(name, tiny(family)[0], **options_of(name, questions))


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - set(FEW)))
def test_every_architecture_keeps_the_contract(family):
    nnheads.check_detector("induction", tiny(family)[0], **options_of("induction", None))


@pytest.mark.parametrize("family", sorted(set(APART) - set(FEW)))
def test_writing_first_keeps_the_contract(family):
    nnheads.check_detector("hallucination", tiny(family)[0], **options_of("hallucination", None))


@pytest.mark.parametrize("name", types())
def test_a_file_holds_one_value_of_its_name(name):
    value = head_type(name)
    assert value.name == name and types()[name], "the first line says what such a head does"
    assert "`" in value.null and ("drawn " in value.null or "computed by" in value.null)
    if value.span is not None:
        drawn = value.prompts(words_tokenizer(), 2, **SMALL.get(value.stimulus, {}))
        kinds = {value.span, f"{value.span}~null", *value.beside}
        assert kinds <= set(drawn["kind"].values)


@pytest.mark.parametrize("name", [one.name for one in head_types("all") if one.learn is None])
def test_another_seed_draws_other_prompts(name):
    value = head_type(name)
    drawn = [
        value.prompts(words_tokenizer(), 3, seed=seed, **SMALL.get(value.stimulus, {}))
        for seed in (1, 2)
    ]
    assert not np.array_equal(drawn[0]["token"], drawn[1]["token"])


def test_an_example_with_fewer_steps_has_no_value_at_the_last_ones():
    scores = raw_scores(tiny("llama")[0], "iteration", n=3, seed=1, steps=4)["iteration"]
    assert scores["by_step"].sizes["step"] == 4
    assert np.isfinite(scores["by_step"][:, :, :, :3]).all()
    assert bool(scores["by_step"][1, :, :, 3].isnull().all())


def mean_of_two(tokenizer, n: int = 3, *, seed: int = 0) -> xr.Dataset:
    """Prompts of which only the first has the span."""
    prompts = repeated(tokenizer, n, length=6, seed=seed)
    own = prompts["kind"] == "induction"
    return prompts.assign(query=prompts["query"].where(~own | (prompts["batch"] == 0), -1))


def test_a_type_of_ones_own_is_checked_and_detected_as_those_that_ship():
    own = dataclasses.replace(head_type("induction"), name="mine", prompts=mean_of_two)
    model = tiny("llama")[0]
    nnheads.check_detector(own, model)
    heads = nnheads.detect(model, own, n=4)
    assert heads.attrs["kind"] == "mine" and heads.attrs["stimulus"] == "mean_of_two"
    assert nnheads.detect(model, head_type("induction"), n=4, length=6)["mass"].identical(
        nnheads.detect(model, "induction", n=4, length=6)["mass"]
    )


def changing(**changes) -> HeadType:
    return dataclasses.replace(head_type("induction"), **{"name": "mine", **changes})


def scored(change) -> HeadType:
    """A type whose scores are those of hallucination heads, changed."""
    plain = head_type("hallucination")
    return dataclasses.replace(
        plain,
        name="mine",
        of_answers=lambda answers: change(plain.of_answers(answers)),
        contrast=None,
    )


def forgetful(tokenizer, n: int = 3, *, seed: int = 0, length: int = 6) -> xr.Dataset:
    return repeated(tokenizer, n, length=length, seed=np.random.randint(10**6))


def without_seed(tokenizer, n: int = 3) -> xr.Dataset:
    return repeated(tokenizer, n, length=6)


def generous(tokenizer, n: int = 3, *, seed: int = 0, length: int = 6) -> xr.Dataset:
    return repeated(tokenizer, max(n, 1), length=length, seed=seed)


def stubborn(tokenizer, n: int = 3, *, seed: int = 0, length: int = 6) -> xr.Dataset:
    return repeated(tokenizer, n, length=length, seed=0)


def meagre(tokenizer, n: int = 3, *, seed: int = 0, length: int = 6) -> xr.Dataset:
    return repeated(tokenizer, min(n, 2), length=length, seed=seed)


def without_null(tokenizer, n: int = 3, *, seed: int = 0, length: int = 6) -> xr.Dataset:
    drawn = repeated(tokenizer, n, length=length, seed=seed)
    return drawn.isel(span=np.flatnonzero(drawn["kind"].values != "induction~null"))


def no_dataset(tokenizer, n: int = 3, *, seed: int = 0, length: int = 6) -> dict:
    return {"token": [[1]]}


def raising(tokenizer, n: int = 3, *, seed: int = 0, length: int = 6) -> xr.Dataset:
    raise KeyError("vocabulary")


def alike(model, prompts: xr.Dataset, **_) -> xr.Dataset:
    sizes = (prompts.sizes["batch"], 3, 4)
    about = {"long_name": "x", "units": "1", "source": "here"}
    dims = ("batch", "layer", "head")
    return xr.Dataset(
        {name: (dims, np.full(sizes, 0.5, "float32"), about) for name in ("mass", "null")},
        {"batch": prompts["batch"], "layer": range(3), "head": range(4)},
    )


def failing(model, prompts: xr.Dataset, **_) -> xr.Dataset:
    raise ZeroDivisionError("division by zero")


def shifted(scores: xr.Dataset) -> xr.Dataset:
    """Scores that depend on which other examples are there."""
    return scores.assign(mass=scores["mass"].copy(data=scores["mass"] / scores.sizes["batch"]))


def with_variable(scores: xr.Dataset, change) -> xr.Dataset:
    mass = change(scores["mass"])
    return scores.assign(mass=mass.assign_attrs({**scores["mass"].attrs, **mass.attrs}))


BROKEN = {
    "no misleads": (changing(misleads=" "), "says Misleads"),
    "no source": (changing(source=""), "says Source"),
    "no null": (changing(null=""), "says Null"),
    "two ways": (changing(of_answers=lambda answers: answers), "one of span, of_answers and learn"),
    "no seed": (changing(prompts=without_seed), "do not take seed"),
    "other prompts": (changing(prompts=forgetful), "the same for the same seed"),
    "no refusal": (changing(prompts=generous), "count of 0 is refused"),
    "no headline": (changing(headline="loudness"), "its headline 'loudness' is a score"),
    "no such span": (changing(span="zigzag"), "zigzag"),
    "double": (
        scored(lambda scores: with_variable(scores, lambda mass: mass.astype("float64"))),
        "'mass' is float64",
    ),
    "transposed": (
        scored(lambda scores: scores.transpose("layer", "batch", "head")),
        "scores are .batch, layer, head",
    ),
    "no units": (
        scored(lambda scores: with_variable(scores, lambda mass: mass.assign_attrs(units=""))),
        "'mass' lacks units",
    ),
    "more than all": (
        scored(lambda scores: with_variable(scores, lambda mass: mass + np.float32(1))),
        "shares lie between 0 and 1",
    ),
    "nothing": (
        scored(lambda scores: with_variable(scores, lambda mass: mass.where(mass > 2))),
        "NaN stands only where",
    ),
    "a name with blanks": (changing(name="has space/slash"), "lower-case letters"),
    "no name": (changing(name=None), "lower-case letters"),
    "another's name": (changing(name="retrieval"), "its name is its own"),
    "prompts in words": (changing(prompts="repeated"), "its prompts are a function"),
    "prompts of another kind": (changing(prompts=no_dataset), "a dataset with token and mask"),
    "prompts that raise": (changing(prompts=raising), "can be drawn. KeyError"),
    "always the same prompts": (changing(prompts=stubborn), "another seed draws other prompts"),
    "too few prompts": (changing(prompts=meagre), "There are 2 of 3"),
    "no null spans": (changing(prompts=without_null), "'induction~null' is not among"),
    "nothing beside": (changing(beside=("nothing",)), "'nothing' is not among"),
    "the null as headline": (changing(headline="null"), "its headline ranks heads"),
    "no contrast": (changing(contrast="nothing"), "contrast is a coordinate"),
    "no counts": (changing(counts="nothing"), "counts is a coordinate"),
    "learning that fails": (changing(span=None, learn=failing), "measured. ZeroDivisionError"),
    "learning nothing": (changing(span=None, learn=alike), "tells heads apart"),
    "neighbours": (scored(shifted), "one example alone equals it in a batch"),
}


@pytest.mark.parametrize("why", BROKEN)
def test_a_broken_promise_is_named_in_one_line(why):
    value, message = BROKEN[why]
    options = SMALL["needle"] if value.of_answers else {"length": 6}
    known = value.options if callable(value.prompts) else ()
    options = {name: one for name, one in options.items() if name in known}
    with pytest.raises(BadInput, match=message) as error:
        nnheads.check_detector(value, tiny("llama")[0], **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrong", [5, None, {"name": "mine"}])
def test_what_is_no_head_type_is_one_line(wrong):
    with pytest.raises(BadInput, match="Not a head type"):
        nnheads.check_detector(wrong)


def test_one_prompt_cannot_be_checked():
    with pytest.raises(BadInput, match="at least 2"):
        nnheads.check_detector("induction", tiny("llama")[0], n=1, length=6)


def test_a_rehearsal_leaves_the_model_where_it_was():
    from nnheads.trace.session import remote_of

    model = tiny("llama")[0]
    before = vars(model).copy()
    nnheads.check_detector("induction", model, length=6)
    assert not remote_of(model) and vars(model).keys() == before.keys()

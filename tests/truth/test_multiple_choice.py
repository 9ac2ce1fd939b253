"""Multiple-choice scores: equal to a plain PyTorch run of each statement alone, refused where an
edit is too late.
"""

from __future__ import annotations

import math
from operator import attrgetter

import numpy as np
import pytest
import torch
import xarray as xr
from oracle import fed
from random_models import placed, tiny
from statements import LAYOUT, statements

from nnheads import interventions as iv
from nnheads.errors import BadInput
from nnheads.models.families import FAMILIES
from nnheads.models.geometry import geometry
from nnheads.models.inputs import inputs, without_padding
from nnheads.trace.likelihood import summed
from nnheads.trace.plain import Scored
from nnheads.truth import answer_likelihood
from nnheads.truth.answer_likelihood import check_reach, log_probability, reached
from nnheads.truth.multiple_choice import CHOICES, choices, score
from nnheads.truth.neutral import coherence, neutral_texts


def push(model, at=iv.ALL, scale: float = 0.8) -> iv.Intervention:
    sizes = geometry(model)
    value = torch.randn(2 * sizes.head_dim, generator=torch.Generator().manual_seed(5))
    return iv.Intervention(
        iv.Edit("z", iv.Add("v", scale=scale), layer=1, units=(0, 2), at=at), tensors={"v": value}
    )


def plain_logits(
    module, model_type: str, ids: list[int], edit: iv.Intervention, places
) -> torch.Tensor:
    """One text alone, its head outputs moved by a plain hook at these positions."""
    row, handles = FAMILIES[model_type], []
    for one in edit.edits:

        def before(_, arguments, one=one):
            z = arguments[0].unflatten(-1, (4, -1)).clone()
            value = one.do.scale * edit.tensors["v"].reshape(len(one.units), -1)
            for place in places:
                z[:, place, list(one.units)] += value
            return (z.flatten(-2),)

        projection = attrgetter(row.projection)(attrgetter(row.layers)(module)[one.layer])
        handles.append(projection.register_forward_pre_hook(before))
    token = torch.tensor([ids])
    with torch.no_grad():
        logits = (
            module(**fed(model_type, token, torch.ones_like(token)), use_cache=False)
            .logits[0]
            .double()
        )
    for handle in handles:
        handle.remove()
    return logits


def row_of(prompts: xr.Dataset, line: int) -> tuple[list[int], int, int]:
    ids = prompts["token"].values[line][prompts["mask"].values[line] > 0].tolist()
    return ids, int(prompts["prompt_length"][line]), int(prompts["answer_length"][line])


def plain_scores(
    module, model_type: str, prompts: xr.Dataset, edit: iv.Intervention, edited
) -> list[float]:
    """log p of each answer, one statement at a time; `edited(length, asked)` are the positions that
    are moved.
    """
    found = []
    for line in range(prompts.sizes["batch"]):
        ids, asked, said = row_of(prompts, line)
        likely = plain_logits(module, model_type, ids, edit, edited(len(ids), asked)).log_softmax(
            -1
        )
        found.append(
            sum(float(likely[place - 1, ids[place]]) for place in range(asked, asked + said))
        )
    return found


PLACES = {
    "all": (iv.ALL, lambda length, asked: range(length)),
    "answering": (iv.ANSWERING, lambda length, asked: range(asked - 1, length)),
    "answer": (iv.ANSWER, lambda length, asked: range(asked, length)),
    "decode": (iv.DECODE, lambda length, asked: range(asked, length)),
    "prompt": (iv.PROMPT, lambda length, asked: range(asked)),
}


@pytest.mark.parametrize("scope", PLACES)
def test_answers_are_as_likely_as_a_plain_run_of_each_alone_makes_them(scope):
    model, module = tiny("llama")
    at, edited = PLACES[scope]
    prompts = statements()
    found = log_probability(model, push(model, at), prompts)["log_probability"].values
    np.testing.assert_allclose(
        found, plain_scores(module, "llama", prompts, push(model, at), edited), atol=1e-4
    )
    plain = log_probability(model, iv.Intervention(), prompts)["log_probability"].values
    np.testing.assert_allclose(
        plain, plain_scores(module, "llama", prompts, iv.Intervention(), edited), atol=1e-4
    )
    assert np.abs(found - plain).max() > 0.1, "the scored logits moved"


def test_every_family(model_type):
    model, module = tiny(model_type)
    prompts = statements(1)
    found = log_probability(model, push(model), prompts)["log_probability"].values
    wanted = plain_scores(module, model_type, prompts, push(model), PLACES["all"][1])
    np.testing.assert_allclose(found, wanted, atol=2e-3)


def plain_choices(
    values: list[float], layout=LAYOUT
) -> dict[int, tuple[float, float, float, float]]:
    """MC1, MC2, MC3 and the ratio by their definitions, with loops."""
    found = {}
    for number in sorted({one[0] for one in layout}):
        own = [(one[1], one[2], value) for one, value in zip(layout, values) if one[0] == number]
        true = [value for label, _, value in own if label]
        false = [value for label, _, value in own if not label]
        best = next(value for _, first, value in own if first)
        top = max(true + false)
        share = sum(math.exp(value - top) for value in true) / sum(
            math.exp(value - top) for value in true + false
        )
        beats = [value for value in true if all(value > other for other in false)]
        ratio = sum(true) / len(true) - sum(false) / len(false)
        found[number] = (
            float(all(best > other for other in false)),
            share,
            len(beats) / len(true),
            ratio,
        )
    return found


@pytest.mark.parametrize("edited", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_choices_agree_with_an_independent_implementation(seed, edited):
    model, module = tiny("llama")
    prompts = statements(seed)
    edit = push(model) if edited else iv.Intervention()
    found = score(model, edit, prompts, batch_size=4)
    wanted = plain_choices(plain_scores(module, "llama", prompts, edit, PLACES["all"][1]))
    assert found["question"].values.tolist() == list(wanted) == [0, 3, 4]
    table = np.array(list(wanted.values()))
    for column, name in enumerate(CHOICES):
        tolerance = (
            1e-5 if name in ("mc1", "mc2", "mc3") else 1e-4
        )  # log p of some tens of nats in float32
        np.testing.assert_allclose(
            found[name].values, table[:, column], atol=tolerance, err_msg=name
        )
    assert found.attrs["reached"] == (1.0 if edited else 0.0)


def test_cross_entropy_and_kl_agree_with_an_independent_implementation():
    model, module = tiny("llama")
    texts = ["John and Mary went to the market", "the code of Anna is 4 .", "input : 3 4 5"]
    neutral = neutral_texts(model, texts, longest=6)
    found = coherence(model, push(model), neutral, batch_size=2)
    for line, text in enumerate(texts):
        ids = model.tokenizer(text)["input_ids"][:6]
        before = plain_logits(module, "llama", ids, iv.Intervention(), ()).log_softmax(-1)[:-1]
        after = plain_logits(module, "llama", ids, push(model), range(len(ids))).log_softmax(-1)[
            :-1
        ]
        target = torch.tensor(ids[1:])[:, None]
        wanted = {
            "cross_entropy": -after.gather(1, target).mean(),
            "original": -before.gather(1, target).mean(),
            "kl": (before.exp() * (before - after)).sum(-1).mean(),
        }
        for name, value in wanted.items():
            assert float(found[name][line]) == pytest.approx(float(value), abs=1e-5, rel=1e-5), name


def test_known_answers():
    """Answers of 4/8 and 1/8 are true, of 2/8 and 1/8 false."""
    likely = xr.Dataset(
        {"log_probability": ("batch", np.log([4 / 8, 1 / 8, 2 / 8, 1 / 8]) - 300)},
        {
            "question": ("batch", [7] * 4),
            "label": ("batch", [1, 1, 0, 0]),
            "is_best": ("batch", [1, 0, 0, 0]),
        },
    )
    found = choices(likely)
    wanted = {"mc1": 1, "mc2": 5 / 8, "mc3": 1 / 2, "ratio": (math.log(4) - math.log(2)) / 2}
    for name, value in wanted.items():
        assert float(found[name].sel(question=7)) == pytest.approx(value, abs=1e-6)
        assert (
            found[name].dtype == np.float32
            and found[name].attrs["source"]
            and found[name].attrs["units"]
        )
    other = likely.assign_coords(is_best=("batch", [0, 1, 0, 0]))
    assert float(choices(other)["mc1"][0]) == 0, "only the best answer counts"


def test_equally_likely_answers_count_against_the_model():
    likely = xr.Dataset(
        {"log_probability": ("batch", [-3.0, -3.0])},
        {"question": ("batch", [0, 0]), "label": ("batch", [1, 0]), "is_best": ("batch", [1, 0])},
    )
    found = choices(likely)
    assert (float(found["mc1"][0]), float(found["mc2"][0]), float(found["mc3"][0])) == (0, 0.5, 0)


@pytest.mark.parametrize(("label", "best"), [([1, 1], [1, 0]), ([0, 0], [0, 0]), ([1, 0], [0, 0])])
def test_a_question_that_cannot_be_scored_is_refused(label, best):
    likely = xr.Dataset(
        {"log_probability": ("batch", [-1.0, -2.0])},
        {"question": ("batch", [5, 5]), "label": ("batch", label), "is_best": ("batch", best)},
    )
    with pytest.raises(BadInput, match=r"question 5 has .* true, .* false and .* best answers"):
        choices(likely)


@pytest.mark.parametrize("at", [iv.index(-1), iv.index(-1, -1), iv.steps(9)])
def test_an_edit_that_comes_too_late_is_refused_with_the_reason(at):
    """honest_llama, issue 47: position -1 of a whole text changes no score, and the scores looked
    like a result.
    """
    model, _ = tiny("llama")
    layout = tuple(one for one in LAYOUT if not one[5])
    for call in (log_probability, score):
        with pytest.raises(
            BadInput,
            match="comes too late for every answer: the last scored token is predicted from",
        ):
            call(model, push(model, at), statements(layout=layout))


def test_scores_of_an_edit_of_the_last_position_would_have_been_the_unedited_ones(monkeypatch):
    model, _ = tiny("llama")
    prompts = statements(layout=tuple(one for one in LAYOUT if not one[5]))
    monkeypatch.setattr(answer_likelihood, "check_reach", lambda *_: None)
    late = log_probability(model, push(model, iv.index(-1)), prompts)["log_probability"].values
    plain = log_probability(model, iv.Intervention(), prompts)["log_probability"].values
    np.testing.assert_allclose(late, plain, atol=1e-5)


def test_one_token_answers_are_out_of_reach_of_edits_of_answers():
    model, _ = tiny("llama")
    single = tuple((q, label, best, asked, 1, 0) for q, label, best, asked, _, _ in LAYOUT)
    asked = {"of scope answer": iv.ANSWER, "of scope decode": iv.DECODE, "at steps 0": iv.steps(0)}
    for words, at in asked.items():
        with pytest.raises(BadInput, match=f"an edit {words}.* comes too late"):
            score(model, push(model, at), statements(layout=single))
    assert reached(push(model, iv.ANSWER), statements()).tolist() == [one[4] > 1 for one in LAYOUT]
    found = score(model, push(model, iv.ANSWER), statements(), batch_size=2)
    assert found.attrs["reached"] == pytest.approx(6 / 9), "a share is said, not refused"


@pytest.mark.parametrize("at", [iv.ALL, iv.PROMPT, iv.index(0), iv.span(1, 2)])
def test_edits_before_the_last_token_are_felt(at):
    model, _ = tiny("llama")
    assert reached(push(model, at), statements()).all()
    check_reach(push(model, at), statements())


def test_neutral_texts_are_out_of_reach_of_their_last_position_too():
    model, _ = tiny("llama")
    neutral = neutral_texts(model, ["John and Mary", "the code of Anna is 4 ."])
    with pytest.raises(BadInput, match="comes too late"):
        coherence(model, push(model, iv.index(-1)), neutral)
    assert float(coherence(model, push(model, iv.DECODE), neutral)["kl"].min()) > 0


def test_without_an_edit_nothing_is_moved_and_parts_are_kept(tmp_path):
    model, _ = tiny("llama")
    neutral = neutral_texts(model, ["John and Mary", "the code of Anna is 4 ."])
    found = coherence(model, iv.Intervention(), neutral, parts=tmp_path)
    np.testing.assert_array_equal(found["kl"], 0)
    np.testing.assert_array_equal(found["cross_entropy"], found["original"])
    first = score(model, push(model), statements(), parts=tmp_path, name="mine", batch_size=5)
    assert len(list(tmp_path.glob("mine-*.nc"))) == 2
    xr.testing.assert_identical(
        first, score(model, push(model), statements(), parts=tmp_path, name="mine", batch_size=5)
    )


def test_a_rehearsed_remote_run_says_the_same():
    model, _ = tiny("llama")
    here, there = (
        placed(remote, log_probability)(model, push(model), statements())
        for remote in (False, "local")
    )
    xr.testing.assert_allclose(here, there)


def test_only_the_logits_of_the_answers_are_asked_for():
    model, module = tiny("llama")
    kept: list[int] = []
    handle = module.lm_head.register_forward_pre_hook(
        lambda _, arguments: kept.append(arguments[0].shape[1])
    )
    layout = tuple((q, label, best, 9, 1, 0) for q, label, best, *_ in LAYOUT)
    alone = statements(layout=layout).drop_vars("question")  # nothing is shared
    log_probability(model, iv.Intervention(), alone)
    handle.remove()
    assert kept == [2], "the token before the answer, and the answer's own"


def test_sums_are_of_the_scored_tokens_alone():
    logits = torch.zeros(1, 3, 4)
    logits[0, 0, 2] = 1.0
    tokens = {"before": [[0, -1, 1]], "token": [[2, -1, 3]], "text": [[0, -1, 1]]}
    tensors = {name: torch.tensor(values) for name, values in tokens.items()}
    sums = summed(logits, Scored(keep=3, texts=3, **tensors))
    wanted = [1 - math.log(3 + math.e), -math.log(4), 0]
    assert sums.tolist() == pytest.approx(wanted)


def test_what_cannot_be_read_is_refused():
    model, _ = tiny("llama")
    swap = iv.Intervention(iv.Edit("z", iv.AddSource(), layer=0))
    with pytest.raises(BadInput, match="takes 1 source prompts"):
        score(model, swap, statements())
    with pytest.raises(BadInput, match="statement 0 has no answer"):
        score(model, iv.Intervention(), statements(layout=((0, 1, 1, 4, 0, 0), (0, 0, 0, 4, 1, 0))))
    with pytest.raises(BadInput, match="an answer has nothing before it"):
        score(model, iv.Intervention(), statements(layout=((0, 1, 1, 0, 3, 0), (0, 0, 0, 4, 1, 0))))
    with pytest.raises(BadInput, match="neutral text 2 has fewer than two tokens"):
        neutral_texts(model, ["John and", "Mary"])
    with pytest.raises(BadInput, match="no neutral texts are given"):
        neutral_texts(model, [])


def test_the_prompts_are_fed_as_they_are_labelled():
    model, _ = tiny("llama")
    cut = without_padding(statements())
    assert cut.sizes["position"] == statements().sizes["position"] - 1
    assert inputs(model, cut)["position_ids"].min() == 0

"""Probes on made-up heads whose answer is known, against scikit-learn; what calibration claims."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import xarray as xr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from nnheads.errors import BadInput
from nnheads.truth import probes
from nnheads.truth.accuracy import chosen, judge
from nnheads.truth.curve_area import area
from nnheads.truth.folds import Fold, folds
from nnheads.truth.probes import probe, scores_of


def statements_of(questions: int, seed: int = 0, answers: tuple[int, int] = (1, 4)) -> xr.Dataset:
    """Questions with a few true and a few false answers each."""
    generator = np.random.default_rng(seed)
    question, label = [], []
    for number in range(questions):
        true, false = generator.integers(*answers, size=2)
        question += [number] * (true + false)
        label += [1] * true + [0] * false
    rows = {"question": ("batch", np.array(question)), "label": ("batch", np.array(label))}
    return xr.Dataset({"token": (("batch", "position"), np.zeros((len(label), 1), int))}, rows)


def outputs(
    prompts: xr.Dataset, strength: list[float], dim: int = 6, seed: int = 0
) -> xr.DataArray:
    """One layer for each strength, of two heads: the first knows the label that well, the second
    the question only.
    """
    generator = np.random.default_rng(seed)
    rows = prompts.sizes["batch"]
    z = generator.standard_normal((rows, len(strength), 2, dim))
    sign = 2 * prompts["label"].values[:, None] - 1
    z[:, :, 0, 0] += sign * strength
    z[:, :, 1] = generator.standard_normal((1000, len(strength), dim))[prompts["question"].values]
    z = 3 + 2 * z @ generator.standard_normal((dim, dim))
    return xr.DataArray(z.astype("float32"), dims=("batch", "layer", "head", "dim"))


PROMPTS, CUT = statements_of(60), folds(60)
Z = outputs(PROMPTS, [0.0, 1.5, 20.0])


@pytest.fixture(scope="module")
def probed() -> xr.Dataset:
    return probe(Z, PROMPTS, CUT)


def rows_in(part: tuple[int, ...]) -> np.ndarray:
    return np.isin(PROMPTS["question"].values, part)


def test_every_probe_is_scikit_learns(probed):
    label = PROMPTS["label"].values
    for fold, layer, head in itertools.product(range(2), range(3), range(2)):
        train, validation, test = (
            rows_in(part) for part in (CUT[fold].train, CUT[fold].validation, CUT[fold].test)
        )
        x = Z[:, layer, head].values.astype(float)
        scaler = StandardScaler().fit(x[train])
        model = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(
            scaler.transform(x[train]), label[train]
        )
        one = probed.sel(fold=fold).isel(layer=layer, head=head)
        np.testing.assert_allclose(one["weight_standardised"], model.coef_[0], atol=1e-4)
        says = model.decision_function(scaler.transform(x))
        np.testing.assert_allclose(
            x @ one["weight"].values + float(one["intercept"]), says, atol=1e-3
        )
        assert float(one["validation"]) == pytest.approx(((says > 0) == label)[validation].mean())
        assert float(one["accuracy"]) == pytest.approx(((says > 0) == label)[test].mean())
        assert float(one["auc"]) == pytest.approx(roc_auc_score(label[test], says[test]), abs=1e-6)


def test_known_heads_get_what_they_deserve(probed):
    assert probed["flag"].values.tolist() == [[0, 0], [1, 0], [1, 0]]
    assert float(probed["correct"][2, 0]) == 1 and float(probed["mean_auc"][2, 0]) == 1
    assert np.all(probed["correct_low"] <= probed["correct"]) and np.all(
        probed["correct"] <= probed["correct_high"]
    )
    assert np.all(probed["auc_low"] <= probed["auc"]) and np.all(
        probed["auc"] <= probed["auc_high"]
    )
    for name in ("accuracy", "auc", "validation", "weight"):
        assert "fold" in probed[name].dims and probed[name].dtype == np.float32
    for variable in probed.data_vars.values():
        assert variable.attrs["long_name"] and variable.attrs["units"] and variable.attrs["source"]
    xr.testing.assert_identical(probe(Z, PROMPTS, CUT), probed)


def test_a_head_that_knows_only_the_question_is_right_by_chance(probed):
    """It says the same of all answers of a question, and shuffling these changes nothing."""
    own = probed.isel(head=1)
    np.testing.assert_allclose(own["correct"], own["null"], atol=1e-6)
    assert (own["p_value"] == 1).all()


def test_how_many_heads_there_is_room_for_changes_nothing(probed, monkeypatch):
    monkeypatch.setattr(probes, "DOUBLE_BYTES", 1)
    xr.testing.assert_allclose(probe(Z, PROMPTS, CUT), probed, atol=1e-5)


def test_means_are_over_all_folds(probed):
    for name in ("validation", "auc"):
        np.testing.assert_allclose(probed[f"mean_{name}"], probed[name].mean("fold"), atol=1e-6)
    scores = scores_of(Z, PROMPTS, CUT)
    np.testing.assert_allclose(probed["correct"], scores["correct"].mean("batch"), atol=1e-6)
    np.testing.assert_allclose(probed["p_value"], probed["fold_p_value"].max("fold"), atol=1e-6)
    ranked = chosen(probed, 2)
    best = probed["mean_validation"].values.ravel()[np.argsort(ranked["rank"].values.ravel())]
    assert (np.diff(best) <= 0).all() and int(ranked["chosen"].sum()) == 2
    assert (ranked["chosen"].values == (ranked["rank"].values < 2)).all()


def test_scores_say_what_each_statement_got():
    scores = scores_of(Z, PROMPTS, CUT)
    fold = (scores["part"] == 2).argmax("fold")
    own = scores["decision"].isel(fold=fold)
    sign = 2 * PROMPTS["label"] - 1
    np.testing.assert_allclose(scores["score"], own * sign, rtol=1e-6)
    np.testing.assert_array_equal(scores["correct"], (own > 0) == (PROMPTS["label"] == 1))
    assert scores["part"].dims == ("batch", "fold") and set(np.unique(scores["part"])) == {0, 1, 2}


def shuffles(label: np.ndarray, question: np.ndarray):
    """Every way to shuffle labels within questions, as often as it comes up."""
    each = []
    for number in np.unique(question):
        own = label[question == number]
        each.append([list(one) for one in itertools.permutations(own)])
    for together in itertools.product(*each):
        yield np.array([value for own in together for value in own])


def test_the_null_is_the_mean_over_every_shuffle_of_labels():
    prompts = statements_of(4, seed=3, answers=(1, 3))
    z = outputs(prompts, [1.0], dim=2)
    scores = scores_of(z, prompts, folds(4))
    says = (scores["correct"].values == 1) == (prompts["label"].values == 1)[:, None, None]
    question = prompts["question"].values
    each = [
        says == (labels == 1)[:, None, None]
        for labels in shuffles(prompts["label"].values, question)
    ]
    np.testing.assert_allclose(scores["null"], np.mean(each, 0), atol=1e-6)


def test_the_p_value_is_the_share_of_shuffles_that_do_as_well():
    """A head with weak knowledge, so that shuffling decides and not the margin; 20,000 draws."""
    prompts = statements_of(80, seed=5)
    scores = scores_of(outputs(prompts, [0.25], seed=2), prompts, folds(80))
    judged = judge(scores, margin=-1.0)
    generator, question = np.random.default_rng(0), prompts["question"].values
    for fold in range(2):
        own = scores["part"].values[:, fold] == 2
        says = scores["decision"].values[own, 0, 0, fold] > 0
        label, groups = prompts["label"].values[own], question[own]
        right = (says == (label == 1)).sum()
        # random keys within a group shuffle it
        order = np.argsort(groups + generator.random((20_000, len(groups))), axis=1)
        drawn = (label[order] == 1) == says
        expected = (drawn.sum(1) >= right).mean()
        assert 0.001 < expected < 0.999
        assert float(judged["fold_p_value"][fold, 0, 0]) == pytest.approx(expected, abs=0.02)


def test_the_area_and_its_error_take_answers_of_a_question_together():
    generator = np.random.default_rng(0)
    question = np.repeat(np.arange(200), 4)
    label = np.tile([True, True, False, False], 200)

    def drawn() -> dict:
        noise = generator.standard_normal((200, 2))[
            question, label.astype(int)
        ]  # true answers of a question agree
        return area((noise + 0.5 * label)[:, None, None], label, question)

    each = [drawn() for _ in range(300)]
    spread = np.std([float(one["auc"][0, 0]) for one in each])
    assert float(np.mean([one["auc_error"] for one in each])) == pytest.approx(spread, rel=0.15)


def test_ties_count_half():
    found = area(
        np.array([1.0, 0.0, 0.0, 0.0])[:, None, None],
        np.array([True, True, False, False]),
        np.arange(4),
    )
    assert float(found["auc"][0, 0]) == 0.75


def test_shuffled_labels_raise_few_alarms():
    """Outputs that know the question and more, labels that know nothing: over 20 draws at most 5 %
    of heads.
    """
    shares = []
    for seed in range(20):
        prompts = statements_of(50, seed=seed)
        z = outputs(prompts, [0.0] * 8, dim=8, seed=seed)
        shares.append(float(probe(z, prompts, folds(50), seed=seed)["flag"].mean()))
    assert np.mean(shares) <= 0.05, shares


def test_p_values_of_shuffled_labels_are_not_too_small():
    """Also without the margin, and though the folds teach each other."""
    values = []
    for seed in range(20):
        prompts = statements_of(50, seed=seed)
        scores = scores_of(
            outputs(prompts, [0.0] * 8, dim=8, seed=seed).isel(head=[0]), prompts, folds(50)
        )
        values.append(judge(scores, margin=-1.0)["p_value"].values.ravel())
    for level in (0.05, 0.2):
        assert np.mean(np.concatenate(values) <= level) <= level


def test_heads_that_never_vary_are_no_news():
    z = Z.copy()
    z[:, 0] = 3.1
    z[:, 1] = 1e4 + 1e-4 * Z[:, 1]  # varies by no more than rounding
    found = probe(z, PROMPTS, CUT)
    assert (found["flag"][:2] == 0).all() and np.isfinite(found["weight"]).all()
    np.testing.assert_allclose(found["weight_standardised"][:, 0], 0, atol=1e-6)


def test_questions_without_rows_are_nobodys_business():
    """Questions that the tokenizer could not read have numbers, places in folds, and no rows."""
    kept = np.flatnonzero(PROMPTS["question"].values % 10 != 3)
    found = probe(Z.isel(batch=kept), PROMPTS.isel(batch=kept), CUT)
    assert found["flag"].values.tolist() == [[0, 0], [1, 0], [1, 0]]


def test_statements_in_no_test_part_have_no_score():
    cut = (CUT[0],)
    scores = scores_of(Z, PROMPTS, cut)
    tested = rows_in(CUT[0].test)
    assert (
        np.isnan(scores["correct"][~tested]).all() and np.isfinite(scores["correct"][tested]).all()
    )
    assert float(judge(scores)["correct"][2, 0]) == 1


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        ((Fold((0, 1), (2,), (900,)),), "the test part of fold 0 lacks true or false statements"),
        ((Fold((0, 1), (900,), (2,)),), "the validation part of fold 0 lacks"),
        ((Fold((900,), (1,), (2,)),), "the training part of fold 0 lacks"),
        ((Fold((0,), (0,), (2,)),), "a question is in two parts of fold 0"),
    ],
)
def test_folds_without_something_to_learn_from_are_refused(cut, message):
    with pytest.raises(BadInput, match=message):
        probe(Z, PROMPTS, cut)

"""The batched solver against scikit-learn's, coefficient by coefficient."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from nnheads.errors import BadInput
from nnheads.stats import logistic
from nnheads.stats.logistic import fit


def drawn(
    probes: int, rows: int, dim: int, *, seed: int = 0, strength: float = 1.0, decay: float = 0.0
):
    """Correlated features and noisy labels, both labels in each probe."""
    generator = np.random.default_rng(seed)
    mixed = generator.standard_normal((probes, dim, dim)) * np.arange(1, dim + 1)[:, None] ** -decay
    x = generator.standard_normal((probes, rows, dim)) @ mixed
    x = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
    line = strength * (x @ generator.standard_normal((probes, dim, 1)))[..., 0] / np.sqrt(dim)
    y = line + generator.logistic(size=line.shape) > 0
    y[:, 0], y[:, 1] = True, False
    return x, y.astype(int)


def expected(x: np.ndarray, y: np.ndarray, penalty: float = 1.0):
    """scikit-learn's Newton solver, driven to its minimum."""
    model = LogisticRegression(
        C=1 / penalty, tol=1e-10, max_iter=100_000, solver="newton-cholesky"
    ).fit(x, y)
    return model.coef_[0], model.intercept_[0]


def assert_equal_to_sklearn(x: np.ndarray, y: np.ndarray, penalty: float = 1.0) -> None:
    weight, intercept = fit(torch.from_numpy(x), torch.from_numpy(y), penalty)
    for probe in range(len(weight)):
        coef, bias = expected(
            x[min(probe, len(x) - 1)],
            np.atleast_2d(y)[min(probe, len(np.atleast_2d(y)) - 1)],
            penalty,
        )
        np.testing.assert_allclose(weight[probe], coef, atol=1e-5)
        np.testing.assert_allclose(intercept[probe], bias, atol=1e-5)


@pytest.mark.parametrize(
    ("rows", "dim", "strength", "decay"),
    [
        (200, 8, 1, 0),
        (60, 64, 1, 0),
        (20, 64, 5, 0),
        (400, 32, 30, 0),
        (300, 48, 2, 1.5),
        (2, 3, 1, 0),
        (50, 1, 1, 0),
    ],
)
def test_coefficients_equal_scikit_learn(rows, dim, strength, decay):
    assert_equal_to_sklearn(*drawn(4, rows, dim, strength=strength, decay=decay))


def test_the_default_solver_of_scikit_learn_agrees_too():
    x, y = drawn(3, 400, 16)
    weight, intercept = fit(torch.from_numpy(x), torch.from_numpy(y))
    for probe in range(3):
        model = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(x[probe], y[probe])
        np.testing.assert_allclose(weight[probe], model.coef_[0], atol=1e-4)
        np.testing.assert_allclose(intercept[probe], model.intercept_[0], atol=1e-4)
        says = torch.from_numpy(x[probe]) @ weight[probe] + intercept[probe] > 0
        assert (says.numpy() == (model.predict(x[probe]) == 1)).all()


def test_separable_classes_converge():
    x, _ = drawn(3, 100, 4)
    x[..., 0] *= 50  # a gap that one feature shows
    y = (x[..., 0] > 0).astype(int)
    assert_equal_to_sklearn(x, y)
    assert_equal_to_sklearn(x, y, penalty=1e-3)


def test_constant_and_repeated_features_have_a_share_of_nothing():
    x, y = drawn(2, 150, 5)
    x[..., 1], x[..., 3] = 0.0, x[..., 2]
    assert_equal_to_sklearn(x, y)
    weight, _ = fit(torch.from_numpy(x), torch.from_numpy(y))
    assert (weight[:, 1] == 0).all() and torch.allclose(weight[:, 2], weight[:, 3])


def test_rare_labels():
    x, y = drawn(2, 300, 6)
    y[:] = 0
    y[:, :2] = 1
    assert_equal_to_sklearn(x, y)


@pytest.mark.parametrize("penalty", [0.01, 1.0, 100.0])
def test_the_penalty_is_one_over_c(penalty):
    assert_equal_to_sklearn(*drawn(2, 120, 10), penalty=penalty)


def test_one_set_of_features_or_of_labels_serves_all_probes():
    x, y = drawn(5, 80, 6)
    features, labels = torch.from_numpy(x), torch.from_numpy(y)
    assert_equal_to_sklearn(x[:1], y)
    shared, _ = fit(features, labels[0])
    each, _ = fit(features, labels[:1].expand(5, -1))
    assert torch.equal(shared, each)


def test_chunks_change_nothing(monkeypatch):
    x, y = (torch.from_numpy(one) for one in drawn(7, 90, 5))
    whole = fit(x, y)
    monkeypatch.setattr(logistic, "CHUNK_BYTES", 2 * 8 * 90 * 6)
    for one, other in zip(whole, fit(x, y)):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-7)


def test_single_precision_features_give_the_same_probe():
    x, y = drawn(3, 300, 20)
    one, _ = fit(torch.from_numpy(x), torch.from_numpy(y))
    other, _ = fit(torch.from_numpy(x).float(), torch.from_numpy(y))
    assert other.dtype == torch.float64
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@hypothesis.given(
    rows=st.integers(2, 60),
    dim=st.integers(1, 20),
    strength=st.floats(0, 100),
    decay=st.floats(0, 2),
    scale=st.sampled_from([1e-3, 1.0, 30.0]),
    penalty=st.sampled_from([0.1, 1.0, 10.0]),
    seed=st.integers(0, 2**31),
)
@hypothesis.settings(max_examples=40)
def test_the_slope_vanishes_where_it_ends(rows, dim, strength, decay, scale, penalty, seed):
    """The loss is convex, so this is the minimum and there is no other."""
    x, y = (
        torch.from_numpy(one)
        for one in drawn(2, rows, dim, seed=seed, strength=strength, decay=decay)
    )
    x = x * scale if dim > 1 or rows > 2 else torch.ones_like(x)
    x = torch.nan_to_num(x)
    weight, intercept = fit(x, y, penalty)
    error = ((x @ weight.unsqueeze(-1))[..., 0] + intercept.unsqueeze(1)).sigmoid() - y
    slope = (error.unsqueeze(1) @ x)[:, 0] + penalty * weight
    assert (
        float(slope.abs().max()) < 1e-5 * max(1, scale * rows)
        and float(error.sum(1).abs().max()) < 1e-5 * rows
    )


@pytest.mark.parametrize(
    ("x", "y", "penalty", "message"),
    [
        (
            torch.zeros(1, 4, 2),
            torch.tensor([0, 1, 0]),
            1.0,
            r"features \[1, 4, 2\] do not fit labels \[1, 3\]",
        ),
        (torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]), 1.0, "do not fit labels"),
        (torch.zeros(2, 4, 2), torch.zeros(3, 4), 1.0, "do not fit labels"),
        (torch.zeros(1, 4, 0), torch.tensor([0, 1, 0, 1]), 1.0, "do not fit labels"),
        (
            torch.zeros(1, 4, 2),
            torch.tensor([1, 1, 1, 1]),
            1.0,
            "all 4 labels of a probe are alike",
        ),
        (torch.zeros(1, 4, 2), torch.tensor([0, 1, 2, 1]), 1.0, "labels must be 0 or 1"),
        (
            torch.full((1, 4, 2), torch.nan),
            torch.tensor([0, 1, 0, 1]),
            1.0,
            "features are not finite",
        ),
        (torch.zeros(1, 4, 2), torch.tensor([0, 1, 0, 1]), 0.0, "a penalty of 0.0 is not possible"),
    ],
)
def test_what_cannot_be_fitted_is_refused(x, y, penalty, message):
    with pytest.raises(BadInput, match=message):
        fit(x, y, penalty)

"""Every operation against the formula that its docstring states, and known answers."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from nnheads import interventions as iv
from nnheads.interventions.operation import Operation
from nnheads.interventions.operations import OPERATIONS
from nnheads.trace.operations import boundary_mask, change, noise

GENERATOR = torch.Generator().manual_seed(0)
BASE, SOURCE = torch.randn(2, 2, 3, 5, generator=GENERATOR)
ROTATION = torch.linalg.qr(torch.randn(5, 5, generator=GENERATOR))[0]
TENSORS = {
    "vector": torch.arange(5.0),
    "rotation": ROTATION,
    "low": ROTATION[:, :2],
    "boundary": torch.tensor(0.5),
    "mask": torch.linspace(-2, 2, 5),
    "own": lambda base, source=None: base if source is None else base * source,
}


def by_direction(weights) -> torch.Tensor:
    """One direction after the other, in double precision."""
    result = BASE.double()
    for number, weight in enumerate(weights):
        column = ROTATION[:, number].double()
        result = result + float(weight) * ((SOURCE - BASE).double() @ column)[..., None] * column
    return result.float()


FORMULAS = [
    (iv.Zero(), BASE * 0),
    (iv.Set("vector"), TENSORS["vector"].expand(2, 3, 5)),
    (iv.Set(2), torch.full((2, 3, 5), 2.0)),
    (iv.Mean("vector"), TENSORS["vector"].expand(2, 3, 5)),
    (iv.Add("vector", scale=-0.5), BASE - 0.5 * torch.arange(5.0)),
    (iv.Add(1.5), BASE + 1.5),
    (iv.Subtract("vector", scale=2.0), BASE - 2 * torch.arange(5.0)),
    (iv.Scale(3.0), BASE * 3),
    (iv.Collect(), BASE),
    (iv.Interchange(), SOURCE),
    (iv.AddSource(scale=-1.0), BASE - SOURCE),
    (iv.Rotate(), SOURCE),
    (iv.Rotate(columns=(1, 3)), by_direction([0, 1, 0, 1, 0])),
    (iv.LowRank(rotation="low"), by_direction([1, 1])),
    (iv.PCA(rotation="low"), by_direction([1, 1])),
    (iv.Boundless(temperature=1e-6), by_direction([1, 1, 0.5, 0, 0])),
    (iv.Boundless(temperature=2.0), by_direction(torch.sigmoid((2.5 - torch.arange(5) - 0.5) / 2))),
    (iv.Mask(temperature=0.5), BASE + torch.sigmoid(TENSORS["mask"] / 0.5) * (SOURCE - BASE)),
    (iv.Mask(rotation="rotation"), by_direction(torch.sigmoid(TENSORS["mask"]))),
    (iv.Function("m:own"), BASE),
    (iv.Combine(function="m:own"), BASE * SOURCE),
]


def plain(do: Operation) -> dict:
    data = {
        "name": do.name,
        **{entry.name: getattr(do, entry.name) for entry in dataclasses.fields(do)},
    }
    return {**data, "function": "own"} if "function" in data else data


@pytest.mark.parametrize(("do", "expected"), FORMULAS, ids=lambda value: getattr(value, "name", ""))
def test_operations_are_their_formulas(do, expected):
    torch.testing.assert_close(
        change(plain(do), BASE, SOURCE, TENSORS), expected, atol=1e-5, rtol=1e-5
    )


def test_every_operation_is_tested():
    assert {do.name for do, _ in FORMULAS} | {"noise"} == set(OPERATIONS)
    assert {do.name for do in (iv.Noise(),)} == {"noise"}


def test_noise_is_repeated_and_independent_of_what_is_beside_it():
    one = change(plain(iv.Noise(level=2.0, seed=4)), BASE, None, {})
    assert torch.equal(one, BASE + 2 * noise((2, 3, 5), 4))
    wide = noise((4, 9, 64), 4)
    assert torch.equal(noise((2, 3, 64), 4), wide[:2, :3])
    assert not torch.equal(wide[0], wide[1])
    assert not torch.equal(noise((2, 3, 5), 5), noise((2, 3, 5), 4))
    assert float(wide.mean()) == pytest.approx(0, abs=0.1)
    assert float(wide.std()) == pytest.approx(1, abs=0.1)


def test_boundaries_cut_and_soften():
    cut = boundary_mask(torch.tensor(0.25), 8, 1e-4)
    assert cut.round().tolist() == [1, 1, 0, 0, 0, 0, 0, 0]
    assert boundary_mask(torch.tensor(1.0), 8, 1e-4).round().tolist() == [1] * 8
    assert boundary_mask(torch.tensor(7.0), 8, 1e-4).round().tolist() == [1] * 8
    soft = boundary_mask(torch.tensor(0.5), 8, 50.0)
    assert bool((soft.diff() < 0).all())
    assert float((soft - 0.5).abs().max()) < 0.02


LEARNED = [
    iv.Rotate(),
    iv.LowRank(rotation="low"),
    iv.Boundless(temperature=2.0),
    iv.Mask(),
    iv.Mask(rotation="rotation"),
    iv.Add("vector"),
]


@pytest.mark.parametrize("do", LEARNED, ids=lambda do: do.name)
def test_gradients_reach_every_tensor_and_both_runs(do):
    base, source = (run.double().requires_grad_() for run in (BASE, SOURCE))
    names = do.tensors
    given = [TENSORS[name].double().requires_grad_() for name in names]

    def formula(base, source, *tensors):
        return change(plain(do), base, source, dict(zip(names, tensors)))

    assert torch.autograd.gradcheck(formula, (base, source, *given))


def test_numbers_follow_the_features():
    half = change(plain(iv.Add("vector")), BASE.bfloat16(), None, TENSORS)
    assert half.dtype == torch.bfloat16
    assert change(plain(iv.Set(1)), BASE.double(), None, {}).dtype == torch.float64


def test_functions_return_as_many_features_as_they_get():
    with pytest.raises(
        ValueError,
        match=r"your function returned shape \(2, 3, 1\) for features of shape \(2, 3, 5\)",
    ):
        change(plain(iv.Function("m:own")), BASE, None, {"own": lambda base: base[..., :1]})

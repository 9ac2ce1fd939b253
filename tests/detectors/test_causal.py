"""A head list is a claim: what each detector finds, knocked out, destroys the behaviour that it is
about, and random heads of the same layers do not. On the shipped model, and every number again with
plain hooks."""

from __future__ import annotations

import contextlib
import functools

import numpy as np
import oracle
import pytest
import torch
import xarray as xr

import nnheads
from nnheads.detectors._detect import detect, ranking
from nnheads.models.names import parse_head
from nnheads.patching.behaviours import BEHAVIOURS, ask_for
from nnheads.patching.knockout import curve, knockout

DRAWS = 20
# type, behaviour, how many of its heads, most that may be left of the behaviour without them
CLAIMS = [
    ("previous_token", "induction", 1, 0.1),
    ("induction", "induction", 3, 0.1),
    ("duplicate_token", "ioi", 1, 0.5),
    ("retrieval", "retrieval", 3, 0.1),
    ("generated_retrieval", "retrieval", 3, 0.1),
    ("iteration", "iteration", 1, 0.65),  # a coin gets half of the bits right
]


@functools.cache
def reference():
    return nnheads.load("reference")


@functools.cache
def asked(behaviour: str) -> tuple[xr.Dataset, xr.Dataset]:
    return ask_for(behaviour, reference().tokenizer, 16, seed=5)


def without(
    behaviour: str, heads: list[tuple[int, int]], metric: str | None = None, **options
) -> xr.Dataset:
    """Heads replaced by their mean over the other prompts of the mean set, for each template and
    position.
    """
    prompts, others = asked(behaviour)
    metric = metric or BEHAVIOURS[behaviour].metric
    return knockout(reference(), prompts, heads, reference=others, metric=metric, seed=5, **options)


def left(behaviour: str, heads: list[tuple[int, int]]) -> float:
    """What is left of the behaviour without these heads, as a share."""
    scores = without(behaviour, heads, ks=[len(heads)], draws=0)
    metric = scores.attrs["metric"]
    return float(scores[metric].mean() / scores[f"base_{metric}"].mean())


@functools.cache
def found(name: str) -> list[tuple[int, int]]:
    return ranking(detect(reference(), name), flagged=True)


@pytest.fixture(scope="module")
def table() -> dict[str, xr.Dataset]:
    return rows()


def rows() -> dict[str, xr.Dataset]:
    """type -> the curve of its heads, and in attrs the metric."""
    return {
        name: curve(without(behaviour, found(name)[:count], ks=[count], draws=DRAWS))
        for name, behaviour, count, _ in CLAIMS
    }


@pytest.mark.parametrize(
    ("name", "behaviour", "count", "most"), CLAIMS, ids=[claim[0] for claim in CLAIMS]
)
def test_knocking_out_what_was_found_destroys_the_behaviour(name, behaviour, count, most, table):
    last, metric = table[name].isel(k=-1), table[name].attrs["metric"]
    assert int(last["k"]) == count
    intact, cut, random = (float(last[one]) for one in (f"base_{metric}", metric, "random_median"))
    assert cut <= most * intact and cut < random
    assert random >= 0.85 * intact, "random heads of the same layers leave it alone, by the median"
    if count > 1:  # of single heads there are seven others, and some matter too
        assert float(last["p_value"]) <= 1 / (1 + DRAWS) + 1e-6


def test_the_decoy_looks_like_a_name_mover_and_does_nothing():
    assert found("indirect_object")[:1] == [(3, 0)]
    assert left("ioi", [(3, 0)]) > 0.95


def test_one_of_the_induction_heads_alone_can_be_spared():
    for head in found("induction")[:3]:
        assert left("induction", [head]) > 0.9


def head_outputs(prompts: xr.Dataset) -> list[np.ndarray]:
    """Every layer's head outputs [case, position, head, dim] in a plain run."""
    module, seen = reference()._module, []
    given = fed(prompts)
    with contextlib.ExitStack() as stack:
        for layer in range(4):
            keep = lambda z: seen.append(z.unflatten(-1, (8, -1)).numpy().copy()) or z  # noqa: E731
            stack.enter_context(oracle.hooked(module, "llama", layer, "z", keep))
        with torch.no_grad():
            module(**given, use_cache=False)
    return seen


def fed(prompts: xr.Dataset) -> dict[str, torch.Tensor]:
    return oracle.fed(
        "llama", *(torch.from_numpy(prompts[name].values).long() for name in ("token", "mask"))
    )


def templates(prompts: xr.Dataset) -> np.ndarray:
    return (
        prompts["template"].values
        if "template" in prompts.coords
        else np.zeros(prompts.sizes["batch"])
    )


@functools.cache
def means(behaviour: str) -> list[torch.Tensor]:
    """Every layer's head outputs, each case's averaged over the mean set's other prompts of its
    template and length.
    """
    prompts, others = asked(behaviour)
    outputs, sizes, theirs = (
        head_outputs(others),
        prompts["mask"].values.sum(1),
        others["mask"].values.sum(1),
    )
    filled = [np.zeros((*prompts["token"].shape, *z.shape[2:]), np.float32) for z in outputs]
    for case, (template, size) in enumerate(zip(templates(prompts), sizes)):
        alike = (templates(others) == template) & (theirs == size)
        alike &= (others["token"].values[:, -size:] != prompts["token"].values[case, -size:]).any(1)
        for own, z in zip(filled, outputs):
            own[case, -size:] = z[alike, -size:].mean(0)
    return [torch.from_numpy(own) for own in filled]


def by_hand(behaviour: str, heads: list[tuple[int, int]]) -> np.ndarray:
    """Per case, with plain hooks: logit difference, or mean log-probability of what follows."""
    prompts, _ = asked(behaviour)
    module, new = reference()._module, means(behaviour)

    def change(layer):
        own = [head for other, head in heads if other == layer]

        def replace(z):
            z = z.unflatten(-1, (8, -1)).clone()
            z[:, :, own] = new[layer][:, :, own]
            return z.flatten(-2)

        return replace

    with contextlib.ExitStack() as stack, torch.no_grad():
        for layer in {layer for layer, _ in heads}:
            stack.enter_context(oracle.hooked(module, "llama", layer, "z", change(layer)))
        logits = module(**fed(prompts), use_cache=False).logits.numpy()
    if behaviour == "ioi":
        answer, wrong = (prompts[name].values for name in ("answer", "wrong"))
        case = np.arange(len(answer))
        return logits[case, -1, answer] - logits[case, -1, wrong]
    scores = torch.from_numpy(logits).log_softmax(-1).numpy()
    return np.array(
        [
            np.mean([own[place, token] for place, token in zip(ask, target) if place >= 0])
            for own, ask, target in zip(scores, prompts["ask"].values, prompts["target"].values)
        ]
    )


@pytest.mark.parametrize(
    ("name", "behaviour", "count", "most"), CLAIMS, ids=[claim[0] for claim in CLAIMS]
)
def test_every_number_equals_plain_hooks(name, behaviour, count, most):
    heads = found(name)[:count]
    metric = "logit_difference" if behaviour == "ioi" else "log_probability"
    scores = without(behaviour, heads, metric=metric, draws=2)
    np.testing.assert_allclose(scores[f"base_{metric}"], by_hand(behaviour, []), atol=1e-4)
    for k in scores["k"].values:
        np.testing.assert_allclose(
            scores[metric].sel(k=k), by_hand(behaviour, heads[:k]), atol=1e-4
        )
        for draw in scores["draw"].values:
            others = [parse_head(text) for text in scores["drawn"].sel(draw=draw).values[:k]]
            found_by_hand = by_hand(behaviour, others)
            np.testing.assert_allclose(
                scores[f"random_{metric}"].sel(k=k, draw=draw), found_by_hand, atol=1e-4
            )


if __name__ == "__main__":  # the README's table
    for name, reduced in rows().items():
        last, metric = reduced.isel(k=-1), reduced.attrs["metric"]
        behaviour = next(claim[1] for claim in CLAIMS if claim[0] == name)
        numbers = [float(last[one]) for one in (f"base_{metric}", metric, "random_median")]
        span = ", ".join(f"{float(last[one]):.2f}" for one in ("random_lowest", "random_highest"))
        shown = " | ".join(f"{one:.2f}" for one in numbers)
        print(
            f"| `{name}` | {', '.join(last['listed'].values)} | {behaviour}, {metric} | {shown}"
            f" [{span}] |"
        )
    reduced = curve(without("ioi", found("indirect_object")[:1], draws=DRAWS)).isel(k=-1)
    print(
        {
            name: round(float(reduced[name]), 2)
            for name in reduced.data_vars
            if reduced[name].ndim == 0
        }
    )

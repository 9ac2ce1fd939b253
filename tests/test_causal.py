"""A head list is a claim: what each detector finds, knocked out, destroys the behaviour that it is about, and
random heads of the same layers do not. Plain hooks on the shipped model; a head is replaced by its mean."""

from __future__ import annotations

import contextlib
import functools

import numpy as np
import oracle
import pytest
import torch
import xarray as xr

import nnheads
from nnheads.detection import detect, ranking
from nnheads.label import inputs
from nnheads.prompts.ioi import ioi_spans
from nnheads.prompts.iteration import iteration
from nnheads.prompts.needle import needle
from nnheads.prompts.repeated import repeated

DRAWS = 10


@functools.cache
def reference():
    return nnheads.load("reference")


@functools.cache
def prompts_of(behaviour: str) -> xr.Dataset:
    """Prompts with `ask` and `target` (batch, step): where the model has to say what."""
    tokenizer = reference().tokenizer
    if behaviour == "copying":
        prompts = repeated(tokenizer, 8, length=50, seed=5)
        ask = np.tile(np.arange(52, 100), (8, 1))  # the first two of the second copy may still be unsure
        target = np.take_along_axis(prompts["token"].values, ask + 1, 1)
        return prompts.assign(ask=(("batch", "step"), ask), target=(("batch", "step"), target))
    build = {"indirect object": ioi_spans, "needle": needle, "parity": iteration}[behaviour]
    return build(tokenizer, 24, seed=5)


@contextlib.contextmanager
def without(heads: list[tuple[int, int]], given: dict):
    """Replace heads by their mean over all prompts and positions."""
    module = reference()._module

    def flatten(chosen):
        def change(z):
            z = z.clone()
            view = z.view(*z.shape[:-1], 8, -1)
            view[:, :, chosen] = view[:, :, chosen].mean((0, 1), keepdim=True)
            return z

        return change

    with contextlib.ExitStack() as stack:
        for layer in {layer for layer, _ in heads}:
            chosen = [head for own, head in heads if own == layer]
            stack.enter_context(oracle.hooked(module, "llama", layer, "z", flatten(chosen)))
        yield module


def score(behaviour: str, heads: list[tuple[int, int]]) -> float:
    """Accuracy; for the indirect object, the share of the logit difference that is left."""
    prompts = prompts_of(behaviour)
    given = inputs(reference(), prompts)
    with torch.no_grad(), without(heads, given) as module:
        logits = module(**given, use_cache=False).logits
    ask, target = (torch.from_numpy(prompts[name].values).long() for name in ("ask", "target"))
    if behaviour == "indirect object":
        wrong = torch.from_numpy(prompts["wrong"].values).long()[:, None]
        own = logits[torch.arange(len(ask))[:, None], ask]
        return float((own.gather(2, target[..., None]) - own.gather(2, wrong[..., None])).mean())
    best = logits.argmax(-1).gather(1, ask)
    return float((best == target).float().mean())


def random_like(heads: list[tuple[int, int]], seed: int) -> list[tuple[int, int]]:
    """As many other heads from the same layers."""
    generator = np.random.default_rng(seed)
    drawn: list[tuple[int, int]] = []
    for layer, _ in heads:
        others = [(layer, head) for head in range(8) if (layer, head) not in {*heads, *drawn}]
        drawn.append(others[int(generator.integers(len(others)))])
    return drawn


# type, behaviour, how many of its heads, most that may be left of the behaviour without them
CLAIMS = [
    ("previous_token", "copying", 1, 0.1),
    ("induction", "copying", 3, 0.1),
    ("duplicate_token", "indirect object", 1, 0.5),
    ("retrieval", "needle", 3, 0.1),
    ("generated_retrieval", "needle", 3, 0.1),
    ("iteration", "parity", 1, 0.65),  # a coin gets half of the bits right
]


def rows() -> list[tuple]:
    """type, heads, behaviour, intact, without them, median and range without random ones."""
    found = []
    for name, behaviour, count, _ in CLAIMS:
        heads = ranking(detect(reference(), name), flagged=True)[:count]
        random = [score(behaviour, random_like(heads, seed)) for seed in range(DRAWS)]
        found.append((name, heads, behaviour, score(behaviour, []), score(behaviour, heads), random))
    return found


@pytest.fixture(scope="module")
def table() -> dict[str, tuple]:
    return {row[0]: row for row in rows()}


@pytest.mark.parametrize(("name", "behaviour", "count", "left"), CLAIMS, ids=[claim[0] for claim in CLAIMS])
def test_knocking_out_what_was_found_destroys_the_behaviour(name, behaviour, count, left, table):
    _, heads, _, intact, cut, random = table[name]
    assert len(heads) == count
    assert cut <= left * intact, (heads, intact, cut)
    assert cut < np.median(random), random
    assert np.median(random) >= 0.85 * intact, "random heads of the same layers leave it alone, by the median"


def test_the_decoy_looks_like_a_name_mover_and_does_nothing():
    heads = ranking(detect(reference(), "name_mover"), flagged=True)[:1]
    assert heads == [(3, 0)]
    intact = score("indirect object", [])
    assert score("indirect object", heads) > 0.95 * intact


def test_one_of_the_induction_heads_alone_can_be_spared():
    heads = ranking(detect(reference(), "induction"), flagged=True)[:3]
    for head in heads:
        assert score("copying", [head]) > 0.9


if __name__ == "__main__":  # the README's table
    for name, heads, behaviour, intact, cut, random in rows():
        shown = ", ".join(f"L{layer}H{head}" for layer, head in heads)
        print(f"| `{name}` | {shown} | {behaviour} | {intact:.2f} | {cut:.2f} | {np.median(random):.2f} "
              f"[{min(random):.2f}, {max(random):.2f}] |")  # fmt: skip

"""Random lists of heads that match a real list layer by layer.

    random_lists([(0, 1), (2, 3)], shape=(12, 12), draws=20, seed=0)

At each place stands a head of the same layer, never one of the real list. Where a layer has fewer
other heads than listed ones, the rest comes from the nearest layers that have some to spare; `lent`
says how many that are, for whoever reads the result.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nnheads.errors import BadInput
from nnheads.patching.head_sets import Head

Others = dict[int, list[int]]  # layer -> its heads that are not listed


def random_lists(
    heads: Sequence[Head], shape: tuple[int, int], draws: int, seed: int
) -> list[list[Head]]:
    """Return lists that match a list by layer, with none of its heads and none twice.

    Args:
        heads: the real list. shape: how many layers the model has, and how many heads a layer.

    Raises:
        BadInput: fewer than no draws, or a list of more than half of all heads.
    """
    if draws < 0:
        raise BadInput(f"Not a number of random lists: {draws}. Ask for at least 0.")
    if draws == 0:
        return []
    layers, per_layer = shape
    if 2 * len(heads) > layers * per_layer:
        raise BadInput(
            f"the list has {len(heads)} of {layers * per_layer} heads, so no random list has as"
            f" many others. Take the first {layers * per_layer // 2} heads, or no random lists"
            " (--draws 0)."
        )
    others, generator = _others(heads, shape), np.random.default_rng(seed)
    return [_drawn(heads, others, generator) for _ in range(draws)]


def lent(heads: Sequence[Head], lists: Sequence[Sequence[Head]]) -> int:
    """Return how many heads of each random list stand for one of another layer."""
    return sum(one[0] != other[0] for one, other in zip(heads, lists[0])) if lists else 0


def _others(heads: Sequence[Head], shape: tuple[int, int]) -> Others:
    """Return the heads of each layer that the list does not name, those of its own layers first."""
    listed, own = set(heads), sorted({layer for layer, _ in heads})
    further = [layer for layer in range(shape[0]) if layer not in own]
    return {
        layer: [head for head in range(shape[1]) if (layer, head) not in listed]
        for layer in (*own, *further)
    }


def _drawn(heads: Sequence[Head], others: Others, generator: np.random.Generator) -> list[Head]:
    """Draw one list: for each layer an order of its other heads, taken one by one."""
    own = {layer for layer, _ in heads}
    order = {
        layer: generator.permutation(rest).tolist()
        for layer, rest in others.items()
        if layer in own
    }
    drawn: list[Head | None] = [
        (layer, order[layer].pop(0)) if order[layer] else None for layer, _ in heads
    ]
    short = [number for number, one in enumerate(drawn) if one is None]
    if short:
        further = {layer: rest for layer, rest in others.items() if layer not in own}
        order |= {layer: generator.permutation(rest).tolist() for layer, rest in further.items()}
    for number in short:
        wanted = heads[number][0]
        nearest = min((layer for layer in order if order[layer]), key=lambda one: abs(one - wanted))
        drawn[number] = (nearest, order[nearest].pop(0))
    return [one for one in drawn if one is not None]

"""Random lists of heads that match a real list layer by layer.

    random_lists([(0, 1), (2, 3)], per_layer=12, draws=20, seed=0)

At each place stands a head of the same layer, never one of the real list. A layer with fewer other
heads than listed ones cannot be matched and is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from nnheads.errors import BadInput
from nnheads.patching.head_sets import Head


def random_lists(heads: Sequence[Head], per_layer: int, draws: int, seed: int) -> list[list[Head]]:
    """Return lists that have a head of the same layer at each place, none of `heads`, none twice.

    Args:
        heads: the real list. per_layer: how many heads a layer has.

    Raises:
        BadInput: fewer than no draws, or a layer that has fewer other heads than listed ones.
    """
    if draws < 0:
        raise BadInput(f"Not a number of random lists: {draws}. Ask for at least 0.")
    if draws == 0:
        return []
    _check_matched(heads, per_layer)
    others, generator = _others(heads, per_layer), np.random.default_rng(seed)
    return [_drawn(heads, others, generator) for _ in range(draws)]


def _others(heads: Sequence[Head], per_layer: int) -> dict[int, list[int]]:
    """Return the heads of each layer of the list that the list does not name."""
    listed = set(heads)
    return {
        layer: [head for head in range(per_layer) if (layer, head) not in listed]
        for layer in sorted({layer for layer, _ in heads})
    }


def _drawn(
    heads: Sequence[Head], others: dict[int, list[int]], generator: np.random.Generator
) -> list[Head]:
    """Draw one list: for each layer an order of its other heads, taken one by one."""
    order = {layer: iter(generator.permutation(rest).tolist()) for layer, rest in others.items()}
    return [(layer, next(order[layer])) for layer, _ in heads]


def _check_matched(heads: Sequence[Head], per_layer: int) -> None:
    """Refuse a list with more heads of a layer than the layer has others."""
    for layer, count in Counter(layer for layer, _ in heads).items():
        if per_layer - count < count:
            raise BadInput(
                f"Layer {layer} has {count} of the listed heads and {per_layer - count} others, so"
                f" no random list can match it. Take the first {_longest_matched(heads, per_layer)}"
                " heads, or no random lists (--draws 0)."
            )


def _longest_matched(heads: Sequence[Head], per_layer: int) -> int:
    """Return how many first heads of the list can be matched."""
    seen: Counter[int] = Counter()
    for place, (layer, _) in enumerate(heads):
        seen[layer] += 1
        if 2 * seen[layer] > per_layer:
            return place
    return len(heads)

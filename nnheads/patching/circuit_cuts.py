r"""Which parts of a circuit to cut: completeness and minimality.

    completeness(remove, everything, {"movers": [(9, 9)], "inhibition": [(7, 3)]})

Completeness cuts the same heads K from circuit and model: a circuit that lacks a backup falls
further than the model, so that F(C \ K) and F(M \ K) differ. Minimality asks of each head v for a K
that makes it matter: F(C \ (K + v)) against F(C \ K). The sets K are each group (role), random
subsets, and those of a greedy search, which may miss the worst.
Source: Wang et al. 2022, arXiv 2211.00593.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from nnheads.patching.circuit import Heads, Remove, alone
from nnheads.patching.head_sets import Head

Contrast = Callable[[Heads], tuple[Heads, Heads]]  # K -> the sets removed in two runs
Cut = tuple[str, Heads]  # how K was chosen, and K


@dataclass(frozen=True)
class Search:
    """How sets K are looked for.

    subsets: how many random K, of sizes drawn evenly.
    steps: how many heads the greedy search cuts.
    width: at each step, of so many random candidates the one that drives the two runs furthest
        apart is cut.
    """

    subsets: int = 50
    steps: int = 5
    width: int = 10
    seed: int = 0


@dataclass(frozen=True)
class Cuts:
    """Sets K that were cut, how each was chosen, and the metric of the two runs it compares.

    kind: "none", "group", "random" or "greedy". first, second: [case, cut].
    """

    cut: list[Heads]
    kind: list[str]
    first: Float[np.ndarray, "case cut"]
    second: Float[np.ndarray, "case cut"]

    @property
    def worst(self) -> int:
        """Return the number of the cut for which the two means differ most."""
        return int(np.abs((self.first - self.second).mean(0)).argmax())


@dataclass(frozen=True)
class Question:
    """Which runs to compare for a K, which heads K may have, and the K that are chosen without
    looking.
    """

    contrast: Contrast
    pool: Heads
    cuts: list[Cut]


def completeness(
    remove: Remove,
    everything: Heads,
    groups: Mapping[str, Sequence[Head]],
    search: Search | None = None,
) -> Cuts:
    r"""Return F(C \ K) and F(M \ K) for many K: each group, random subsets, a greedy search.

    Args:
        remove: see `circuit.removal`. everything: all heads of the model.
        groups: name -> heads; together they are the circuit.
    """
    search = search or Search()
    circuit = frozenset(head for heads in groups.values() for head in heads)
    generator = np.random.default_rng(search.seed)
    cuts = sampled(groups, search.subsets, generator)

    def contrast(cut: Heads) -> tuple[Heads, Heads]:
        return alone(everything, circuit - cut), cut

    return _compared(remove, [Question(contrast, circuit, cuts)], search, generator)[0]


def minimality(
    remove: Remove,
    everything: Heads,
    groups: Mapping[str, Sequence[Head]],
    search: Search | None = None,
) -> dict[Head, Cuts]:
    r"""Return F(C \ (K + v)) and F(C \ K) for each head v of the circuit and many K without it.

    Arguments are those of `completeness`; the same random K serve all heads.
    """
    search = search or Search()
    circuit = frozenset(head for heads in groups.values() for head in heads)
    generator = np.random.default_rng(search.seed)
    cuts, heads = sampled(groups, search.subsets, generator), sorted(circuit)

    def without_head(head: Head) -> Contrast:
        return lambda cut: (
            alone(everything, circuit - cut - {head}),
            alone(everything, circuit - cut),
        )

    questions = [
        Question(without_head(head), circuit - {head}, [(kind, cut - {head}) for kind, cut in cuts])
        for head in heads
    ]
    return dict(zip(heads, _compared(remove, questions, search, generator)))


def sampled(
    groups: Mapping[str, Sequence[Head]], count: int, generator: np.random.Generator
) -> list[Cut]:
    """Return nothing, each group where there are several, and random subsets of the circuit."""
    members = sorted(head for heads in groups.values() for head in heads)
    cuts: list[Cut] = [("none", frozenset())]
    if len(groups) > 1:
        cuts += [("group", frozenset(heads)) for heads in groups.values()]
    for size in generator.integers(1, len(members) + 1, size=count if members else 0):
        chosen = generator.choice(len(members), size=size, replace=False)
        cuts.append(("random", frozenset(members[index] for index in chosen)))
    return cuts


def _compared(
    remove: Remove, questions: list[Question], search: Search, generator: np.random.Generator
) -> list[Cuts]:
    """Measure the chosen cuts of each question and those of its greedy search."""
    paths = greedy(remove, questions, search, generator)
    kinds = [_kind_of_cuts(question.cuts, path) for question, path in zip(questions, paths)]
    pairs = [question.contrast(cut) for question, own in zip(questions, kinds) for cut in own]
    first, second = both(remove, pairs)
    ends = np.cumsum([len(own) for own in kinds])[:-1]
    parts = zip(np.split(first, ends, 1), np.split(second, ends, 1))
    return [Cuts(list(own), list(own.values()), a, b) for own, (a, b) in zip(kinds, parts)]


def _kind_of_cuts(cuts: list[Cut], path: list[Heads]) -> dict[Heads, str]:
    """Return every different K and how it was chosen first."""
    kinds: dict[Heads, str] = {}
    for kind, cut in [*cuts, *(("greedy", cut) for cut in path)]:
        kinds.setdefault(cut, kind)
    return kinds


def both(
    remove: Remove, pairs: Sequence[tuple[Heads, Heads]]
) -> tuple[Float[np.ndarray, "case pair"], Float[np.ndarray, "case pair"]]:
    """Return the metric of both runs of each pair of removed sets; all in one sweep."""
    if not pairs:
        empty = np.zeros((remove([frozenset()]).shape[0], 0))
        return empty, empty
    values = remove([removed for pair in zip(*pairs) for removed in pair])
    return values[:, : len(pairs)], values[:, len(pairs) :]


def greedy(
    remove: Remove, questions: list[Question], search: Search, generator: np.random.Generator
) -> list[list[Heads]]:
    """Return the sets K that greedy searches grew through, side by side; one sweep a step.

    Each search adds the head that drives its two runs furthest apart, of `search.width` drawn from
    what is left of its pool.
    """
    paths: list[list[Heads]] = [[frozenset()] for _ in questions]
    for _ in range(search.steps):
        tries = [
            _grown(path[-1], question.pool, search.width, generator)
            for path, question in zip(paths, questions)
        ]
        pairs = [question.contrast(cut) for question, own in zip(questions, tries) for cut in own]
        first, second = both(remove, pairs)
        ends = np.cumsum([len(own) for own in tries])[:-1]
        sizes = np.split(np.abs((first - second).mean(0)), ends)
        for path, own, size in zip(paths, tries, sizes):
            path += [own[int(size.argmax())]] if own else []
    return [path[1:] for path in paths]


def _grown(cut: Heads, pool: Heads, width: int, generator: np.random.Generator) -> list[Heads]:
    """Return the set with one more head, for up to `width` heads."""
    left = sorted(pool - cut)
    if not left:
        return []
    drawn = generator.choice(len(left), size=min(width, len(left)), replace=False)
    return [cut | {left[index]} for index in drawn]

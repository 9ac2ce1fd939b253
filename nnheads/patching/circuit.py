"""Is a set of heads the circuit? Run the model on these heads alone, and see what is missing when
parts are cut.

F(C) is the mean metric with every head outside C ablated; feed-forward parts and embeddings stay.
Faithfulness compares F(C) with the whole model's F(M). Completeness cuts the same heads K from
both: a circuit that lacks a backup falls further than the model. Minimality asks of each head for a
    K that makes it matter. All of these compare two runs
with some heads removed, so what is asked of the model is one function from removed sets to the
metric of every case, and a set is one cell of a sweep.
Source: Wang et al. 2022, arXiv 2211.00593.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from nnheads.errors import BadInput
from nnheads.models.geometry import geometry
from nnheads.models.names import head_name
from nnheads.patching.ablation_values import ABLATIONS
from nnheads.patching.patch import ablate, patch
from nnheads.runs import batches

Head = tuple[int, int]
Heads = frozenset[Head]
Remove = Callable[[Sequence[Heads]], np.ndarray]
Contrast = Callable[[Heads], tuple[Heads, Heads]]

REMOVALS = {**ABLATIONS, "corrupted": "the value in the case's own corrupted prompt"}


@dataclass(frozen=True)
class Cuts:
    """Sets K that were cut, how each was found ("none", "group", "random", "greedy"), and the
    metric of the two runs that it compares, [case, cut]."""

    cut: list[Heads]
    kind: list[str]
    first: np.ndarray
    second: np.ndarray

    @property
    def worst(self) -> int:
        """The cut for which the two means differ most."""
        return int(np.abs((self.first - self.second).mean(0)).argmax())


def every_head(model) -> Heads:
    sizes = geometry(model)
    return frozenset((layer, head) for layer in range(sizes.layers) for head in range(sizes.heads))


def check_groups(groups: Mapping[str, Sequence[Head]], everything: Heads) -> Heads:
    """All heads of a circuit's groups (roles).

    Raises BadInput for unknown heads, and heads that are named twice.
    """
    owner: dict[Head, str] = {}
    for name, heads in groups.items():
        for head in heads:
            if head not in everything:
                layers, units = (max(part) for part in zip(*everything))
                raise BadInput(
                    f"{head_name(*head)} does not exist; this model has layers 0 to {layers} and"
                    f" heads 0 to {units}"
                )
            if owner.get(head) == name:
                raise BadInput(f"{head_name(*head)} is named twice in {name}")
            if head in owner:
                raise BadInput(
                    f"{head_name(*head)} is in two groups, {owner[head]} and {name}; groups must"
                    " not overlap"
                )
            owner[head] = name
    return frozenset(owner)


def removal(
    model,
    prompts: xr.Dataset,
    *,
    ablation: str = "mean",
    reference: xr.Dataset | None = None,
    metric: str | Callable = "logit_difference",
    seed: int = 0,
    batch_size: int = 100,
    parts: Path | None = None,
    quiet: bool = True,
    title: str = "sets of heads",
) -> Remove:
    """The function that a circuit is judged by: removed sets of heads -> metric [case, set].

    Args:
        ablation: what removed heads say instead, a key of REMOVALS; "mean" is over the reference
            prompts of a case's template and length, for each position, without those of its own
            text.
        reference: prompts that means and other values come from, e.g. "abc" sentences; default: the
            prompts themselves, for each of them the others.
        batch_size, parts, quiet, title: as for `batches.run`; sets that were measured in `parts`
            are not run again.

    Raises (when it is called):
        BadInput: as `patching.patch.ablate`.
    """
    if ablation not in REMOVALS:
        raise BadInput(f"ablation {ablation!r} is not known; use one of {', '.join(REMOVALS)}")
    others = prompts if reference is None else reference
    known: dict[Heads, np.ndarray] = {}

    def measured(part: xr.Dataset, groups: list[list[Head]]) -> xr.Dataset:
        options: dict = {"groups": groups, "metric": metric}
        if ablation == "corrupted":
            scores = patch(model, part, noising=True, gap=0.0, **options)
        else:
            scores = ablate(model, part, ablation, reference=others, seed=seed, **options)
        return scores[[scores.attrs["metric"]]].drop_vars("group")

    def remove(sets: Sequence[Heads]) -> np.ndarray:
        fresh = [one for one in dict.fromkeys(sets) if one not in known]
        if fresh:
            groups = [sorted(one) for one in fresh]
            name = f"sets-{hashlib.sha256(repr(groups).encode()).hexdigest()[:16]}"
            found = batches.run(
                lambda part: measured(part, groups),
                prompts,
                size=batch_size,
                parts=parts,
                name=name,
                title=title,
                quiet=quiet,
                model=model,
            )
            (values,) = found.data_vars.values()
            known.update(zip(fresh, values.transpose("group", "batch").values.astype(float)))
        return np.stack([known[one] for one in sets], 1)

    return remove


def alone(everything: Heads, circuit: Iterable[Head]) -> Heads:
    """What is removed for the circuit to be alone."""
    return everything - frozenset(circuit)


def completeness(
    remove: Remove,
    everything: Heads,
    groups: Mapping[str, Sequence[Head]],
    *,
    subsets: int = 50,
    steps: int = 5,
    width: int = 10,
    seed: int = 0,
) -> Cuts:
    r"""F(C \ K) and F(M \ K) for many K: each group, random subsets, and those of a greedy search.

    Args:
        subsets: how many random K, of sizes drawn evenly. steps: how many heads the greedy search
            cuts, at each step the one of `width` random candidates that drives the two furthest
            apart.
    """
    circuit = frozenset(head for heads in groups.values() for head in heads)
    generator = np.random.default_rng(seed)
    cuts = sampled(groups, subsets, generator)

    def contrast(cut: Heads) -> tuple[Heads, Heads]:
        return alone(everything, circuit - cut), cut

    return _compared(remove, [contrast], [circuit], [cuts], steps, width, generator)[0]


def minimality(
    remove: Remove,
    everything: Heads,
    groups: Mapping[str, Sequence[Head]],
    *,
    subsets: int = 50,
    steps: int = 5,
    width: int = 10,
    seed: int = 0,
) -> dict[Head, Cuts]:
    r"""F(C \ (K + v)) and F(C \ K) for each head v of the circuit and many K without it. Arguments:
    as `completeness`; the same random K serve all heads."""
    circuit = frozenset(head for heads in groups.values() for head in heads)
    generator = np.random.default_rng(seed)
    cuts, heads = sampled(groups, subsets, generator), sorted(circuit)

    def contrast_of(head: Head) -> Contrast:
        return lambda cut: (
            alone(everything, circuit - cut - {head}),
            alone(everything, circuit - cut),
        )

    contrasts, pools = [contrast_of(head) for head in heads], [circuit - {head} for head in heads]
    own = [[(kind, cut - {head}) for kind, cut in cuts] for head in heads]
    return dict(zip(heads, _compared(remove, contrasts, pools, own, steps, width, generator)))


def sampled(
    groups: Mapping[str, Sequence[Head]], count: int, generator: np.random.Generator
) -> list:
    """(kind, K): nothing, each group where there are several, and random subsets of the circuit."""
    members = sorted(head for heads in groups.values() for head in heads)
    cuts: list[tuple[str, Heads]] = [("none", frozenset())]
    if len(groups) > 1:
        cuts += [("group", frozenset(heads)) for heads in groups.values()]
    for size in generator.integers(1, len(members) + 1, size=count if members else 0):
        chosen = generator.choice(len(members), size=size, replace=False)
        cuts.append(("random", frozenset(members[index] for index in chosen)))
    return cuts


def _compared(
    remove: Remove,
    contrasts: Sequence[Contrast],
    pools: Sequence[Heads],
    cuts: Sequence[list],
    steps: int,
    width: int,
    generator: np.random.Generator,
) -> list[Cuts]:
    """Measure the given cuts of each contrast and those of its greedy search."""
    grown = search(remove, contrasts, pools, steps, width, generator)
    asked = []
    for own, path in zip(cuts, grown):
        kinds: dict[Heads, str] = {}
        for kind, cut in [*own, *(("greedy", cut) for cut in path)]:
            kinds.setdefault(cut, kind)
        asked.append(kinds)
    jobs = [contrast(cut) for contrast, kinds in zip(contrasts, asked) for cut in kinds]
    first, second = both(remove, jobs)
    ends = np.cumsum([len(kinds) for kinds in asked])[:-1]
    parts = zip(np.split(first, ends, 1), np.split(second, ends, 1))
    return [Cuts(list(kinds), list(kinds.values()), a, b) for kinds, (a, b) in zip(asked, parts)]


def both(remove: Remove, pairs: Sequence[tuple[Heads, Heads]]) -> tuple[np.ndarray, np.ndarray]:
    """The metric of both runs of each pair of removed sets, [case, pair]; all in one job."""
    if not pairs:
        empty = np.zeros((remove([frozenset()]).shape[0], 0))
        return empty, empty
    values = remove([removed for pair in zip(*pairs) for removed in pair])
    return values[:, : len(pairs)], values[:, len(pairs) :]


def search(
    remove: Remove,
    contrasts: Sequence[Contrast],
    pools: Sequence[Heads],
    steps: int,
    width: int,
    generator: np.random.Generator,
) -> list[list[Heads]]:
    """Greedy searches side by side: each grows its K by the head that makes the contrast largest,
    out of `width` drawn from what is left of its pool. Returns the sets that each grew through; one
    job a step."""
    paths: list[list[Heads]] = [[frozenset()] for _ in contrasts]
    for _ in range(steps):
        tries = [_grown(path[-1], pool, width, generator) for path, pool in zip(paths, pools)]
        first, second = both(
            remove, [contrast(cut) for contrast, own in zip(contrasts, tries) for cut in own]
        )
        size, start = np.abs((first - second).mean(0)), 0
        for path, own in zip(paths, tries):
            if own:
                path.append(own[int(size[start : start + len(own)].argmax())])
            start += len(own)
    return [path[1:] for path in paths]


def _grown(cut: Heads, pool: Heads, width: int, generator: np.random.Generator) -> list[Heads]:
    """The set with one more head, for up to `width` heads."""
    left = sorted(pool - cut)
    if not left:
        return []
    return [
        cut | {left[index]}
        for index in generator.choice(len(left), size=min(width, len(left)), replace=False)
    ]


def named(heads: Iterable[Head]) -> str:
    """`L0H1 L2H3`, or `nothing`."""
    return " ".join(head_name(*head) for head in sorted(heads)) or "nothing"

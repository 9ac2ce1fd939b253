"""Is a set of heads the circuit? Run the model without sets of heads, and read the metric.

    remove = removal(model, prompts)
    remove([frozenset(), alone(every_head(model), circuit)])  # metric [case, set]

F(C) is the mean metric with every head outside C ablated; MLPs and embeddings stay. Everything that
judges a circuit compares two runs with some heads removed, so what is asked of the model is one
function from removed sets to the metric of every case, and a set is one cell of a sweep. Heads that
the model does not have, and heads in two groups, are refused before anything runs.
Source: Wang et al. 2022, arXiv 2211.00593.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import xarray as xr
from jaxtyping import Float

from nnheads.errors import BadInput
from nnheads.models.geometry import geometry
from nnheads.models.names import check_unit, head_name
from nnheads.patching.ablate import ablate
from nnheads.patching.ablation_values import ABLATIONS
from nnheads.patching.head_sets import Head
from nnheads.patching.patch import patch
from nnheads.runs import batches

Heads = frozenset[Head]
Remove = Callable[[Sequence[Heads]], np.ndarray]  # removed sets -> metric [case, set]

REMOVALS = {**ABLATIONS, "corrupted": "the value in the case's own corrupted prompt"}


def every_head(model) -> Heads:
    """Return all heads (layer, head) of a model."""
    sizes = geometry(model)
    return frozenset((layer, head) for layer in range(sizes.layers) for head in range(sizes.heads))


def alone(everything: Heads, circuit: Iterable[Head]) -> Heads:
    """Return what is removed for the circuit to be alone."""
    return everything - frozenset(circuit)


def named(heads: Iterable[Head]) -> str:
    """Return the names of heads, such as `L0H1 L2H3`, or `nothing`."""
    return " ".join(head_name(*head) for head in sorted(heads)) or "nothing"


def check_groups(groups: Mapping[str, Sequence[Head]], everything: Heads) -> Heads:
    """Return all heads of a circuit's groups (roles).

    Raises:
        BadInput: unknown heads, and heads that are named twice.
    """
    owner: dict[Head, str] = {}
    for group, heads in groups.items():
        for head in heads:
            _check_member(head, group, owner, everything)
            owner[head] = group
    return frozenset(owner)


def _check_member(head: Head, group: str, owner: Mapping[Head, str], everything: Heads) -> None:
    """Refuse a head that the model does not have, or that a group before has."""
    layers, units = (max(part) + 1 for part in zip(*everything))
    check_unit(*head, layers, units)
    if owner.get(head) == group:
        raise BadInput(f"Head {head_name(*head)} is named twice in {group}. Name it once.")
    if head in owner:
        raise BadInput(
            f"Head {head_name(*head)} is in two groups, {owner[head]} and {group}. Groups must not"
            " overlap."
        )


@dataclass(frozen=True)
class Removal:
    """The metric of every case without sets of heads; see `removal`. Each set is measured once."""

    model: object
    prompts: xr.Dataset
    ablation: str
    reference: xr.Dataset
    metric: str | Callable
    seed: int
    in_batches: dict  # options of `batches.run`
    known: dict[Heads, Float[np.ndarray, " case"]] = field(default_factory=dict)

    def __call__(self, sets: Sequence[Heads]) -> Float[np.ndarray, "case set"]:
        """Return the metric without each of the sets."""
        fresh = [one for one in dict.fromkeys(sets) if one not in self.known]
        if fresh:
            self.known.update(zip(fresh, self._measured([sorted(one) for one in fresh])))
        return np.stack([self.known[one] for one in sets], 1)

    def _measured(self, groups: list[list[Head]]) -> Float[np.ndarray, "set case"]:
        """Measure sets of heads, in batches of cases."""
        name = f"sets-{hashlib.sha256(repr(groups).encode()).hexdigest()[:16]}"
        scores = batches.run(
            lambda part: self._of_batch(part, groups), self.prompts, name=name, **self.in_batches
        )
        (values,) = scores.data_vars.values()
        return values.transpose("group", "batch").values.astype(float)

    def _of_batch(self, part: xr.Dataset, groups: list[list[Head]]) -> xr.Dataset:
        """Measure sets of heads in some of the cases, (batch, group)."""
        corrupted = self.ablation == "corrupted"
        scores = (self._patched if corrupted else self._ablated)(part, groups)
        return scores[[scores.attrs["metric"]]].drop_vars("group")

    def _patched(self, part: xr.Dataset, groups: list[list[Head]]) -> xr.Dataset:
        options: dict = {"groups": groups, "metric": self.metric}
        return patch(self.model, part, noising=True, gap=0.0, **options)

    def _ablated(self, part: xr.Dataset, groups: list[list[Head]]) -> xr.Dataset:
        options: dict = {"groups": groups, "metric": self.metric, "seed": self.seed}
        return ablate(self.model, part, self.ablation, reference=self.reference, **options)


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
) -> Removal:
    """Return the function that a circuit is judged by: removed sets of heads -> metric [case, set].

    Args:
        prompts: pairs as `prompts.pairs.tokenize` lays them out.
        ablation: what stands in for removed heads, a key of REMOVALS; "mean" is over the reference
            prompts of a case's template and length, for each position, without those of its own
            text.
        reference: prompts that means and other values come from, e.g. "abc" sentences; default: the
            prompts themselves, for each of them the others.
        batch_size, parts, quiet, title: as for `batches.run`; sets that were measured in `parts`
            are not run again.

    Raises:
        BadInput: an unknown ablation; when it is called, as `ablate`.
    """
    if ablation not in REMOVALS:
        raise BadInput(f"Not an ablation: {ablation!r}. Use one of {', '.join(REMOVALS)}.")
    others = prompts if reference is None else reference
    options = {"size": batch_size, "parts": parts, "title": title, "quiet": quiet, "model": model}
    return Removal(model, prompts, ablation, others, metric, seed, options)

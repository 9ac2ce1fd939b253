"""Inference-time intervention, cross-validated: what is tested was never used to fit or to choose
anything.

In each fold the training questions give directions and spreads, the validation questions choose the
heads, how many of them and how strongly, both together then give the final directions, and the test
questions are scored once.
Source: Li et al. 2023, arXiv 2306.03341.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from nnheads.interventions.schema import Intervention
from nnheads.interventions.steering_directions import randomised
from nnheads.truth.contrasts import EDIT, NONE
from nnheads.truth.directions import directions, guard, random_directions
from nnheads.truth.folds import Fold
from nnheads.truth.iti import Head, check_count, edit, gap, random_heads, ranked
from nnheads.truth.multiple_choice import CHOICES, coherence, score


@dataclass(frozen=True)
class How:
    """Everything that an evaluation is told: the kind of direction, the scope, draws of each
    control, and how it runs."""

    kind: str = "mass_mean"
    scope: str = "all"
    draws: int = 5
    seed: int = 0
    batch_size: int = 32
    parts: Path | None = None
    quiet: bool = True

    def running(self, name: str) -> dict:
        return {
            "batch_size": self.batch_size,
            "parts": self.parts,
            "quiet": self.quiet,
            "name": name,
        }


@dataclass(frozen=True)
class Material:
    """Statements, head outputs z (batch, layer, head, dim) at their ends, the questions' texts by
    number, folds of the numbers, what `probes.probe` found, neutral texts, and each fold's heads in
    the order in which they are chosen."""

    prompts: xr.Dataset
    z: xr.DataArray
    names: Sequence[str]
    folds: Sequence[Fold]
    probes: xr.Dataset
    neutral: xr.Dataset
    order: Sequence[Sequence[Head]]

    def directions(self, fold: int, use: Sequence[int], how: How) -> xr.Dataset:
        weight = self.probes["weight"].sel(fold=fold)
        return directions(
            self.z, use=use, names=self.names, kind=how.kind, weight=weight, seed=how.seed
        )

    def only(self, fold: int) -> Material:
        """One fold as the only one."""
        probes = self.probes.sel(fold=[fold]).assign_coords(fold=[0])
        return dataclasses.replace(
            self, folds=self.folds[fold : fold + 1], order=[self.order[fold]], probes=probes
        )

    def rows(self, numbers: Sequence[int]) -> xr.Dataset:
        return self.prompts.isel(batch=np.isin(self.prompts["question"].values, numbers))

    def texts(self, numbers: Sequence[int]) -> list[str]:
        """Of the questions that have statements."""
        there = set(self.prompts["question"].values.tolist())
        return [self.names[number] for number in numbers if number in there]

    def known(self, fold: int) -> tuple[int, ...]:
        """Questions of a fold that are not tested."""
        return (*self.folds[fold].train, *self.folds[fold].validation)

    def heads(self, fold: int, count: int) -> list[Head]:
        check_count(count, len(self.order[fold]))
        return list(self.order[fold][:count])


def orders(z: xr.DataArray, probes: xr.Dataset, folds: Sequence[Fold]) -> list[list[Head]]:
    """Each fold's heads by what its probes (`validation`, `weight`) say of validation questions,
    best first.
    """
    found = []
    for number, fold in enumerate(folds):
        own = z.isel(batch=np.isin(z["question"].values, fold.validation))
        one = probes.sel(fold=number)
        found.append(ranked(one["validation"], gap(own, one["weight"])))
    return found


def grid(
    model, given: Material, alphas: Sequence[float], counts: Sequence[int], how: How
) -> xr.Dataset:
    """Every strength with every number of heads, on validation questions, along directions of
    training questions.

    Returns:
        CHOICES (alpha, heads, question), and without edit `original_<score>` (question), whose
        coordinate `in_fold` says which fold they validate; `cross_entropy`, `kl` (alpha, heads,
        fold, text).
    """
    asked, costs = [], []
    for number, fold in enumerate(given.folds):
        found, rows = given.directions(number, fold.train, how), given.rows(fold.validation)
        guard(found, given.texts(fold.validation))
        plain = score(model, Intervention(), rows, **how.running(f"validate-{number}-none"))
        cells = []
        for alpha in alphas:
            changes = [
                edit(found, given.heads(number, count), alpha, how.scope) for count in counts
            ]
            names = [f"validate-{number}-{alpha:g}-{count}" for count in counts]
            cells.append(
                [
                    measured(model, one, rows, given.neutral, name, how)
                    for one, name in zip(changes, names)
                ]
            )
        axes = (
            xr.DataArray(list(alphas), dims="alpha", name="alpha"),
            xr.DataArray(list(counts), dims="heads", name="heads"),
        )
        both = [laid_out([[cell[part] for cell in row] for row in cells], *axes) for part in (0, 1)]
        asked.append(both[0].assign({f"original_{name}": plain[name] for name in CHOICES}))
        costs.append(both[1])
    return joined(asked, costs)


def measured(
    model, change: Intervention, rows: xr.Dataset, neutral: xr.Dataset, name: str, how: How
) -> tuple[xr.Dataset, xr.Dataset]:
    """CHOICES (question) and the cost on neutral texts (text) of one edit."""
    cost = coherence(model, change, neutral, **how.running(f"{name}-neutral")).drop_vars("original")
    return score(model, change, rows, **how.running(name)), cost


def laid_out(cells: list[list[xr.Dataset]], alpha: xr.DataArray, heads: xr.DataArray) -> xr.Dataset:
    rows = [xr.concat(row, heads, combine_attrs="override") for row in cells]
    return xr.concat(rows, alpha, combine_attrs="override")


def joined(asked: list[xr.Dataset], costs: list[xr.Dataset]) -> xr.Dataset:
    """The questions of all folds behind one another, and what each fold's edit costs."""
    numbers = range(len(asked))
    fold = xr.DataArray(list(numbers), dims="fold", name="fold")
    table = xr.concat(asked, "question", combine_attrs="override")
    own = np.repeat(numbers, [one.sizes["question"] for one in asked])
    table = table.assign_coords(in_fold=("question", own, {"long_name": "fold of the question"}))
    return table.merge(xr.concat(costs, fold, combine_attrs="override"), combine_attrs="override")


def choose(table: xr.Dataset, fold: int) -> tuple[float, int]:
    """The strength and number of heads for a fold: of those whose validation MC1 lies within one
    standard error of the best, the one that moves predictions on neutral text least."""
    own = table["mc1"].isel(question=table["in_fold"].values == fold)
    mean, count = own.mean("question"), own.sizes["question"]
    best = mean.where(mean == mean.max()).stack(cell=("alpha", "heads")).dropna("cell").isel(cell=0)
    top = own.sel(alpha=best["alpha"].item(), heads=best["heads"].item())
    error = float(top.std("question", ddof=1)) / np.sqrt(count) if count > 1 else 0.0
    cost = table["kl"].sel(fold=fold).mean("text").where(mean >= float(mean.max()) - error - 1e-6)
    cell = cost.stack(cell=("alpha", "heads")).dropna("cell")
    least = cell.isel(cell=int(np.argmin(cell.values)))
    return float(least["alpha"]), int(least["heads"])


def final(
    given: Material, fold: int, alpha: float, count: int, how: How
) -> tuple[xr.Dataset, Intervention]:
    """Directions of a fold's training and validation questions together, and the edit along them."""
    found = given.directions(fold, given.known(fold), how)
    return found, edit(found, given.heads(fold, count), alpha, how.scope)


def conditions(
    given: Material, fold: int, alpha: float, count: int, how: How
) -> dict[str, tuple[str, Intervention]]:
    """What a fold's test questions are scored under: name -> (kind, edit). Random directions push
    the same heads as far as the edit does; random heads are pushed along their own directions, as
    far in standard deviations."""
    found, own = final(given, fold, alpha, count, how)
    heads = given.heads(fold, count)
    made = {NONE: (NONE, Intervention()), EDIT: (EDIT, own)}
    for draw in range(how.draws):
        seed = 1000 * how.seed + draw
        drawn = random_directions(found["direction"].shape, seed).astype("float32")
        as_far = found.assign(direction=(("layer", "head", "dim"), drawn))
        others = random_heads(
            found.sizes["layer"], found.sizes["head"], count, without=heads, seed=seed
        )
        made[f"random_direction {draw}"] = "random_direction", edit(as_far, heads, alpha, how.scope)
        made[f"random_heads {draw}"] = "random_heads", edit(found, others, alpha, how.scope)
    return made


def evaluate(model, given: Material, settings: Sequence[tuple[float, int]], how: How) -> xr.Dataset:
    """Each fold's edit, and what it is compared with, on the questions that it has not seen.

    Args:
        settings: strength and number of heads of each fold.

    Returns:
        CHOICES (condition, question), `cross_entropy` and `kl` (condition, fold, text); coordinates
        `kind` (condition)
        and `in_fold` (question). attrs: `reached`, the share of answers that the edits reach;
            `settings` (JSON).

    Raises:
        RunError: an edit that saw one of the questions it would be tested on.
    """
    each = []
    for number, (fold, (alpha, count)) in enumerate(zip(given.folds, settings, strict=True)):
        made = conditions(given, number, alpha, count, how)
        for _, change in made.values():
            guard(change, given.texts(fold.test))
        each.append((made, given.rows(fold.test)))
    chosen = json.dumps([{"alpha": alpha, "heads": count} for alpha, count in settings])
    return compared(model, each, given.neutral, how).assign_attrs(settings=chosen)


def compared(
    model, folds: Sequence[tuple[dict, xr.Dataset]], neutral: xr.Dataset, how: How
) -> xr.Dataset:
    """Scores of every condition on each fold's statements."""
    asked, costs, shares = [], [], []
    for number, (made, rows) in enumerate(folds):
        pairs = [
            measured(model, change, rows, neutral, f"test-{number}-{name}".replace(" ", "-"), how)
            for name, (_, change) in made.items()
        ]
        axis = xr.DataArray(list(made), dims="condition", name="condition")
        both = [
            xr.concat([pair[part] for pair in pairs], axis, combine_attrs="override")
            for part in (0, 1)
        ]
        asked.append(both[0].assign_coords(kind=("condition", [kind for kind, _ in made.values()])))
        costs.append(both[1])
        shares.append(pairs[1][0].attrs["reached"])
    return joined(asked, costs).assign_attrs(reached=float(np.mean(shares)))


def transfer(
    model,
    change: Intervention,
    prompts: xr.Dataset,
    names: Sequence[str],
    neutral: xr.Dataset,
    how: How,
) -> xr.Dataset:
    """An edit that was fitted elsewhere, on all questions of another file, beside no edit and
    random directions.

    Returns:
        As `evaluate`, of one fold.

    Raises:
        RunError: an edit that was fitted on one of these questions.
    """
    guard(change, names)
    made = {NONE: (NONE, Intervention()), EDIT: (EDIT, change)}
    for draw in range(how.draws):
        made[f"random_direction {draw}"] = (
            "random_direction",
            randomised(change, 1000 * how.seed + draw),
        )
    return compared(model, [(made, prompts)], neutral, how)

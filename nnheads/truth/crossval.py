"""Inference-time intervention, cross-validated.

    table = grid(model, material, alphas, counts, options)
    settings = [choose(table, fold) for fold in range(2)]
    scores = evaluate(model, material, settings, options)

What is tested was never used to fit or to choose anything. In each fold the training questions give
directions and spreads, the validation questions choose the heads, how many of them and how
strongly, both together then give the final directions, and the test questions are scored once. An
edit that saw one of the questions it would be tested on is RunError.
Source: Li et al. 2023, arXiv 2306.03341.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import xarray as xr

from nnheads.interventions.schema import Intervention
from nnheads.interventions.steering_edits import randomised
from nnheads.truth.conditions import Conditions, conditions
from nnheads.truth.contrasts import EDIT, NONE
from nnheads.truth.directions import guard
from nnheads.truth.iti import edit
from nnheads.truth.material import Material, Options
from nnheads.truth.multiple_choice import CHOICES, score
from nnheads.truth.neutral import coherence

Measured = tuple[xr.Dataset, xr.Dataset]  # CHOICES (question), and the cost (text)


def grid(
    model, material: Material, alphas: Sequence[float], counts: Sequence[int], options: Options
) -> xr.Dataset:
    """Score every strength with every number of heads, on validation questions.

    Directions are of training questions.

    Args:
        alphas: strengths. counts: numbers of heads.

    Returns:
        CHOICES (alpha, heads, question), and without edit `original_<score>` (question), whose
        coordinate `in_fold` says which fold they validate; `cross_entropy`, `kl` (alpha, heads,
        fold, text).

    Raises:
        RunError: training questions among the validation questions.
    """
    scores, costs = [], []
    for number, fold in enumerate(material.folds):
        rows = material.rows(fold.validation)
        name = f"validate-{number}-none"
        plain = score(model, Intervention(), rows, **options.running(name))
        both = _cells(model, material, number, alphas, counts, options)
        original = {f"original_{choice}": plain[choice] for choice in CHOICES}
        scores.append(both[0].assign(original))
        costs.append(both[1])
    return joined(scores, costs)


def _cells(
    model,
    material: Material,
    number: int,
    alphas: Sequence[float],
    counts: Sequence[int],
    options: Options,
) -> Measured:
    """Score the validation questions of one fold in every cell, (alpha, heads, ...)."""
    fold = material.folds[number]
    rows, fitted = material.rows(fold.validation), material.directions(number, fold.train, options)
    guard(fitted, material.texts(fold.validation))
    cells: list[list[Measured]] = []
    for alpha in alphas:
        cells.append([])
        for count in counts:
            change = edit(fitted, material.heads(number, count), alpha, options.scope)
            name = f"validate-{number}-{alpha:g}-{count}"
            cells[-1].append(measured(model, change, rows, material.neutral, name, options))
    scores = [[cell[0] for cell in row] for row in cells]
    costs = [[cell[1] for cell in row] for row in cells]
    return _laid_out(scores, alphas, counts), _laid_out(costs, alphas, counts)


def measured(
    model,
    change: Intervention,
    rows: xr.Dataset,
    neutral: xr.Dataset,
    name: str,
    options: Options,
) -> Measured:
    """Return CHOICES (question) and the cost on neutral texts (text) of one edit."""
    cost = coherence(model, change, neutral, **options.running(f"{name}-neutral"))
    scores = score(model, change, rows, **options.running(name))
    return scores, cost.drop_vars("original")


def _laid_out(
    cells: list[list[xr.Dataset]], alphas: Sequence[float], counts: Sequence[int]
) -> xr.Dataset:
    alpha = xr.DataArray(list(alphas), dims="alpha", name="alpha")
    heads = xr.DataArray(list(counts), dims="heads", name="heads")
    rows = [xr.concat(row, heads, combine_attrs="override") for row in cells]
    return xr.concat(rows, alpha, combine_attrs="override")


def joined(scores: list[xr.Dataset], costs: list[xr.Dataset]) -> xr.Dataset:
    """Return the questions of all folds behind one another, and what each fold's edit costs."""
    numbers = range(len(scores))
    fold = xr.DataArray(list(numbers), dims="fold", name="fold")
    table = xr.concat(scores, "question", combine_attrs="override")
    own = np.repeat(numbers, [one.sizes["question"] for one in scores])
    table = table.assign_coords(in_fold=("question", own, {"long_name": "fold of the question"}))
    return table.merge(xr.concat(costs, fold, combine_attrs="override"), combine_attrs="override")


def choose(table: xr.Dataset, fold: int) -> tuple[float, int]:
    """Return the strength and number of heads for a fold.

    Of those whose validation MC1 lies within one standard error of the best, it is the one that
    moves predictions on neutral text least.

    Args:
        table: what `grid` returns.
    """
    validated = table["mc1"].isel(question=table["in_fold"].values == fold)
    mean = validated.mean("question")
    limit = float(mean.max()) - _error_of_best(validated) - 1e-6
    cost = table["kl"].sel(fold=fold).mean("text").where(mean >= limit)
    cells = _cells_of(cost)
    least = cells.isel(cell=int(np.argmin(cells.values)))
    return float(least["alpha"]), int(least["heads"])


def _cells_of(values: xr.DataArray) -> xr.DataArray:
    """Return the cells (alpha, heads) that have a value, behind one another."""
    return values.stack(cell=("alpha", "heads")).dropna("cell")


def _error_of_best(validated: xr.DataArray) -> float:
    """Return the standard error of the best cell; 0 for a single question, which has none."""
    count = validated.sizes["question"]
    if count < 2:
        return 0.0
    mean = validated.mean("question")
    best = _cells_of(mean.where(mean == mean.max())).isel(cell=0)
    values = validated.sel(alpha=best["alpha"].item(), heads=best["heads"].item())
    return float(values.std("question", ddof=1)) / np.sqrt(count)


def evaluate(
    model, material: Material, settings: Sequence[tuple[float, int]], options: Options
) -> xr.Dataset:
    """Score each fold's edit, and what it is compared with, on questions that it has not seen.

    Args:
        settings: strength and number of heads of each fold.

    Returns:
        CHOICES (condition, question), `cross_entropy` and `kl` (condition, fold, text); coordinates
        `kind` (condition) and `in_fold` (question). attrs: `reached`, the share of answers that the
        edits reach; `settings` (JSON).

    Raises:
        RunError: an edit that saw one of the questions it would be tested on.
    """
    each = []
    for number, (fold, (alpha, count)) in enumerate(zip(material.folds, settings, strict=True)):
        made = conditions(material, number, alpha, count, options)
        for _, change in made.values():
            guard(change, material.texts(fold.test))
        each.append((made, material.rows(fold.test)))
    chosen = json.dumps([{"alpha": alpha, "heads": count} for alpha, count in settings])
    return compared(model, each, material.neutral, options).assign_attrs(settings=chosen)


def compared(
    model,
    folds: Sequence[tuple[Conditions, xr.Dataset]],
    neutral: xr.Dataset,
    options: Options,
) -> xr.Dataset:
    """Return the scores of every condition on each fold's statements, as `evaluate` does."""
    scores, costs, shares = [], [], []
    for number, (made, rows) in enumerate(folds):
        pairs = {
            name: measured(model, change, rows, neutral, _file_name(number, name), options)
            for name, (_, change) in made.items()
        }
        kinds = ("condition", [kind for kind, _ in made.values()])
        axis = xr.DataArray(list(made), dims="condition", name="condition")
        both = [xr.concat(part, axis, combine_attrs="override") for part in zip(*pairs.values())]
        scores.append(both[0].assign_coords(kind=kinds))
        costs.append(both[1])
        shares.append(pairs[EDIT][0].attrs["reached"])
    return joined(scores, costs).assign_attrs(reached=float(np.mean(shares)))


def _file_name(number: int, name: str) -> str:
    return f"test-{number}-{name}".replace(" ", "-")


def transfer(
    model,
    change: Intervention,
    prompts: xr.Dataset,
    names: Sequence[str],
    neutral: xr.Dataset,
    options: Options,
) -> xr.Dataset:
    """Score an edit that was fitted elsewhere on all questions of another file.

    Beside it stand no edit and random directions.

    Args:
        prompts: statements of the other file. names: the texts of its questions.

    Returns:
        As `evaluate`, of one fold.

    Raises:
        RunError: an edit that was fitted on one of these questions.
    """
    guard(change, names)
    made: Conditions = {NONE: (NONE, Intervention()), EDIT: (EDIT, change)}
    for draw in range(options.draws):
        drawn = randomised(change, 1000 * options.seed + draw)
        made[f"random_direction {draw}"] = "random_direction", drawn
    return compared(model, [(made, prompts)], neutral, options)

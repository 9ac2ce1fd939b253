"""What an evaluation of inference-time intervention works on, and how it is told to run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from nnheads.truth.directions import directions
from nnheads.truth.folds import Fold
from nnheads.truth.iti import Head, check_count, gap, ordered


@dataclass(frozen=True)
class Options:
    """Everything that an evaluation is told.

    kind: of direction. scope: of the edit. draws: of each control. The others say how it runs.
    """

    kind: str = "mass_mean"
    scope: str = "all"
    draws: int = 5
    seed: int = 0
    batch_size: int = 32
    parts: Path | None = None
    quiet: bool = True

    def running(self, name: str) -> dict[str, Any]:
        """Return the options of a run in batches under a name of its own."""
        return {
            "batch_size": self.batch_size,
            "parts": self.parts,
            "quiet": self.quiet,
            "name": name,
        }


@dataclass(frozen=True)
class Material:
    """Questions in folds, and what is known of the heads.

    prompts: statements. z: head outputs (batch, layer, head, dim) at their ends. names: the
    questions' texts by number. folds: of these numbers. probes: what `probes.probe` returned.
    neutral: neutral texts. order: each fold's heads in the order in which they are chosen.
    """

    prompts: xr.Dataset
    z: xr.DataArray
    names: Sequence[str]
    folds: Sequence[Fold]
    probes: xr.Dataset
    neutral: xr.Dataset
    order: Sequence[Sequence[Head]]

    def directions(self, fold: int, use: Sequence[int], options: Options) -> xr.Dataset:
        """Return the directions that some questions give, with the probes of a fold."""
        return directions(
            self.z,
            use=use,
            names=self.names,
            kind=options.kind,
            weight=self.probes["weight"].sel(fold=fold),
            seed=options.seed,
        )

    def only(self, fold: int) -> Material:
        """Return one fold as the only one."""
        probes = self.probes.sel(fold=[fold]).assign_coords(fold=[0])
        return dataclasses.replace(
            self, folds=self.folds[fold : fold + 1], order=[self.order[fold]], probes=probes
        )

    def rows(self, numbers: Sequence[int]) -> xr.Dataset:
        """Return the statements of some questions."""
        return self.prompts.isel(batch=np.isin(self.prompts["question"].values, numbers))

    def texts(self, numbers: Sequence[int]) -> list[str]:
        """Return the texts of those of some questions that have statements."""
        there = set(self.prompts["question"].values.tolist())
        return [self.names[number] for number in numbers if number in there]

    def known(self, fold: int) -> tuple[int, ...]:
        """Return the questions of a fold that are not tested."""
        return (*self.folds[fold].train, *self.folds[fold].validation)

    def heads(self, fold: int, count: int) -> list[Head]:
        """Return the first heads of a fold."""
        check_count(count, len(self.order[fold]))
        return list(self.order[fold][:count])


def orders(z: xr.DataArray, probes: xr.Dataset, folds: Sequence[Fold]) -> list[list[Head]]:
    """Return each fold's heads by what its probes say of validation questions, best first.

    Args:
        z: (batch, layer, head, dim), with coordinates `label`, `question` (batch).
        probes: `validation` (fold, layer, head), `weight` (fold, layer, head, dim).
    """
    by_fold = []
    for number, fold in enumerate(folds):
        validated = z.isel(batch=np.isin(z["question"].values, fold.validation))
        one = probes.sel(fold=number)
        by_fold.append(ordered(one["validation"], gap(validated, one["weight"])))
    return by_fold

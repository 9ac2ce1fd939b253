"""Prompts of `nnheads function-vectors`: with examples, with shuffled ones, and without any."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr
    from nnheads.recipes._study import Study

    from nnheads.prompts.shot_tasks import Layout, Task
    from nnheads.runs.folder import Run


@dataclass(frozen=True, eq=False)
class Trial:
    """A run and its sets of prompts: shown, shuffled, trials and questions."""

    study: Study
    run: Run
    sets: dict[str, xr.Dataset]

    def measure(
        self,
        measure: Callable[[xr.Dataset], xr.Dataset],
        prompts: xr.Dataset,
        name: str,
        title: str,
    ) -> xr.Dataset:
        """Measure prompts in batches, which are kept in the run's folder."""
        return self.study.in_batches(self.run, measure, prompts, name=name, title=title)


def wanted_tasks(study: Study, read: dict | None) -> tuple[Any, Layout]:
    """Return the tasks of a file, or those that ship, and how their pairs are written."""
    from nnheads.prompts.shot_tasks import Layout, own_tasks, written

    tasks, layout = own_tasks(study.model.tokenizer) if read is None else (read, Layout())
    return tasks, written(layout, question=study.question, answer=study.answer, gap=study.gap)


def prompt_sets(study: Study, tasks: list[Task], layout: Layout) -> dict[str, Any]:
    """Return prompts to average over, with their examples and with shuffled ones; others to try
    heads in; and questions without examples about pairs that none of these holds.
    """
    from nnheads.prompts.shot_tasks import split
    from nnheads.prompts.shots import shots

    tokenizer, seed, limit = study.model.tokenizer, study.seed, study.limit
    shown, held_out = split(tasks, seed)

    def drawn(count: int, seed: int, kind: str) -> Any:
        return shots(
            tokenizer, shown, count, seed=seed, kind=kind, count=study.shots, layout=layout
        )

    return {
        "shown": drawn(study.averaged, seed, "shown"),
        "shuffled": drawn(study.averaged, seed, "shuffled"),
        "trials": drawn(limit, seed + 1, "shuffled"),
        "questions": shots(tokenizer, held_out, limit, seed=seed + 2, kind="none", layout=layout),
    }


def of_tasks(prompts: xr.Dataset, tasks: list[int]) -> xr.Dataset:
    """Return the prompts (batch) of some tasks."""
    import numpy as np

    return prompts.isel(batch=np.flatnonzero(np.isin(prompts["task"].values, tasks)))

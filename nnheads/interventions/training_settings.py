"""How a training goes: its settings, which pairs each step sees, and its temperatures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from nnheads.errors import BadInput
from nnheads.interventions.operations import Boundless, Mask
from nnheads.interventions.plain_values import is_whole, plain_value
from nnheads.interventions.schema import Edit, Intervention

SCHEDULES = {"boundless": (50.0, 0.1), "mask": (1.0, 0.1)}  # from soft to nearly all or nothing
Schedule = tuple[float, float] | None


@dataclass(frozen=True)
class Settings:
    """The settings of a training, as `training.train` explains them.

    Raises:
        BadInput: settings that no training could have.
    """

    steps: int
    batch_size: int
    learning_rate: float
    share_rate: float
    sparsity: float
    temperature: Schedule
    held_out: float
    every: int
    patience: int | None
    seed: int

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "every"):
            _check_count(name, getattr(self, name))
        if self.patience is not None:
            _check_count("patience", self.patience)
        for name in ("learning_rate", "share_rate"):
            rate = getattr(self, name)
            if not 0 < rate < float("inf"):
                raise BadInput(f"{name} {rate!r} is not possible; it must be above 0")
        self._check_held_out()
        schedule = self.temperature
        if schedule is not None and (len(schedule) != 2 or not min(schedule) > 0):
            raise BadInput(
                f"temperature {schedule!r} is not possible; give the first and the last, above 0"
            )

    def _check_held_out(self) -> None:
        if self.held_out == 0 and self.patience is not None:
            raise BadInput("patience is for pairs held out; hold some out, or leave it out")
        if not 0 <= self.held_out < 1:
            raise BadInput(
                f"held_out {self.held_out!r} is not possible; a share between 0 and 1 is"
            )

    def record(self, loss: object, training: str) -> dict[str, Any]:
        """Return the settings as plain data, with the loss's name and a hash of the training."""
        values = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        values |= {"loss": getattr(loss, "__name__", "loss"), "training": training}
        return {name: plain_value(value) for name, value in values.items()}


def _check_count(name: str, value: object) -> None:
    if not (is_whole(value) and value >= 1):  # type: ignore[operator]  # it is a whole number
        raise BadInput(f"{name} {value!r} is not possible; it must be at least 1")


def split(total: int, share: float, seed: int) -> tuple[Int[np.ndarray, " row"], ...]:
    """Return the numbers of the pairs that are trained on, and of those held out.

    Raises:
        BadInput: too few pairs to hold that share out.
    """
    count = max(1, round(total * share)) if share else 0
    if count >= total:
        raise BadInput(f"{total} pairs are too few to hold {share:g} of them out; give more")
    order = np.random.default_rng(seed).permutation(total)
    return np.sort(order[count:]), np.sort(order[:count])


def batch(total: int, size: int, step: int, seed: int) -> Int[np.ndarray, " row"]:
    """Return which of the training pairs a step sees.

    In an epoch none comes twice, and those that fill no whole batch do not come at all; they are
    others in each epoch.
    """
    size = min(size, total)
    epoch, number = divmod(step, total // size)
    order = np.random.default_rng([seed, epoch]).permutation(total)
    return order[number * size : (number + 1) * size]


def at_temperature(
    intervention: Intervention,
    tensors: Mapping[str, torch.Tensor],
    schedule: Schedule,
    share: float,
) -> Intervention:
    """Return the intervention with these tensors, as warm as after a share of the training."""
    edits = [_cooled(edit, schedule, share) for edit in intervention.edits]
    together = {**intervention.tensors, **tensors}
    return Intervention(*edits, tensors=together, mode=intervention.mode)


def _cooled(edit: Edit, schedule: Schedule, share: float) -> Edit:
    if not isinstance(edit.do, (Boundless, Mask)):
        return edit
    first, last = schedule or SCHEDULES[edit.do.name]
    temperature = float(first * (last / first) ** share)
    return dataclasses.replace(edit, do=dataclasses.replace(edit.do, temperature=temperature))

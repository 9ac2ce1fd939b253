"""Look for the directions along which an interchange gives the counterfactual answer.

    trained, log = train(model, aligned("resid_post", 4, index(-1), features=768), pairs)

Only the tensors that the intervention names learn: rotations, boundaries and masks. The network is
frozen. After every step the columns of a rotation are made orthonormal again, so what is trained is
what is used, and a boundary stays between 0 and 1. The order in which pairs are seen follows from
the seed and the step alone: a run that was interrupted goes on from its checkpoint as if it had not
been.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Int
from torch.nn.functional import cross_entropy

from nnheads.errors import BadInput
from nnheads.interventions.alignment import SOURCE, rows_of
from nnheads.interventions.checkpoints import CHECKPOINT, State, digest, restore, store
from nnheads.interventions.counterfactuals import Pairs
from nnheads.interventions.predictions import SourceFeatures, frozen, predicted, read_sources
from nnheads.interventions.schema import Intervention
from nnheads.interventions.training_settings import Settings, at_temperature, batch, split
from nnheads.interventions.training_steps import Loss, begun, finite, keep, measured, one_step
from nnheads.runs.progress import progress
from nnheads.trace.session import on_server

# variable -> its dim, its name in the state's log, what it says, units
LOG = {
    "loss": ("step", "loss", "loss of the batch", "nat"),
    "temperature": ("step", "temperature", "temperature (first boundless or mask edit)", "1"),
    "held_out_loss": ("evaluation", "held_loss", "loss on pairs held out", "nat"),
    "held_out_accuracy": (
        "evaluation",
        "held_accuracy",
        "interchange accuracy on pairs held out",
        "1",
    ),
}


def train(
    model: Any,
    intervention: Intervention,
    pairs: Pairs,
    *,
    steps: int = 200,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    share_rate: float = 1e-2,
    loss: Loss = cross_entropy,
    sparsity: float = 0.0,
    temperature: tuple[float, float] | None = None,
    held_out: float = 0.2,
    every: int = 20,
    patience: int | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    keep_sources: bool = True,
    quiet: bool = True,
) -> tuple[Intervention, xr.Dataset]:
    """Train an intervention's rotations, boundaries and masks (`aligned` gives one to start with).

    Args:
        model: from `nnheads.load`, or any torch.nn.Module.
        pairs: what it is trained on, and measured on where they are held out.
        steps: of the optimizer. batch_size: pairs of each.
        learning_rate: of rotations (Adam). share_rate: of boundaries and masks.
        loss: from logits [row, answer] and counterfactual answers [row] to a number.
        sparsity: what a boundary or a mask that takes everything costs, added to the loss.
        temperature: of boundless and mask edits at the first and the last step, in equal ratios
            between; default 50 to 0.1 and 1 to 0.1.
        held_out: share of the pairs that is not trained on; 0: none, and the last state is
            returned.
        every: steps between measurements on them, always at the last temperature, since that is how
            the result is used.
        patience: stop after so many without improvement.
        seed: of the order of the pairs, and of which are held out.
        checkpoint: a folder; training goes on from what it holds, if it was of the same training.
        keep_sources: run the sources once and keep what the edits take from them (pair x position x
            feature), where that is the same at every step and most pairs come more than once; False
            saves the memory.
        quiet: show no progress.

    Returns:
        The intervention as it was where the loss on the held-out pairs was least, at the last
        temperature; and the log: `loss` (nats), `temperature` (step), `held_out_loss`,
        `held_out_accuracy` (evaluation, numbered by their step).

    Raises:
        BadInput: nothing to train, settings that are not possible, a checkpoint of another
            training.
        RunError: a loss that is not finite.

    Example:
        >>> import torch
        >>> from nnheads.interventions import Pairs, aligned, train
        >>> layers = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
        >>> pairs = Pairs(torch.randn(8, 3), (torch.randn(8, 3),), torch.arange(8) % 2)
        >>> start = aligned("output", None, path="0", features=4)
        >>> trained, log = train(layers, start, pairs, steps=4, every=2)
        >>> log["held_out_loss"].sizes
        Frozen({'evaluation': 2})
    """
    settings = Settings(
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        share_rate=share_rate,
        sparsity=sparsity,
        temperature=temperature,
        held_out=held_out,
        every=every,
        patience=patience,
        seed=seed,
    )
    file = None if checkpoint is None else Path(checkpoint) / CHECKPOINT
    training = _Training(model, intervention, pairs, settings, loss)
    return training.run(file, keep_sources, quiet)


@dataclass(frozen=True)
class _Training:
    """What is trained on what, and how."""

    model: Any
    intervention: Intervention
    pairs: Pairs
    settings: Settings
    loss: Loss

    def run(
        self, file: Path | None, keep_sources: bool, quiet: bool
    ) -> tuple[Intervention, xr.Dataset]:
        """Train to the end; return what was best, and the log."""
        if on_server(self.model):
            raise BadInput(
                "training needs gradients, which do not come back from other machines; load the"
                " model without remote"
            )
        settings = self.settings
        state = begun(self.intervention, settings.learning_rate, settings.share_rate)
        hashed = digest(self.model, self.intervention, self.pairs)
        record = settings.record(self.loss, hashed)
        restore(state, file, record)
        fitted, held = split(len(self.pairs), settings.held_out, settings.seed)
        with torch.enable_grad(), frozen(self.model), self.progress(quiet) as advance:
            known = self.known() if keep_sources else None
            advance(state.step)
            while not self.over(state):
                self.step(state, known, fitted)
                if self.due(state):
                    self.measure(state, known, held)
                    store(state, file, record)
                advance(1)
        numbers = {"pairs_fitted": len(fitted), "pairs_held_out": len(held)}
        return self.warm(state.best, 1.0), table(state, record, numbers)

    def known(self) -> SourceFeatures | None:
        """Read the sources once, if most pairs come more than once."""
        often = self.settings.steps * self.settings.batch_size > len(self.pairs)
        return read_sources(self.model, self.intervention, self.pairs) if often else None

    def progress(self, quiet: bool) -> AbstractContextManager[Callable[[int], None]]:
        """Show how many steps are done."""
        return progress("alignment", self.settings.steps, quiet)

    def due(self, state: State) -> bool:
        """Return whether it is time to measure."""
        return state.step % self.settings.every == 0 or state.step == self.settings.steps

    def over(self, state: State) -> bool:
        """Return whether all steps are done, or nothing has improved for too long."""
        patience = self.settings.patience
        return state.step >= self.settings.steps or (
            patience is not None and state.stale >= patience
        )

    def warm(self, tensors: Mapping[str, torch.Tensor], share: float) -> Intervention:
        """Return the intervention with these tensors, after a share of the training."""
        return at_temperature(self.intervention, tensors, self.settings.temperature, share)

    def step(
        self, state: State, known: SourceFeatures | None, fitted: Int[np.ndarray, " row"]
    ) -> None:
        """Take one step on a batch of the pairs that are trained on."""
        settings = self.settings
        now = self.warm(state.tensors, state.step / max(settings.steps - 1, 1))
        chosen = batch(len(fitted), settings.batch_size, state.step, settings.seed)
        rows = np.sort(fitted[chosen])
        part = self.pairs.rows(rows)
        logits = predicted(self.model, now, part, known=rows_of(known, rows))
        one_step(state, now, logits, part, self.loss, settings.sparsity)

    def measure(
        self, state: State, known: SourceFeatures | None, held: Int[np.ndarray, " row"]
    ) -> None:
        """Measure on the pairs held out; keep the tensors if none were better."""
        if not len(held):
            keep(state)
            return
        part, final = self.pairs.rows(held), self.warm(state.tensors, 1.0)
        error, right = measured(self.model, final, part, rows_of(known, held), self.loss)
        finite(error, f"the loss on pairs held out, after {state.step} steps,")
        state.note(held_loss=error, held_accuracy=right, at=float(state.step))
        state.stale += 1
        if error < state.best_loss or not state.best:
            keep(state)
            state.best_loss, state.stale = error, 0


def table(state: State, settings: dict, numbers: dict[str, int]) -> xr.Dataset:
    """Return the log as labelled data (step), (evaluation).

    Args:
        settings: of the training, as plain data. numbers: of its pairs.
    """
    data = {}
    for name, (dim, key, text, units) in LOG.items():
        values = np.array(state.log[key], "float32")
        data[name] = (dim, values, {"long_name": text, "units": units, "source": SOURCE})
    coordinates = {"step": range(state.step), "evaluation": np.array(state.log["at"], int)}
    about: dict[str, Any] = {"source": SOURCE, "settings": json.dumps(settings), **numbers}
    return xr.Dataset(data, coordinates, {**about, "best_held_out_loss": state.best_loss})

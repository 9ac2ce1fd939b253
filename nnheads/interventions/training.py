"""Look for the directions along which an interchange gives the counterfactual answer.

Only the tensors that the intervention names learn: rotations, boundaries and masks. The network is
    frozen. After every
step the columns of a rotation are made orthonormal again, so what is trained is what is used, and a
boundary stays between 0 and 1. The order in which pairs are seen follows from the seed and the step
alone: a run that was interrupted goes on from its checkpoint as if it had not been.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch.nn.functional import cross_entropy

from nnheads.errors import BadInput, RunError
from nnheads.interventions.alignment import (
    SOURCE,
    Known,
    accuracy,
    frozen,
    orthonormal,
    predicted,
    read_sources,
)
from nnheads.interventions.checkpoints import CHECKPOINT, State, digest, restore, store
from nnheads.interventions.counterfactuals import Pairs
from nnheads.interventions.operations import is_whole, plain
from nnheads.interventions.schema import Boundless, Edit, Intervention, Mask
from nnheads.runs.batches import progress
from nnheads.trace.session import on_server

TRAINED = ("rotate", "lowrank", "boundless", "mask")  # principal components stay what they are
SCHEDULES = {"boundless": (50.0, 0.1), "mask": (1.0, 0.1)}  # from soft to nearly all or nothing
HELD_BATCH = 64
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def train(
    model,
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
    """Train an intervention's rotations, boundaries and masks (see `alignment.aligned` for where to
    start).

    Args:
        model: from `nnheads.load`, or any torch.nn.Module.
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
        checkpoint: a folder; training goes on from what it holds, if it was of the same training.
        keep_sources: run the sources once and keep what the edits take from them (pair x place x
            feature), where that is the same at every step and most pairs come more than once; False
            saves the memory.

    Returns:
        The intervention as it was where the loss on the held-out pairs was least, at the last
        temperature; and the log: `loss`, `temperature` (step), `held_out_loss`, `held_out_accuracy`
        (evaluation, numbered by their step).

    Raises:
        BadInput: nothing to train, settings that are not possible, a checkpoint of another
            training.
        RunError: a loss that is not finite.
    """
    if on_server(model):
        raise BadInput(
            "training needs gradients, which do not come back from other machines; load the model"
            " without remote"
        )
    check(steps, batch_size, every, patience, learning_rate, share_rate, held_out, temperature)
    state = begun(intervention, learning_rate, share_rate)
    settings: dict = {
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "share_rate": share_rate,
        "sparsity": sparsity,
        "temperature": temperature,
        "held_out": held_out,
        "every": every,
        "patience": patience,
        "seed": seed,
        "loss": getattr(loss, "__name__", "loss"),
        "training": digest(model, intervention, pairs),
    }
    settings = {name: plain(value) for name, value in settings.items()}
    place = None if checkpoint is None else Path(checkpoint) / CHECKPOINT
    restore(state, place, settings)
    fitted, held = split(len(pairs), held_out, seed)
    with torch.enable_grad(), frozen(model), progress("alignment", steps, quiet) as advance:
        often = steps * batch_size > len(pairs)  # or few pairs would be seen twice
        known = read_sources(model, intervention, pairs) if keep_sources and often else None
        advance(state.step)
        while state.step < steps and (patience is None or state.stale < patience):
            now = at_temperature(
                intervention, state.tensors, temperature, state.step / max(steps - 1, 1)
            )
            chosen = fitted[batch(len(fitted), batch_size, state.step, seed)]
            one_step(state, model, now, *rows(pairs, known, np.sort(chosen)), loss, sparsity)
            if state.step % every == 0 or state.step == steps:
                final = at_temperature(intervention, state.tensors, temperature, 1.0)
                if len(held):
                    measure(state, model, final, *rows(pairs, known, held), loss)
                else:
                    keep(state)
                store(state, place, settings)
            advance(1)
    return at_temperature(intervention, state.best, temperature, 1.0), table(
        state, settings, len(fitted), len(held)
    )


def check(
    steps, batch_size, every, patience, learning_rate, share_rate, held_out, temperature
) -> None:
    """Refuse settings that no training could have."""
    for name, value in (
        ("steps", steps),
        ("batch_size", batch_size),
        ("every", every),
        ("patience", patience),
    ):
        if not (is_whole(value) and value >= 1) and not (name == "patience" and value is None):
            raise BadInput(f"{name} {value!r} is not possible; it must be at least 1")
    for name, rate in (("learning_rate", learning_rate), ("share_rate", share_rate)):
        if not 0 < rate < float("inf"):
            raise BadInput(f"{name} {rate!r} is not possible; it must be above 0")
    if held_out == 0 and patience is not None:
        raise BadInput("patience is for pairs held out; hold some out, or leave it out")
    if not 0 <= held_out < 1:
        raise BadInput(f"held_out {held_out!r} is not possible; a share between 0 and 1 is")
    if temperature is not None and (len(temperature) != 2 or not min(temperature) > 0):
        raise BadInput(
            f"temperature {temperature!r} is not possible; give the first and the last, above 0"
        )


def begun(intervention: Intervention, learning_rate: float, share_rate: float) -> State:
    """The state before the first step: every tensor that is trained, once however many edits share
    it.
    """
    named: dict[str, bool] = {}  # whether it is a rotation
    for edit in intervention.edits:
        if edit.do.name in TRAINED:
            rotation = getattr(edit.do, "rotation", None)
            named.update({name: name == rotation for name in edit.do.tensors})
    if not named:
        raise BadInput(f"this intervention has nothing to train; use one of {', '.join(TRAINED)}")
    tensors = {}
    for name, rotation in named.items():
        start = intervention.tensors[name].detach().float().cpu().clone()
        tensors[name] = torch.nn.Parameter(orthonormal(start) if rotation else start)
    groups = [
        {"params": [tensors[name] for name in named if named[name] == rotation], "lr": rate}
        for rotation, rate in ((True, learning_rate), (False, share_rate))
    ]
    return State(tensors, torch.optim.Adam([group for group in groups if group["params"]]))


def split(total: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the pairs that are trained on, and of those held out."""
    count = max(1, round(total * share)) if share else 0
    if count >= total:
        raise BadInput(f"{total} pairs are too few to hold {share:g} of them out; give more")
    order = np.random.default_rng(seed).permutation(total)
    return np.sort(order[count:]), np.sort(order[:count])


def rows(pairs: Pairs, known: Known | None, chosen: np.ndarray) -> tuple[Pairs, Known | None]:
    """Some of the pairs, and what is known of their sources."""
    return pairs.rows(chosen), None if known is None else known.rows(chosen)


def batch(total: int, size: int, step: int, seed: int) -> np.ndarray:
    """Which of the training pairs a step sees: in an epoch none twice, and those that fill no whole
    batch not at all; they are others in each epoch."""
    size = min(size, total)
    epoch, place = divmod(step, total // size)
    return np.random.default_rng([seed, epoch]).permutation(total)[
        place * size : (place + 1) * size
    ]


def at_temperature(
    intervention: Intervention, tensors: Mapping, schedule, share: float
) -> Intervention:
    """The intervention with these tensors, and its temperatures after a share of the training."""

    def cooled(edit: Edit) -> Edit:
        if not isinstance(edit.do, (Boundless, Mask)):
            return edit
        first, last = schedule or SCHEDULES[edit.do.name]
        return dataclasses.replace(
            edit,
            do=dataclasses.replace(edit.do, temperature=float(first * (last / first) ** share)),
        )

    edits = map(cooled, intervention.edits)
    return Intervention(*edits, tensors={**intervention.tensors, **tensors}, mode=intervention.mode)


def one_step(
    state: State,
    model,
    now: Intervention,
    part: Pairs,
    known: Known | None,
    loss: Loss,
    sparsity: float,
) -> None:
    """One step of the optimizer; rotations stay orthonormal, boundaries between 0 and 1."""
    logits = predicted(model, now, part, known=known)
    found = loss(logits, part.answer.to(logits.device))
    value = finite(float(found.detach()), f"the loss at step {state.step}")
    state.optimizer.zero_grad()
    (found + sparsity * cost(now).to(found) if sparsity else found).backward()
    rotations = {getattr(edit.do, "rotation", None) for edit in now.edits}
    boundaries = {edit.do.boundary for edit in now.edits if isinstance(edit.do, Boundless)}
    with torch.no_grad():
        for name in state.tensors.keys() & rotations:
            flattened(state.tensors[name])
        state.optimizer.step()
        for name, tensor in state.tensors.items():
            if name in rotations:
                tensor.copy_(orthonormal(tensor))
            elif name in boundaries:
                tensor.clamp_(0, 1)
    temperatures = [
        edit.do.temperature for edit in now.edits if isinstance(edit.do, (Boundless, Mask))
    ]
    state.log["loss"].append(value)
    state.log["temperature"].append(temperatures[0] if temperatures else float("nan"))
    state.step += 1


def finite(value: float, what: str) -> float:
    if not np.isfinite(value):
        raise RunError(f"{what} is {value}; a lower learning rate or a better dtype may help")
    return value


def flattened(rotation: torch.nn.Parameter) -> None:
    """Leave of a gradient what moves along the orthonormal matrices (their tangent): the rest would
    be undone.
    """
    if rotation.grad is not None:
        inner = rotation.T @ rotation.grad
        rotation.grad -= rotation @ (inner + inner.T) / 2


def cost(now: Intervention) -> torch.Tensor:
    """How much the boundaries and masks let through, each between 0 and 1, summed."""
    total = torch.zeros(())
    for edit in now.edits:
        if isinstance(edit.do, Boundless):
            total = total + now.tensors[edit.do.boundary].clamp(0, 1).sum()
        elif isinstance(edit.do, Mask):
            total = total + torch.sigmoid(now.tensors[edit.do.mask] / edit.do.temperature).mean()
    return total


def measure(
    state: State, model, final: Intervention, held: Pairs, known: Known | None, loss: Loss
) -> None:
    """Loss and accuracy on the pairs held out; the tensors are kept if none were better."""
    losses, right = 0.0, 0.0
    with torch.no_grad():
        for first in range(0, len(held), HELD_BATCH):
            part, own = rows(held, known, np.arange(first, min(first + HELD_BATCH, len(held))))
            logits = predicted(model, final, part, known=own)
            answer = part.answer.to(logits.device)
            losses += float(loss(logits, answer)) * len(part) / len(held)
            right += float(accuracy(logits, answer).sum()) / len(held)
    finite(losses, f"the loss on pairs held out, after {state.step} steps,")
    for name, value in (("held_loss", losses), ("held_accuracy", right), ("at", float(state.step))):
        state.log[name].append(value)
    state.stale += 1
    if losses < state.best_loss or not state.best:
        keep(state)
        state.best_loss, state.stale = losses, 0


def keep(state: State) -> None:
    """What is trained, as it is now, is what training returns."""
    state.best = {name: tensor.detach().clone() for name, tensor in state.tensors.items()}


def table(state: State, settings: dict, fitted: int, held: int) -> xr.Dataset:
    """The log as labelled data."""
    tables = {
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
    data = {
        name: (
            dim,
            np.array(state.log[key], "float32"),
            {"long_name": text, "units": units, "source": SOURCE},
        )
        for name, (dim, key, text, units) in tables.items()
    }
    about = {
        "source": SOURCE,
        "settings": json.dumps(settings),
        "pairs_fitted": fitted,
        "pairs_held_out": held,
        "best_held_out_loss": state.best_loss,
    }
    return xr.Dataset(
        data, {"step": range(state.step), "evaluation": np.array(state.log["at"], int)}, about
    )

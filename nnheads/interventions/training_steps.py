"""One step of a training: what is learned, how it moves, and what it must stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from nnheads.errors import BadInput, RunError
from nnheads.interventions.alignment import accuracy, orthonormal, rows_of
from nnheads.interventions.checkpoints import State
from nnheads.interventions.counterfactuals import Pairs
from nnheads.interventions.operations import Boundless, Mask
from nnheads.interventions.predictions import SourceFeatures, batches_of, predicted
from nnheads.interventions.schema import Intervention

TRAINED = ("rotate", "lowrank", "boundless", "mask")  # principal components stay what they are
HELD_BATCH = 64
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def begun(intervention: Intervention, learning_rate: float, share_rate: float) -> State:
    """Return the state before the first step: every tensor that is trained, once.

    Args:
        learning_rate: of rotations. share_rate: of boundaries and masks.

    Raises:
        BadInput: nothing to train.
    """
    named = _trained(intervention)
    if not named:
        raise BadInput(f"this intervention has nothing to train; use one of {', '.join(TRAINED)}")
    tensors = {}
    for name, rotation in named.items():
        start = intervention.tensors[name].detach().float().cpu().clone()
        tensors[name] = torch.nn.Parameter(orthonormal(start) if rotation else start)
    groups: list[dict[str, Any]] = [
        {"params": [tensors[name] for name in named if named[name] == rotation], "lr": rate}
        for rotation, rate in ((True, learning_rate), (False, share_rate))
    ]
    return State(tensors, torch.optim.Adam([group for group in groups if group["params"]]))


def _trained(intervention: Intervention) -> dict[str, bool]:
    """Return the names of the tensors that are trained, and whether each is a rotation."""
    named: dict[str, bool] = {}
    for edit in intervention.edits:
        if edit.do.name in TRAINED:
            rotation = getattr(edit.do, "rotation", None)
            named.update({name: name == rotation for name in edit.do.tensors})
    return named


def one_step(
    state: State,
    now: Intervention,
    logits: Float[torch.Tensor, "row answer"],
    part: Pairs,
    loss: Loss,
    sparsity: float,
) -> None:
    """Take one step of the optimizer; rotations stay orthonormal, boundaries between 0 and 1.

    Args:
        now: the intervention that gave these logits of a batch of pairs.

    Raises:
        RunError: a loss that is not finite.
    """
    error = loss(logits, part.answer.to(logits.device))
    value = finite(float(error.detach()), f"the loss at step {state.step}")
    state.optimizer.zero_grad()
    (error + sparsity * _cost(now).to(error) if sparsity else error).backward()
    with torch.no_grad():
        _move(state, now)
    soft = [edit.do for edit in now.edits if isinstance(edit.do, (Boundless, Mask))]
    state.note(loss=value, temperature=soft[0].temperature if soft else float("nan"))
    state.step += 1


def _move(state: State, now: Intervention) -> None:
    """Move the tensors along their gradients, and back to what they must be."""
    rotations = {getattr(edit.do, "rotation", None) for edit in now.edits}
    boundaries = {edit.do.boundary for edit in now.edits if isinstance(edit.do, Boundless)}
    for name in state.tensors.keys() & rotations:
        _keep_tangent(state.tensors[name])
    state.optimizer.step()
    for name, tensor in state.tensors.items():
        if name in rotations:
            tensor.copy_(orthonormal(tensor))
        elif name in boundaries:
            tensor.clamp_(0, 1)


def _keep_tangent(rotation: torch.nn.Parameter) -> None:
    """Leave of a gradient what moves along the orthonormal matrices: the rest would be undone."""
    if rotation.grad is not None:
        inner = rotation.T @ rotation.grad
        rotation.grad -= rotation @ (inner + inner.T) / 2


def _cost(now: Intervention) -> Float[torch.Tensor, ""]:
    """Return how much the boundaries and masks let through, each between 0 and 1, summed."""
    total = torch.zeros(())
    for edit in now.edits:
        if isinstance(edit.do, Boundless):
            total = total + now.tensors[edit.do.boundary].clamp(0, 1).sum()
        elif isinstance(edit.do, Mask):
            total = total + torch.sigmoid(now.tensors[edit.do.mask] / edit.do.temperature).mean()
    return total


def finite(value: float, what: str) -> float:
    """Return a number, or refuse it if it is none."""
    if not np.isfinite(value):
        raise RunError(f"{what} is {value}; a lower learning rate or a better dtype may help")
    return value


def measured(
    model: Any, final: Intervention, held: Pairs, known: SourceFeatures | None, loss: Loss
) -> tuple[float, float]:
    """Return loss and accuracy on the pairs held out."""
    losses, right = 0.0, 0.0
    with torch.no_grad():
        for rows in batches_of(len(held), HELD_BATCH):
            part = held.rows(rows)
            logits = predicted(model, final, part, known=rows_of(known, rows))
            answer = part.answer.to(logits.device)
            losses += float(loss(logits, answer)) * len(part) / len(held)
            right += float(accuracy(logits, answer).sum()) / len(held)
    return losses, right


def keep(state: State) -> None:
    """Let training return what is trained, as it is now."""
    state.best = {name: tensor.detach().clone() for name, tensor in state.tensors.items()}

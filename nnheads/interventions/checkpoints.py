"""The state of a training, and its checkpoint: one file, whole or not at all, of tensors and plain
data only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from nnheads.errors import BadInput
from nnheads.interventions.counterfactuals import Pairs
from nnheads.interventions.schema import Intervention
from nnheads.runs.store import write

CHECKPOINT = "alignment.pt"
SAMPLE = 256  # numbers of each weight that tell one network from another
READ_FROM = ("token", "mask", "prompt_length")


@dataclass
class State:
    """What changes as training goes on."""

    tensors: dict[str, torch.nn.Parameter]
    optimizer: torch.optim.Optimizer
    step: int = 0
    log: dict[str, list[float]] = field(
        default_factory=lambda: {
            name: [] for name in ("loss", "temperature", "held_loss", "held_accuracy", "at")
        }
    )
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    best_loss: float = float("inf")
    stale: int = 0  # measurements since the best


def digest(model, intervention: Intervention, pairs: Pairs) -> str:
    """A hash of what is trained on what, and in which network (a sample of each of its weights)."""
    found = hashlib.sha256(repr((intervention.edits, intervention.mode)).encode())
    weights = getattr(model, "_module", model).named_parameters()
    sample = [
        (name, weight.detach().flatten()[:: max(1, weight.numel() // SAMPLE)])
        for name, weight in weights
    ]
    for name, tensor in [*sorted(intervention.tensors.items()), *sample]:
        found.update(
            f"{name} {tuple(tensor.shape)}".encode()
            + tensor.detach().float().cpu().numpy().tobytes()
        )
    for one in (pairs.base, *pairs.sources, pairs.answer):
        known = (
            {name: one[name].values for name in READ_FROM if name in one}
            if isinstance(one, xr.Dataset)
            else {}
        )
        if isinstance(one, xr.Dataset):
            known |= {
                str(name): one[name].values for name in one.coords if str(name).startswith("role_")
            }
        else:
            known["input"] = one.detach().cpu().numpy()
        for name, values in known.items():
            found.update(f"{name} {values.shape}".encode() + np.ascontiguousarray(values).tobytes())
    return found.hexdigest()


def store(state: State, place: Path | None, settings: dict) -> None:
    """Write a checkpoint, whole or not at all."""
    if place is not None:
        record = {entry.name: getattr(state, entry.name) for entry in dataclasses.fields(state)}
        record |= {"optimizer": state.optimizer.state_dict(), "settings": json.dumps(settings)}
        record["tensors"] = {name: tensor.detach() for name, tensor in state.tensors.items()}
        write(place, lambda path: torch.save(record, path))


def restore(state: State, place: Path | None, settings: dict) -> None:
    """Go on from a checkpoint, if there is one. Only tensors and plain data are read from it."""
    if place is None or not place.exists():
        return
    try:
        record: dict[str, Any] = torch.load(place, weights_only=True)
        theirs = json.loads(record.pop("settings"))
        tensors, optimizer = record.pop("tensors"), record.pop("optimizer")
    except Exception as error:  # a file that was cut or is another's fails in many ways
        raise BadInput(
            f"{place} cannot be read as a checkpoint ({type(error).__name__}); remove it to start"
        ) from None
    ours = json.loads(json.dumps(settings))
    changed = [name for name in ours if ours[name] != theirs.get(name)]
    if changed:
        raise BadInput(
            f"{place} is of another training ({', '.join(changed)} differ); use another folder"
        )
    with torch.no_grad():
        for name, tensor in state.tensors.items():
            tensor.copy_(tensors[name])
    state.optimizer.load_state_dict(optimizer)
    for name, value in record.items():
        setattr(state, name, value)

"""The state of a training, and its checkpoint: one file, whole or not at all.

It holds tensors and plain data only. A file that is of another training raises BadInput.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
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
LOGGED = ("loss", "temperature", "held_loss", "held_accuracy", "at")


def _empty_log() -> dict[str, list[float]]:
    return {name: [] for name in LOGGED}


@dataclass
class State:
    """What changes as training goes on."""

    tensors: dict[str, torch.nn.Parameter]
    optimizer: torch.optim.Optimizer
    step: int = 0
    log: dict[str, list[float]] = field(default_factory=_empty_log)
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    best_loss: float = float("inf")
    stale: int = 0  # measurements since the best

    def note(self, **values: float) -> None:
        """Write values to the log."""
        for name, value in values.items():
            self.log[name].append(value)


def digest(model: Any, intervention: Intervention, pairs: Pairs) -> str:
    """Return a hash of what is trained on what, and in which network.

    Of the network it takes a sample of each of its weights.
    """
    hashed = hashlib.sha256(repr((intervention.edits, intervention.mode)).encode())
    for name, tensor in [*sorted(intervention.tensors.items()), *_sample(model)]:
        values = tensor.detach().float().cpu().numpy()
        hashed.update(f"{name} {tuple(tensor.shape)}".encode() + values.tobytes())
    for one in (pairs.base, *pairs.sources, pairs.answer):
        for name, values in _contents(one):
            data = np.ascontiguousarray(values).tobytes()
            hashed.update(f"{name} {values.shape}".encode() + data)
    return hashed.hexdigest()


def _sample(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Go through some numbers of each weight."""
    for name, weight in getattr(model, "_module", model).named_parameters():
        yield name, weight.detach().flatten()[:: max(1, weight.numel() // SAMPLE)]


def _contents(inputs: xr.Dataset | torch.Tensor) -> Iterator[tuple[str, np.ndarray]]:
    """Go through what a training reads of its inputs."""
    if not isinstance(inputs, xr.Dataset):
        yield "input", inputs.detach().cpu().numpy()
        return
    roles = [str(name) for name in inputs.coords if str(name).startswith("role_")]
    for name in [*(name for name in READ_FROM if name in inputs), *roles]:
        yield name, inputs[name].values


def store(state: State, file: Path | None, settings: dict) -> None:
    """Write a checkpoint, whole or not at all; nothing without a file."""
    if file is None:
        return
    record = {entry.name: getattr(state, entry.name) for entry in dataclasses.fields(state)}
    record |= {"optimizer": state.optimizer.state_dict(), "settings": json.dumps(settings)}
    record["tensors"] = {name: tensor.detach() for name, tensor in state.tensors.items()}
    write(file, lambda path: torch.save(record, path))


def restore(state: State, file: Path | None, settings: dict) -> None:
    """Go on from a checkpoint, if there is one. Only tensors and plain data are read from it.

    Raises:
        BadInput: a file that is no checkpoint, or one of another training.
    """
    if file is None or not file.exists():
        return
    record, parts, theirs = _read(file)
    ours = json.loads(json.dumps(settings))
    changed = [name for name in ours if ours[name] != theirs.get(name)]
    if changed:
        raise BadInput(
            f"{file} is of another training ({', '.join(changed)} differ); use another folder"
        )
    with torch.no_grad():
        for name, tensor in state.tensors.items():
            tensor.copy_(parts["tensors"][name])
    state.optimizer.load_state_dict(parts["optimizer"])
    for name, value in record.items():
        setattr(state, name, value)


def _read(file: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return a checkpoint's plain state, its tensors and optimizer, and its settings."""
    try:
        record: dict[str, Any] = torch.load(file, weights_only=True)
        settings = json.loads(record.pop("settings"))
        parts = {name: record.pop(name) for name in ("tensors", "optimizer")}
    except Exception as error:  # a file that was cut or is another's fails in many ways
        raise BadInput(
            f"{file} cannot be read as a checkpoint ({type(error).__name__}); remove it to start"
        ) from None
    return record, parts, settings

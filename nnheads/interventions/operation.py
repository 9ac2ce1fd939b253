"""What every operation is: a frozen value whose fields are checked when it is made.

Its numbers are constants, tensors, or names of tensors in `Intervention.tensors`; edits that name
the same tensor share it. A tensor that is given itself is named by the intervention that the edit
becomes part of. A value that a field cannot hold raises BadInput.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch

from nnheads.errors import BadInput
from nnheads.interventions.fields import CHECKS, Check
from nnheads.interventions.held import Held
from nnheads.interventions.plain_values import plain_value


@dataclass(frozen=True)
class Operation:
    """What is done with the chosen features.

    Raises:
        BadInput: a value that its field cannot hold.
    """

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):
            given = getattr(self, entry.name)
            if isinstance(given, torch.Tensor) and given.ndim == 0 and given.is_floating_point():
                given = given.item()
            held = Held.of(given) if entry.metadata.get("tensor") else None
            if held is not None:
                object.__setattr__(self, entry.name, held)
                continue
            value = plain_value(given)
            object.__setattr__(self, entry.name, value)
            self._check_field(entry.name, CHECKS[str(entry.type)])
        self._check_ranges()

    def _check_field(self, name: str, check: tuple[Check, str]) -> None:
        fits, wanted = check
        value = getattr(self, name)
        if not fits(value):
            shown = f"a {type(value).__name__}" if hasattr(value, "shape") else repr(value)
            raise BadInput(f"{name} of {self.name} is {shown}; expected {wanted}")

    def _check_ranges(self) -> None:
        source, temperature = getattr(self, "source", 0), getattr(self, "temperature", 1.0)
        if source < 0:
            raise BadInput(f"source {source} is not possible; sources count from 0")
        if temperature <= 0:
            raise BadInput(
                f"temperature {temperature} of {self.name} is not possible; it must be above 0"
            )

    @property
    def name(self) -> str:
        """The operation's name in files and messages: its class in lower case."""
        return type(self).__name__.lower()

    @property
    def tensors(self) -> tuple[str, ...]:
        """The names of the tensors that it needs."""
        marked = [entry for entry in dataclasses.fields(self) if entry.metadata.get("tensor")]
        values = [getattr(self, entry.name) for entry in marked]
        return tuple(value for value in values if isinstance(value, str))

    @property
    def held(self) -> dict[str, torch.Tensor]:
        """The tensors that it was given themselves, by the field that holds them."""
        values = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        return {name: value.tensor for name, value in values.items() if isinstance(value, Held)}


def tensor_field(**options: Any) -> Any:
    """Declare a field that holds a number or the name of a tensor."""
    return field(metadata={"tensor": True}, **options)

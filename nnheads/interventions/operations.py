"""What can be done at a site, as data. `trace.operations` says how it is computed.

An operation gets the chosen features [row, position, feature] and gives new ones. Its numbers are
constants, tensors, or names of tensors in `Intervention.tensors`; edits that name the same tensor
share it. A tensor that is given itself is named by the intervention that the edit becomes part of.
A value that a field cannot hold raises BadInput.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from nnheads.errors import BadInput
from nnheads.interventions.fields import CHECKS, Check
from nnheads.interventions.held import Held
from nnheads.interventions.plain_values import plain_value
from nnheads.interventions.positions import At


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


def _tensor(**options: Any) -> Any:
    """Declare a field that holds a number or the name of a tensor."""
    return field(metadata={"tensor": True}, **options)


@dataclass(frozen=True)
class Zero(Operation):
    """Give 0."""


@dataclass(frozen=True)
class Set(Operation):
    """Give value."""

    value: str | float = _tensor()


@dataclass(frozen=True)
class Mean(Operation):
    """Give value, which is a mean over a prompt set."""

    value: str = _tensor()


@dataclass(frozen=True)
class Add(Operation):
    """Give base + scale * value."""

    value: str | float = _tensor()
    scale: float = 1.0


@dataclass(frozen=True)
class Subtract(Operation):
    """Give base - scale * value."""

    value: str | float = _tensor()
    scale: float = 1.0


@dataclass(frozen=True)
class Scale(Operation):
    """Give factor * base."""

    factor: float = 1.0


@dataclass(frozen=True)
class Noise(Operation):
    """Give base + level * a standard normal draw, the same for the same seed."""

    level: float = 0.1346
    seed: int = 0


@dataclass(frozen=True)
class Collect(Operation):
    """Give base, and return the features under `key`; with `mean` their mean over its positions."""

    key: str = "collected"
    mean: bool = False


@dataclass(frozen=True)
class Function(Operation):
    """Give what your own function makes of base: a function, or its path `package.module:name`.

    `sha256` of its source is filled in when it is saved.
    """

    function: str | Callable
    sha256: str = field(default="", compare=False)


@dataclass(frozen=True)
class FromSource(Operation):
    """An operation that takes features from a source run.

    Args:
        source: number of the source, from 0.
        source_at: positions in it; None: those of the edit.
    """

    source: int = 0
    source_at: At | None = None


@dataclass(frozen=True)
class Interchange(FromSource):
    """Give source."""


@dataclass(frozen=True)
class AddSource(FromSource):
    """Give base + scale * source."""

    scale: float = 1.0


@dataclass(frozen=True)
class Rotate(FromSource):
    """Give base + (source - base) R R^T: the part in the span of R comes from the source.

    Args:
        rotation: the tensor R [feature, direction].
        columns: only these directions.
    """

    rotation: str = _tensor(default="rotation")
    columns: tuple[int, ...] | None = None


@dataclass(frozen=True)
class LowRank(Rotate):
    """Rotate with fewer directions than features."""


@dataclass(frozen=True)
class PCA(Rotate):
    """Rotate with principal components as directions."""


@dataclass(frozen=True)
class Boundless(FromSource):
    """Rotate with a weight for each direction, 1 up to a learned boundary and 0 beyond.

    Args:
        boundary: a share of the directions.
        temperature: how soft the boundary is.
    """

    rotation: str = _tensor(default="rotation")
    boundary: str = _tensor(default="boundary")
    temperature: float = 50.0


@dataclass(frozen=True)
class Mask(FromSource):
    """Give base + sigmoid(mask / temperature) * (source - base).

    The mask weighs each feature, or each column of `rotation`.
    """

    mask: str = _tensor(default="mask")
    temperature: float = 1.0
    rotation: str | None = _tensor(default=None)


@dataclass(frozen=True)
class Combine(FromSource):
    """Give what your own function makes of (base, source)."""

    function: str | Callable = ""
    sha256: str = field(default="", compare=False)


_KINDS = (
    Zero,
    Set,
    Mean,
    Add,
    Subtract,
    Scale,
    Noise,
    Collect,
    Function,
    Interchange,
    AddSource,
    Rotate,
    LowRank,
    PCA,
    Boundless,
    Mask,
    Combine,
)
OPERATIONS: dict[str, type[Operation]] = {kind.__name__.lower(): kind for kind in _KINDS}

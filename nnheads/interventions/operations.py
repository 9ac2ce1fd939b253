"""What can be done at a site, as data. `trace.operations` says how it is computed.

An operation gets the chosen features [row, position, feature] and gives new ones. What its fields
may hold is said in `operation`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from nnheads.interventions.operation import Operation, tensor_field
from nnheads.interventions.positions import At


@dataclass(frozen=True)
class Zero(Operation):
    """Give 0."""


@dataclass(frozen=True)
class Set(Operation):
    """Give value."""

    value: str | float = tensor_field()


@dataclass(frozen=True)
class Mean(Operation):
    """Give value, which is a mean over a prompt set."""

    value: str = tensor_field()


@dataclass(frozen=True)
class Add(Operation):
    """Give base + scale * value."""

    value: str | float = tensor_field()
    scale: float = 1.0


@dataclass(frozen=True)
class Subtract(Operation):
    """Give base - scale * value."""

    value: str | float = tensor_field()
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

    rotation: str = tensor_field(default="rotation")
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

    rotation: str = tensor_field(default="rotation")
    boundary: str = tensor_field(default="boundary")
    temperature: float = 50.0


@dataclass(frozen=True)
class Mask(FromSource):
    """Give base + sigmoid(mask / temperature) * (source - base).

    The mask weighs each feature, or each column of `rotation`.
    """

    mask: str = tensor_field(default="mask")
    temperature: float = 1.0
    rotation: str | None = tensor_field(default=None)


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

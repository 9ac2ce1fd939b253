"""What can be done at a site, as data. `operations.py` says how.

An operation gets the chosen features [row, position, feature] and gives new ones. Its numbers are
constants or names of tensors in `Intervention.tensors`; edits that name the same tensor share it.
"""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Callable
from dataclasses import dataclass, field

from nnheads.errors import BadInput

PLACES = {
    "all": "every position",
    "index": "these positions, counted from each prompt's first token, or from its end if negative",
    "slice": "from one position to before another",
    "role": "where the prompts have this role",
    "prompt": "every token of the prompt",
    "answer": "every token after the prompt, given or written",
    "answering": (
        "the last token of the prompt and every token after it: those that the answer is predicted"
        " from"
    ),
    "decode": "every token that is written",
    "steps": "these steps of writing, from 0",
}


def is_whole(value) -> bool:
    """A whole number of any type, NumPy's too, and not a truth value."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_number(value) -> bool:
    """A real number of any type, and not a truth value."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def plain(value):
    """Numbers as Python's own, lists as tuples, also inside; all else as it is.

    Other numbers cannot be saved.
    """
    if isinstance(value, (list, tuple)):
        return tuple(map(plain, value))
    if is_whole(value):
        return int(value)
    return float(value) if is_number(value) else value


@dataclass(frozen=True)
class At:
    """Positions: a key of PLACES, and its values."""

    kind: str
    values: tuple = ()

    def __post_init__(self):
        if self.kind not in PLACES:
            raise BadInput(f"position {self.kind!r} is not known; use one of {', '.join(PLACES)}")
        object.__setattr__(self, "values", plain(tuple(self.values)))
        fits = {
            "index": lambda value: is_whole(value),
            "slice": lambda value: value is None or is_whole(value),
            "role": lambda value: isinstance(value, str),
            "steps": lambda value: is_whole(value),
        }.get(self.kind, lambda value: False)
        counts = {
            "slice": (2,),
            "role": (1,),
            "index": range(1, 10**9),
            "steps": range(1, 10**9),
        }.get(self.kind, (0,))
        if len(self.values) not in counts or not all(fits(value) for value in self.values):
            raise BadInput(
                f"position {self.kind!r} cannot be {self.values!r}; it means {PLACES[self.kind]}"
            )
        if self.kind == "steps" and min(self.values) < 0:
            raise BadInput(f"step {min(self.values)} is not possible; steps count from 0")


ALL, PROMPT, ANSWER, ANSWERING, DECODE = map(At, ("all", "prompt", "answer", "answering", "decode"))


def index(*positions: int) -> At:
    return At("index", positions)


def span(first: int | None, last: int | None) -> At:
    return At("slice", (first, last))


def role(name: str) -> At:
    return At("role", (name,))


def steps(*numbers: int) -> At:
    return At("steps", numbers)


# how a field's annotation is checked: what it may hold, and how that is said
CHECKS: dict[str, tuple[Callable, str]] = {
    "int": (is_whole, "a whole number"),
    "float": (is_number, "a number"),
    "str": (lambda value: isinstance(value, str), "text"),
    "bool": (lambda value: isinstance(value, bool), "True or False"),
    "str | float": (
        lambda value: is_number(value) or isinstance(value, str),
        (
            "a number or the name of a tensor (give the tensor itself in Intervention(...,"
            " tensors={name: tensor}))"
        ),
    ),
    "str | None": (
        lambda value: value is None or isinstance(value, str),
        "the name of a tensor or None",
    ),
    "At | None": (lambda value: value is None or isinstance(value, At), "positions or None"),
    "tuple[int, ...] | None": (
        lambda value: (
            value is None
            or (isinstance(value, tuple) and bool(value) and all(map(is_whole, value)))
        ),
        "a tuple of whole numbers or None",
    ),
    "str | Callable": (
        lambda value: callable(value) or (isinstance(value, str) and all(value.partition(":"))),
        "a function or its import path, such as 'package.module:name'",
    ),
}


@dataclass(frozen=True)
class Operation:
    """What is done with the chosen features."""

    def __post_init__(self):
        for entry in dataclasses.fields(self):
            fits, wanted = CHECKS[str(entry.type)]
            value = plain(getattr(self, entry.name))
            object.__setattr__(self, entry.name, value)
            if not fits(value):
                shown = f"a {type(value).__name__}" if hasattr(value, "shape") else repr(value)
                raise BadInput(f"{entry.name} of {self.name} is {shown}; expected {wanted}")
        if getattr(self, "source", 0) < 0:
            raise BadInput(
                f"source {getattr(self, 'source', 0)} is not possible; sources count from 0"
            )
        if getattr(self, "temperature", 1.0) <= 0:
            raise BadInput(
                f"temperature {getattr(self, 'temperature', 1.0)} of {self.name} is not possible;"
                " above 0 is"
            )

    @property
    def name(self) -> str:
        return type(self).__name__.lower()

    @property
    def tensors(self) -> tuple[str, ...]:
        """The named tensors that it needs."""
        named = (
            getattr(self, entry.name)
            for entry in dataclasses.fields(self)
            if entry.metadata.get("tensor")
        )
        return tuple(value for value in named if isinstance(value, str))


def _tensor(**options):
    """A field that holds a number or the name of a tensor."""
    return field(metadata={"tensor": True}, **options)


@dataclass(frozen=True)
class Zero(Operation):
    """0"""


@dataclass(frozen=True)
class Set(Operation):
    """value"""

    value: str | float = _tensor()


@dataclass(frozen=True)
class Mean(Operation):
    """value, which is a mean over a prompt set"""

    value: str = _tensor()


@dataclass(frozen=True)
class Add(Operation):
    """base + scale * value"""

    value: str | float = _tensor()
    scale: float = 1.0


@dataclass(frozen=True)
class Subtract(Operation):
    """base - scale * value"""

    value: str | float = _tensor()
    scale: float = 1.0


@dataclass(frozen=True)
class Scale(Operation):
    """factor * base"""

    factor: float = 1.0


@dataclass(frozen=True)
class Noise(Operation):
    """base + level * a standard normal draw, the same for the same seed"""

    level: float = 0.1346
    seed: int = 0


@dataclass(frozen=True)
class Collect(Operation):
    """base; the features are returned under `key`, with `mean` only their mean over its positions"""

    key: str = "collected"
    mean: bool = False


@dataclass(frozen=True)
class Function(Operation):
    """A function of your own from base to new features: itself, or as `package.module:name`.
    `sha256` of its source is filled in when it is saved."""

    function: str | Callable
    sha256: str = field(default="", compare=False)


@dataclass(frozen=True)
class FromSource(Operation):
    """An operation that takes features from a source run: which source, and at which positions of
    it (None: the positions of the edit)."""

    source: int = 0
    source_at: At | None = None


@dataclass(frozen=True)
class Interchange(FromSource):
    """source"""


@dataclass(frozen=True)
class AddSource(FromSource):
    """base + scale * source"""

    scale: float = 1.0


@dataclass(frozen=True)
class Rotate(FromSource):
    """base + (source - base) R R^T: the part in the span of R's columns [feature, direction] comes
    from the source.
    `columns`: only these directions."""

    rotation: str = _tensor(default="rotation")
    columns: tuple[int, ...] | None = None


@dataclass(frozen=True)
class LowRank(Rotate):
    """Rotate, with fewer directions than features"""


@dataclass(frozen=True)
class PCA(Rotate):
    """Rotate, with principal components as directions"""


@dataclass(frozen=True)
class Boundless(FromSource):
    """Rotate, each direction weighed: 1 up to a learned boundary (a share of the directions), 0
    beyond
    """

    rotation: str = _tensor(default="rotation")
    boundary: str = _tensor(default="boundary")
    temperature: float = 50.0


@dataclass(frozen=True)
class Mask(FromSource):
    """base + sigmoid(mask / temperature) * (source - base), feature by feature, or along the
    columns of `rotation`
    """

    mask: str = _tensor(default="mask")
    temperature: float = 1.0
    rotation: str | None = _tensor(default=None)


@dataclass(frozen=True)
class Combine(FromSource):
    """Function, from (base, source) to new features"""

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

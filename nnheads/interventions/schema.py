"""An edit to a model as a value: where, at which positions, what is done, with which numbers.

    Intervention(
        Edit("z", layer=9, units=(6,), at=role("END"), do=Interchange()),
        Edit("resid_post", layer=4, at=DECODE, do=Add("direction", scale=8.0)),
        tensors={"direction": vector},
    )

Everything is plain data: it can be compared, saved, shipped to a server and read by eye. What cannot be is refused
here, when it is written down, and not when it runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from nnheads.errors import BadInput

SITES = {
    "resid_pre": "residual stream before the block",
    "attn_in": "what attention reads",
    "q": "queries", "k": "keys", "v": "values",
    "pattern": "attention weights",
    "z": "head output before W_O",
    "attn_out": "what attention adds",
    "mlp_in": "what the feed-forward part reads",
    "mlp_hidden": "neurons of the feed-forward part",
    "mlp_out": "what the feed-forward part adds",
    "resid_post": "residual stream after the block",
    "input": "first input of the module at `path`",
    "output": "first output of the module at `path`",
}  # fmt: skip
BY_HEAD = ("z", "q", "pattern")
BY_KV_HEAD = ("k", "v")
PLACES = {
    "all": "every position",
    "index": "these positions, counted from each prompt's first token, or from its end if negative",
    "slice": "from one position to before another",
    "role": "where the prompts have this role",
    "prompt": "every token of the prompt",
    "answer": "every token after the prompt, given or written",
    "decode": "every token that is written",
    "steps": "these steps of writing, from 0",
}


@dataclass(frozen=True)
class At:
    """Positions: a key of PLACES, and its values."""

    kind: str
    values: tuple = ()

    def __post_init__(self):
        if self.kind not in PLACES:
            raise BadInput(f"position {self.kind!r} is not known; use one of {', '.join(PLACES)}")
        wanted = {"index": int, "slice": (int, type(None)), "role": str, "steps": int}.get(self.kind)
        sizes = {"slice": (2,), "role": (1,)}.get(self.kind)
        bad = [value for value in self.values if wanted is None or not isinstance(value, wanted)]
        if bad or (wanted and not self.values) or (sizes and len(self.values) not in sizes):
            raise BadInput(f"position {self.kind!r} cannot be {self.values!r}; it means {PLACES[self.kind]}")
        if self.kind == "steps" and min(self.values) < 0:
            raise BadInput(f"step {min(self.values)} is not possible; steps count from 0")


ALL, PROMPT, ANSWER, DECODE = At("all"), At("prompt"), At("answer"), At("decode")


def index(*positions: int) -> At:
    return At("index", positions)


def span(first: int | None, last: int | None) -> At:
    return At("slice", (first, last))


def role(name: str) -> At:
    return At("role", (name,))


def steps(*numbers: int) -> At:
    return At("steps", numbers)


@dataclass(frozen=True)
class Operation:
    """What is done with the chosen features [row, position, feature]. Names of tensors are keys of
    `Intervention.tensors`."""

    @property
    def name(self) -> str:
        return type(self).__name__.lower()

    @property
    def tensors(self) -> tuple[str, ...]:
        """The named tensors that it needs."""
        named = (getattr(self, entry.name) for entry in dataclasses.fields(self) if entry.metadata.get("tensor"))
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
    """base; the features are returned under `key`"""

    key: str = "collected"


@dataclass(frozen=True)
class FromSource(Operation):
    """An operation that takes features from a source run: which source, and at which positions of it (None: the
    positions of the edit)."""

    source: int = 0
    source_at: At | None = None


@dataclass(frozen=True)
class Interchange(FromSource):
    """source"""


@dataclass(frozen=True)
class Rotate(FromSource):
    """base + (source - base) R R^T: the part in the span of R's columns [feature, direction] comes from the source.
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
    """Rotate, each direction weighed: 1 up to a learned boundary (a share of the directions), 0 beyond"""

    rotation: str = _tensor(default="rotation")
    boundary: str = _tensor(default="boundary")
    temperature: float = 50.0


@dataclass(frozen=True)
class Mask(FromSource):
    """base + sigmoid(mask / temperature) * (source - base)"""

    mask: str = _tensor(default="mask")
    temperature: float = 1.0


@dataclass(frozen=True)
class Function(FromSource):
    """A function of your own, `package.module:name`, from (base, source) to new features; `sha256` of its source"""

    function: str = ""
    sha256: str = ""


_KINDS = (
    Zero, Set, Mean, Add, Subtract, Scale, Noise, Collect, Interchange, Rotate, LowRank, PCA, Boundless, Mask, Function,
)  # fmt: skip
OPERATIONS: dict[str, type[Operation]] = {kind.__name__.lower(): kind for kind in _KINDS}


@dataclass(frozen=True)
class Edit:
    """One operation at one site.

    Args:
        site: a key of SITES. layer: for all sites of a block. path: the module of sites "input" and "output".
        do: the operation.
        units: heads (z, q, pattern) or key/value heads (k, v); None: all of them.
        neurons: features of the site's width, in each unit; None: all of them.
        at: positions.
    """

    site: str
    do: Operation
    layer: int | None = None
    units: tuple[int, ...] | None = None
    neurons: tuple[int, ...] | None = None
    at: At = ALL
    path: str | None = None

    def __post_init__(self):
        if self.site not in SITES:
            raise BadInput(f"site {self.site!r} is not known; use one of {', '.join(SITES)}")
        by_path = self.site in ("input", "output")
        if by_path != (self.path is not None) or by_path == (self.layer is not None):
            wants = "a path and no layer" if by_path else "a layer and no path"
            raise BadInput(f"site {self.site} takes {wants}, got layer {self.layer} and path {self.path!r}")
        if self.layer is not None and self.layer < 0:
            raise BadInput(f"layer {self.layer} is not possible; layers count from 0")
        if not isinstance(self.do, Operation) or type(self.do) in (Operation, FromSource):
            raise BadInput(f"{self.do!r} is no operation; use one of {', '.join(OPERATIONS)}")
        for name in ("units", "neurons"):
            chosen = getattr(self, name)
            if chosen is not None and (not chosen or len(set(chosen)) != len(chosen) or min(chosen) < 0):
                raise BadInput(f"{name} {chosen!r} are not possible; name each once, from 0, or leave them out for all")
        if self.units is not None and self.site not in BY_HEAD + BY_KV_HEAD:
            raise BadInput(
                f"site {self.site} has no heads; leave units out, or use one of {', '.join(BY_HEAD + BY_KV_HEAD)}"
            )
        if self.site == "pattern" and self.neurons is not None:
            raise BadInput("an attention pattern has keys and no neurons; leave neurons out")


@dataclass(frozen=True)
class Intervention:
    """Edits that belong together, and the tensors that they name. Edits that name the same tensor share it.

    mode: "parallel" takes every source as it is; "serial" runs source 1 with what comes from source 0 already in place,
    and so on, and the base with the last.
    """

    edits: tuple[Edit, ...]
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    mode: str = "parallel"

    def __init__(self, *edits: Edit, tensors: Mapping[str, torch.Tensor] | None = None, mode: str = "parallel"):
        object.__setattr__(self, "edits", tuple(edits))
        object.__setattr__(self, "tensors", dict(tensors or {}))
        object.__setattr__(self, "mode", mode)
        self.__post_init__()

    def __post_init__(self):
        if self.mode not in ("parallel", "serial"):
            raise BadInput(f"mode {self.mode!r} is not known; use parallel or serial")
        for edit in self.edits:
            for name in edit.do.tensors:
                if name not in self.tensors:
                    known = ", ".join(self.tensors) or "none"
                    raise BadInput(f"{edit.do.name} needs a tensor {name!r}; given: {known}")
        numbers = sorted({edit.do.source for edit in self.edits if isinstance(edit.do, FromSource)})
        if numbers != list(range(len(numbers))):
            raise BadInput(f"sources {numbers} leave numbers out; count them from 0")
        for edit in self.edits:
            check_shapes(edit, self.tensors)

    @property
    def sources(self) -> int:
        """How many source runs it takes."""
        return len({edit.do.source for edit in self.edits if isinstance(edit.do, FromSource)})


def check_shapes(edit: Edit, tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse rotations that are no matrices, and more directions than features."""
    rotation = getattr(edit.do, "rotation", None)
    if rotation is None:
        return
    shape = tuple(tensors[rotation].shape)
    if len(shape) != 2 or shape[1] > shape[0]:
        raise BadInput(f"rotation {rotation!r} has shape {shape}; expected [feature, direction], no more directions")
    if isinstance(edit.do, LowRank) and shape[1] == shape[0]:
        raise BadInput(f"rotation {rotation!r} has as many directions as features; low rank means fewer")
    if isinstance(edit.do, Rotate) and edit.do.columns is not None and max(edit.do.columns) >= shape[1]:
        raise BadInput(f"direction {max(edit.do.columns)} does not exist; {rotation!r} has {shape[1]}")

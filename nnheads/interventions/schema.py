"""An edit to a model as a value: where, at which positions, what is done, with which numbers.

    Intervention(
        Edit("z", layer=9, units=(6,), at=role("END"), do=Interchange()),
        Edit("resid_post", layer=4, at=DECODE, do=Add("direction", scale=8.0)),
        tensors={"direction": vector},
    )

Everything is plain data: it can be compared, saved, shipped to a server and read by eye. What
    cannot be is refused
here, when it is written down, and not when it runs. The operations are in `kinds.py` and may be
imported from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from nnheads.errors import BadInput
from nnheads.interventions.operations import (
    ALL,
    ANSWER,
    ANSWERING,
    DECODE,
    OPERATIONS,
    PCA,
    PLACES,
    PROMPT,
    Add,
    AddSource,
    At,
    Boundless,
    Collect,
    Combine,
    FromSource,
    Function,
    Interchange,
    LowRank,
    Mask,
    Mean,
    Noise,
    Operation,
    Rotate,
    Scale,
    Set,
    Subtract,
    Zero,
    index,
    is_whole,
    plain,
    role,
    span,
    steps,
)
from nnheads.trace.sites import SITES as BLOCK_SITES
from nnheads.trace.sites import UNITS

__all__ = [
    "ALL",
    "ANSWER",
    "ANSWERING",
    "DECODE",
    "OPERATIONS",
    "PCA",
    "PLACES",
    "PROMPT",
    "SITES",
    "Add",
    "AddSource",
    "At",
    "Boundless",
    "Collect",
    "Combine",
    "Edit",
    "FromSource",
    "Function",
    "Interchange",
    "Intervention",
    "LowRank",
    "Mask",
    "Mean",
    "Noise",
    "Operation",
    "Rotate",
    "Scale",
    "Set",
    "Subtract",
    "Zero",
    "index",
    "role",
    "span",
    "steps",
]

SITES = {name: row["meaning"] for name, row in BLOCK_SITES.items()} | {
    "input": "first input of the module at `path`",
    "output": "first output of the module at `path`",
}
BY_HEAD = tuple(name for name, unit in UNITS.items() if unit == "head")
BY_KV_HEAD = tuple(name for name, unit in UNITS.items() if unit == "kv_head")


@dataclass(frozen=True)
class Edit:
    """One operation at one site.

    Args:
        site: a key of SITES. layer: for all sites of a block. path: the module of sites "input" and
            "output".
        do: the operation.
        units: heads (z, q, pattern) or key/value heads (k, v); None: all of them.
        neurons: features of the site's width, in each unit; None: all of them.
        at: positions.

    Raises:
        BadInput: a site, a place or a choice that no model could have.
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
            raise BadInput(
                f"site {self.site} takes {wants}, got layer {self.layer} and path {self.path!r}"
            )
        if self.layer is not None and (not is_whole(self.layer) or self.layer < 0):
            raise BadInput(f"layer {self.layer!r} is not possible; layers count from 0")
        if self.path is not None and (
            not isinstance(self.path, str) or not all(self.path.split("."))
        ):
            raise BadInput(
                f"path {self.path!r} is not possible; expected names with dots, such as"
                " model.layers.3.mlp"
            )
        if not isinstance(self.do, Operation) or type(self.do) in (Operation, FromSource):
            raise BadInput(f"{self.do!r} is no operation; use one of {', '.join(OPERATIONS)}")
        if not isinstance(self.at, At):
            raise BadInput(
                f"{self.at!r} are no positions; use ALL, PROMPT, ANSWER, ANSWERING, DECODE, index,"
                " span, role or steps"
            )
        object.__setattr__(self, "layer", plain(self.layer))
        for name in ("units", "neurons"):
            self._check_choice(name)
        if self.units is not None and self.site not in BY_HEAD + BY_KV_HEAD:
            raise BadInput(
                f"site {self.site} has no heads; leave units out, or use one of"
                f" {', '.join(BY_HEAD + BY_KV_HEAD)}"
            )
        if self.site == "pattern" and self.neurons is not None:
            raise BadInput("an attention pattern has keys and no neurons; leave neurons out")

    def _check_choice(self, name: str) -> None:
        chosen = getattr(self, name)
        if chosen is None:
            return
        chosen = (
            plain(tuple(chosen)) if isinstance(chosen, (list, tuple, range, np.ndarray)) else chosen
        )
        sound = isinstance(chosen, tuple) and bool(chosen) and all(map(is_whole, chosen))
        if not sound or len(set(chosen)) != len(chosen) or min(chosen) < 0:
            raise BadInput(
                f"{name} {chosen!r} are not possible; name each once, from 0, or leave them out"
                " for all"
            )
        object.__setattr__(self, name, chosen)


@dataclass(frozen=True, eq=False)
class Intervention:
    """Edits that belong together, and the tensors that they name. Edits that name the same tensor
    share it.

    mode: "parallel" takes every source as it is; "serial" runs source 1 with what comes from source
        0 already in place,
    and so on, and the base with the last.

    Raises:
        BadInput: tensors that are missing or cannot be what they are for, keys used twice, sources
            left out.
    """

    edits: tuple[Edit, ...]
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    mode: str = "parallel"

    def __init__(
        self,
        *edits: Edit,
        tensors: Mapping[str, torch.Tensor] | None = None,
        mode: str = "parallel",
    ):
        object.__setattr__(self, "edits", tuple(edits))
        object.__setattr__(self, "tensors", dict(tensors or {}))
        object.__setattr__(self, "mode", mode)
        self.__post_init__()

    def __post_init__(self):
        if self.mode not in ("parallel", "serial"):
            raise BadInput(f"mode {self.mode!r} is not known; use parallel or serial")
        for edit in self.edits:
            if not isinstance(edit, Edit):
                raise BadInput(f"{edit!r} is no Edit; an intervention is made of them")
        for name, tensor in self.tensors.items():
            if not isinstance(tensor, torch.Tensor):
                raise BadInput(
                    f"tensor {name!r} is a {type(tensor).__name__}; expected a torch.Tensor"
                )
        for edit in self.edits:
            for name in edit.do.tensors:
                if name not in self.tensors:
                    known = ", ".join(self.tensors) or "none"
                    raise BadInput(f"{edit.do.name} needs a tensor {name!r}; given: {known}")
        numbers = sorted({edit.do.source for edit in self.edits if isinstance(edit.do, FromSource)})
        if numbers != list(range(len(numbers))):
            raise BadInput(f"sources {numbers} leave numbers out; count them from 0")
        keys = [edit.do.key for edit in self.edits if isinstance(edit.do, Collect)]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise BadInput(f"{twice!r} is collected twice; give each collection a key of its own")
        for edit in self.edits:
            check_shapes(edit, self.tensors)

    def __eq__(self, other) -> bool:
        if not isinstance(other, Intervention):
            return NotImplemented
        same = (
            self.edits == other.edits
            and self.mode == other.mode
            and self.tensors.keys() == other.tensors.keys()
        )
        return same and all(
            tensor.dtype == other.tensors[name].dtype and torch.equal(tensor, other.tensors[name])
            for name, tensor in self.tensors.items()
        )

    __hash__ = None  # type: ignore[assignment]  # tensors can change

    @property
    def sources(self) -> int:
        """How many source runs it takes."""
        return len({edit.do.source for edit in self.edits if isinstance(edit.do, FromSource)})


def check_shapes(edit: Edit, tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse rotations that are no matrices, more directions than features, and masks that do not
    go with them.
    """
    do = edit.do
    if isinstance(do, Boundless) and tensors[do.boundary].numel() != 1:
        raise BadInput(
            f"boundary {do.boundary!r} has shape {tuple(tensors[do.boundary].shape)}; expected one"
            " number"
        )
    if isinstance(do, Mask) and tensors[do.mask].dim() > 1:
        raise BadInput(
            f"mask {do.mask!r} has shape {tuple(tensors[do.mask].shape)}; expected a number for"
            " each feature"
        )
    rotation = getattr(do, "rotation", None)
    if rotation is None:
        return
    shape = tuple(tensors[rotation].shape)
    if len(shape) != 2 or shape[1] > shape[0]:
        raise BadInput(
            f"rotation {rotation!r} has shape {shape}; expected [feature, direction], no more"
            " directions"
        )
    if isinstance(do, LowRank) and shape[1] == shape[0]:
        raise BadInput(
            f"rotation {rotation!r} has as many directions as features; low rank means fewer"
        )
    if isinstance(do, Rotate) and do.columns is not None:
        wrong = [column for column in do.columns if not 0 <= column < shape[1]]
        if wrong:
            raise BadInput(f"direction {wrong[0]} does not exist; {rotation!r} has {shape[1]}")
    if isinstance(do, Mask) and tensors[do.mask].numel() not in (1, shape[1]):
        raise BadInput(
            f"mask {do.mask!r} has {tensors[do.mask].numel()} numbers; {rotation!r} has {shape[1]}"
            " directions"
        )

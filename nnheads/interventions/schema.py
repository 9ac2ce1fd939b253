"""An edit to a model as a value: where, at which positions, what is done, with which numbers.

    Intervention(
        Edit("z", layer=9, units=(6,), at=role("END"), do=Interchange()),
        Edit("resid_post", layer=4, at=DECODE, do=Add("direction", scale=8.0)),
        tensors={"direction": vector},
    )

Everything is plain data: it can be compared, saved, shipped to a server and read by eye. What
cannot be is refused here, with BadInput, when it is written down, and not when it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from nnheads.errors import BadInput
from nnheads.interventions.names import with_names
from nnheads.interventions.operation import Operation
from nnheads.interventions.operations import OPERATIONS, Collect, FromSource
from nnheads.interventions.plain_values import is_numbers, is_whole, plain_value
from nnheads.interventions.positions import ALL, At
from nnheads.interventions.shapes import check_shapes
from nnheads.models.names import check_site
from nnheads.trace.sites import SITES as BLOCK_SITES
from nnheads.trace.sites import UNITS

SITES = {name: row["meaning"] for name, row in BLOCK_SITES.items()} | {
    "input": "first input of the module at `path`",
    "output": "first output of the module at `path`",
}
BY_HEAD = tuple(name for name, unit in UNITS.items() if unit == "head")
BY_KV_HEAD = tuple(name for name, unit in UNITS.items() if unit == "kv_head")
BY_PATH = ("input", "output")


@dataclass(frozen=True)
class Edit:
    """One operation at one site.

    Args:
        site: a key of SITES.
        do: the operation.
        layer: for all sites of a block.
        units: heads (z, q, pattern) or key/value heads (k, v); None: all of them.
        neurons: features of the site's width, in each unit; None: all of them.
        at: positions.
        path: the module of sites "input" and "output".

    Raises:
        BadInput: a site, a position or a choice that no model could have.
    """

    site: str
    do: Operation
    layer: int | None = None
    units: tuple[int, ...] | None = None
    neurons: tuple[int, ...] | None = None
    at: At = ALL
    path: str | None = None

    def __post_init__(self) -> None:
        self._check_site()
        self._check_layer_and_path()
        self._check_operation()
        object.__setattr__(self, "layer", plain_value(self.layer))
        object.__setattr__(self, "units", _chosen("units", self.units))
        object.__setattr__(self, "neurons", _chosen("neurons", self.neurons))
        self._check_choice_fits_site()

    def _check_site(self) -> None:
        check_site(self.site, SITES)
        by_path = self.site in BY_PATH
        if by_path != (self.path is not None) or by_path == (self.layer is not None):
            wants = "a path and no layer" if by_path else "a layer and no path"
            raise BadInput(
                f"site {self.site} takes {wants}, got layer {self.layer} and path {self.path!r}"
            )

    def _check_layer_and_path(self) -> None:
        layer, path = self.layer, self.path
        if layer is not None and (not is_whole(layer) or layer < 0):
            raise BadInput(f"layer {layer!r} is not possible; layers count from 0")
        if path is not None and (not isinstance(path, str) or (path and not all(path.split(".")))):
            raise BadInput(
                f"path {path!r} is not possible; expected names with dots, such as"
                " model.layers.3.mlp, or nothing for the whole module"
            )

    def _check_operation(self) -> None:
        if not isinstance(self.do, Operation) or type(self.do) in (Operation, FromSource):
            raise BadInput(f"{self.do!r} is no operation; use one of {', '.join(OPERATIONS)}")
        if not isinstance(self.at, At):
            raise BadInput(
                f"{self.at!r} are no positions; use ALL, PROMPT, ANSWER, ANSWERING, DECODE, index,"
                " span, role or steps"
            )

    def _check_choice_fits_site(self) -> None:
        if self.units is not None and self.site not in BY_HEAD + BY_KV_HEAD:
            raise BadInput(
                f"site {self.site} has no heads; leave units out, or use one of"
                f" {', '.join(BY_HEAD + BY_KV_HEAD)}"
            )
        if self.site == "pattern" and self.neurons is not None:
            raise BadInput("an attention pattern has keys and no neurons; leave neurons out")


def _chosen(name: str, numbers) -> tuple[int, ...] | None:
    """Return chosen units or neurons as a tuple, or refuse them."""
    if numbers is None:
        return None
    if isinstance(numbers, (list, tuple, range, np.ndarray)):
        numbers = plain_value(tuple(numbers))
    if not is_numbers(numbers) or len(set(numbers)) != len(numbers) or min(numbers) < 0:
        raise BadInput(
            f"{name} {numbers!r} are not possible; name each once, from 0, or leave them out"
            " for all"
        )
    return numbers


@dataclass(frozen=True, eq=False)
class Intervention:
    """Edits that belong together, and the tensors that they name.

    Edits that name the same tensor share it.

    Args:
        mode: "parallel" takes every source as it is; "serial" runs source 1 with what comes from
            source 0 already in place, and so on, and the base with the last.

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
    ) -> None:
        named = dict(tensors or {})
        object.__setattr__(self, "edits", with_names(edits, named))
        object.__setattr__(self, "tensors", named)
        object.__setattr__(self, "mode", mode)
        self._check_kinds()
        self._check_tensors_are_there()
        self._check_sources()
        self._check_keys()
        for edit in self.edits:
            check_shapes(edit.do, self.tensors)

    def _check_kinds(self) -> None:
        if self.mode not in ("parallel", "serial"):
            raise BadInput(f"mode {self.mode!r} is not known; use parallel or serial")
        for edit in self.edits:
            if not isinstance(edit, Edit):
                raise BadInput(f"{edit!r} is no Edit; an intervention is made of them")
        for name, tensor in self.tensors.items():
            if not isinstance(tensor, torch.Tensor):
                kind = type(tensor).__name__
                raise BadInput(f"tensor {name!r} is a {kind}; expected a torch.Tensor")

    def _check_tensors_are_there(self) -> None:
        for edit in self.edits:
            missing = [name for name in edit.do.tensors if name not in self.tensors]
            if missing:
                known = ", ".join(self.tensors) or "none"
                raise BadInput(f"{edit.do.name} needs a tensor {missing[0]!r}; got: {known}")

    def _check_sources(self) -> None:
        numbers = self._source_numbers()
        if numbers != list(range(len(numbers))):
            raise BadInput(f"sources {numbers} leave numbers out; count them from 0")

    def _check_keys(self) -> None:
        keys = [edit.do.key for edit in self.edits if isinstance(edit.do, Collect)]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise BadInput(f"{twice!r} is collected twice; give each collection a key of its own")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Intervention):
            return NotImplemented
        if self.edits != other.edits or self.mode != other.mode:
            return False
        if self.tensors.keys() != other.tensors.keys():
            return False
        pairs = [(tensor, other.tensors[name]) for name, tensor in self.tensors.items()]
        return all(
            mine.dtype == theirs.dtype and torch.equal(mine, theirs) for mine, theirs in pairs
        )

    __hash__ = None  # type: ignore[assignment]  # tensors can change

    @property
    def sources(self) -> int:
        """How many source runs it takes."""
        return len(self._source_numbers())

    def _source_numbers(self) -> list[int]:
        return sorted({edit.do.source for edit in self.edits if isinstance(edit.do, FromSource)})

    def with_tensors(self, tensors: Mapping[str, torch.Tensor]) -> Intervention:
        """Return the same edits with other tensors."""
        return Intervention(*self.edits, tensors=tensors, mode=self.mode)

"""A published claim as data: one number, who says it, and how it is measured.

The fields are those of the file, which `nnheads.claims` describes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

KINDS = {"value": "=", "at_least": ">=", "at_most": "<="}
REDUCTIONS = ("mean", "min", "max", "sum")
OVER_HEADS = ("among_top", "among_bottom")
ABOVE = ("count_above", "share_above")
Grid = Float[np.ndarray, "layer head"]


@dataclass(frozen=True)
class Claim:
    """One published number and how it is measured; heads in `where` are (layer, head)."""

    id: str
    claim: str
    source: str
    kind: str
    published: float
    tolerance: float
    warn: float
    negative: bool
    how: dict[str, Any]
    where: dict[str, Any]
    requires: str = ""

    @property
    def run(self) -> str:
        """What claims have in common that one measurement serves."""
        return json.dumps(self.how, sort_keys=True)


@dataclass(frozen=True)
class Claims:
    """A file of claims. grids: name -> [layer, head]."""

    model: str
    claims: tuple[Claim, ...]
    aliases: tuple[str, ...] = ()
    note: str = ""
    grids: dict[str, Grid] = field(default_factory=dict)

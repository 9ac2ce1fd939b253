"""Mechanism 3: an edit to a model as a value. It can be run, saved, shared, generated with and trained.

from nnheads.interventions import Edit, Interchange, Intervention, index, run

swap = Intervention(Edit("z", Interchange(), layer=9, units=(6,), at=index(-1)))
result = run(model, swap, base, [source])      # result.original, result.edited, result.collected
"""

from __future__ import annotations

from nnheads.interventions.files import load, push, save
from nnheads.interventions.generate import generate
from nnheads.interventions.module import as_module
from nnheads.interventions.paths import direct_path
from nnheads.interventions.pyvene import read_pyvene
from nnheads.interventions.run import run
from nnheads.interventions.schema import (
    ALL,
    ANSWER,
    DECODE,
    PCA,
    PROMPT,
    Add,
    AddSource,
    Boundless,
    Collect,
    Combine,
    Edit,
    Function,
    Interchange,
    Intervention,
    LowRank,
    Mask,
    Mean,
    Noise,
    Rotate,
    Scale,
    Set,
    Subtract,
    Zero,
    index,
    role,
    span,
    steps,
)

__all__ = [
    "ALL", "ANSWER", "DECODE", "PCA", "PROMPT", "Add", "AddSource", "Boundless", "Collect", "Combine", "Edit",
    "Function", "Interchange", "Intervention", "LowRank", "Mask", "Mean", "Noise", "Rotate", "Scale", "Set",
    "Subtract", "Zero", "as_module", "direct_path", "generate", "index", "load", "push", "read_pyvene", "role", "run",
    "save", "span", "steps",
]  # fmt: skip

"""Mechanism 3: an edit to a model as a value, to be run, saved, shared, generated with, trained.

    from nnheads.interventions import Edit, Interchange, Intervention, index, run

    swap = Intervention(Edit("z", Interchange(), layer=9, units=(6,), at=index(-1)))
    result = run(model, swap, base, [source])  # result.original, result.edited, result.collected

Where a network holds a variable of a causal model, as directions that are trained and then used
like any other edit:

    start = aligned("resid_post", 4, index(-1), features=768, directions=1)
    found, log = train(model, start, Pairs(base, [source], answer))  # answer: the causal model's
    accuracy = evaluate(model, found, others)["score"].mean()  # beside: random_directions(found)

What a model or a text does not have raises BadInput, in one line, before anything runs.
"""

from __future__ import annotations

from nnheads.interventions.alignment import aligned, random_directions
from nnheads.interventions.alignment import evaluate as _evaluate
from nnheads.interventions.apply import run as _run
from nnheads.interventions.causal_model import CausalModel, draw_counterfactuals
from nnheads.interventions.counterfactuals import Pairs
from nnheads.interventions.direct_path import direct_path
from nnheads.interventions.files import load, push, save
from nnheads.interventions.generate import generate as _generate
from nnheads.interventions.module import as_module
from nnheads.interventions.operations import (
    PCA,
    Add,
    AddSource,
    Boundless,
    Collect,
    Combine,
    Function,
    Interchange,
    LowRank,
    Mask,
    Mean,
    Noise,
    Rotate,
    Scale,
    Set,
    Subtract,
    Zero,
)
from nnheads.interventions.positions import (
    ALL,
    ANSWER,
    ANSWERING,
    DECODE,
    PROMPT,
    index,
    role,
    span,
    steps,
)
from nnheads.interventions.pyvene_folders import read_pyvene
from nnheads.interventions.schema import Edit, Intervention
from nnheads.interventions.training import train as _train
from nnheads.remote.place import refusing_remote

__all__ = [
    "ALL",
    "ANSWER",
    "ANSWERING",
    "DECODE",
    "PCA",
    "PROMPT",
    "Add",
    "AddSource",
    "Boundless",
    "CausalModel",
    "Collect",
    "Combine",
    "Edit",
    "Function",
    "Interchange",
    "Intervention",
    "LowRank",
    "Mask",
    "Mean",
    "Noise",
    "Pairs",
    "Rotate",
    "Scale",
    "Set",
    "Subtract",
    "Zero",
    "aligned",
    "as_module",
    "direct_path",
    "draw_counterfactuals",
    "evaluate",
    "generate",
    "index",
    "load",
    "push",
    "random_directions",
    "read_pyvene",
    "role",
    "run",
    "save",
    "span",
    "steps",
    "train",
]

run = refusing_remote(_run)
generate = refusing_remote(_generate)
evaluate = refusing_remote(_evaluate)
train = refusing_remote(_train)

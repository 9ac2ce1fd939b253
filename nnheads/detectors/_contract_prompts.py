"""The part of the contract that needs no forward: what a head type says, and its prompts."""

from __future__ import annotations

import inspect
import re

import xarray as xr

from nnheads.detectors._catalog import head_type as value_of
from nnheads.detectors._catalog import types
from nnheads.detectors._compared import difference
from nnheads.detectors._head_type import HeadType
from nnheads.detectors._trial import Trial, broken
from nnheads.errors import BadInput
from nnheads.spans.nulls import NULL


def check_words(one: HeadType) -> None:
    """Check what a type says of itself."""
    ways = [way for way in ("span", "of_answers", "learn") if getattr(one, way) is not None]
    if not re.fullmatch(r"[a-z][a-z0-9_]*", str(one.name)):
        expected = "its name is lower-case letters, digits and _"
        raise broken(one, expected, f"It is {one.name!r}")
    if one.name in types() and one is not value_of(one.name):
        raise broken(one, "its name is its own", "A head type that ships has it")
    if len(ways) != 1:
        given = " and ".join(ways) or "none"
        raise broken(one, "it has one of span, of_answers and learn", f"It has {given}")
    for field in ("returns", "misleads", "source", "null"):
        if not str(getattr(one, field)).strip():
            raise broken(one, f"it says {field.capitalize()}", f"The field {field} is empty")
    if not callable(one.prompts):
        raise broken(one, "its prompts are a function", f"They are {one.prompts!r}")
    missing = {"tokenizer", "n", "seed"} - set(inspect.signature(one.prompts).parameters)
    if missing:
        expected = "its prompts are drawn by (tokenizer, n, *, seed, ...)"
        raise broken(one, expected, f"They do not take {', '.join(sorted(missing))}")


def check_prompts(trial: Trial) -> None:
    """Check that prompts are drawn as `detect` asks for them."""
    prompts = trial.prompts
    if not isinstance(prompts, xr.Dataset) or not {"token", "mask"} <= set(prompts.data_vars):
        expected = "its prompts are a dataset with token and mask (batch, position)"
        raise trial.broken(expected, f"They are {type(prompts).__name__}")
    if prompts.sizes["batch"] != trial.count and trial.head_type.learn is None:
        detail = f"There are {prompts.sizes['batch']} of {trial.count}"
        raise trial.broken("as many prompts are drawn as are asked for", detail)
    found = difference(trial.drawn(), prompts, 0.0)
    if found:
        raise trial.broken("prompts are the same for the same seed", found)
    if trial.head_type.learn is None and not difference(trial.drawn(1), prompts, 0.0):
        raise trial.broken("another seed draws other prompts", "They are the same")
    _check_kinds(trial)
    try:
        trial.head_type.prompts(trial.model.tokenizer, 0)
    except BadInput:
        return
    raise trial.broken("a count of 0 is refused with BadInput", "Prompts were drawn")


def _check_kinds(trial: Trial) -> None:
    """Check that the spans are there that a type says it measures, and those of its null."""
    span = trial.head_type.span
    if span is None:
        return
    present = set(map(str, trial.prompts["kind"].values)) if "kind" in trial.prompts else set()
    missing = [
        kind for kind in (span, f"{span}{NULL}", *trial.head_type.beside) if kind not in present
    ]
    if missing:
        listed = ", ".join(sorted(present)) or "none"
        detail = f"{missing[0]!r} is not among {listed}"
        raise trial.broken("its prompts hold its spans, their null and those beside", detail)

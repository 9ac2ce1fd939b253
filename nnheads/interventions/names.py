"""Name what edits leave unnamed: tensors that an operation holds, and what is collected.

    edits = with_names(edits, tensors)    # tensors gets those that the edits held

A name says what is done and where: `add_resid_post_3`, `z_5`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Sequence
from typing import Any

import torch

from nnheads.interventions.operations import Collect

UNNAMED = Collect().key


def with_names(edits: Sequence[Any], tensors: dict[str, torch.Tensor]) -> tuple[Any, ...]:
    """Return edits in which names stand for the tensors that they held.

    Args:
        edits: what is no edit is left for `Intervention` to refuse.
        tensors: those that have names; gets the others. A tensor that several edits hold is one.
    """
    named = [_with_tensors(edit, tensors) for edit in edits]
    keys = [edit.do.key for edit in named if isinstance(getattr(edit, "do", None), Collect)]
    if keys.count(UNNAMED) < 2:
        return tuple(named)
    taken: set[str] = set(keys)
    return tuple(_with_key(edit, taken) for edit in named)


def _with_tensors(edit: Any, tensors: dict[str, torch.Tensor]) -> Any:
    held = getattr(getattr(edit, "do", None), "held", {})
    if not held:
        return edit
    names = {}
    for field, tensor in held.items():
        known = [name for name, other in tensors.items() if other is tensor]
        names[field] = known[0] if known else _free(f"{edit.do.name}_{place(edit)}", tensors)
        tensors[names[field]] = tensor
    return dataclasses.replace(edit, do=dataclasses.replace(edit.do, **names))


def _with_key(edit: Any, taken: set[str]) -> Any:
    if not isinstance(getattr(edit, "do", None), Collect) or edit.do.key != UNNAMED:
        return edit
    key = _free(place(edit), taken)
    taken.add(key)
    return dataclasses.replace(edit, do=dataclasses.replace(edit.do, key=key))


def place(edit: Any) -> str:
    """Return where an edit acts, as a part of a name."""
    where = edit.layer if edit.path is None else edit.path.replace(".", "_") or "whole"
    return f"{edit.site}_{where}"


def _free(name: str, taken: Container[str]) -> str:
    """Return a name that is not taken."""
    if name not in taken:
        return name
    return next(f"{name}_{n}" for n in range(2, 10**6) if f"{name}_{n}" not in taken)

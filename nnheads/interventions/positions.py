"""Positions in a text as data: what `at` of an edit may be, and which positions it means.

    index(-1), span(2, 5), role("END"), steps(0, 1), ALL, PROMPT, ANSWER, ANSWERING, DECODE

`positions_of(index(-1), prompts)` gives them for labelled prompts, counted in the padded rows.
A position that a prompt does not have raises BadInput.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Int

from nnheads.errors import BadInput
from nnheads.interventions.plain_values import is_text, is_whole, plain_value

POSITIONS = {
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
EVERY_STEP = ("all", "answer", "answering", "decode")


def _is_end(value: object) -> bool:
    return value is None or is_whole(value)


@dataclass(frozen=True)
class _Values:
    """What a kind of position takes: at least and at most so many values, each of which fits."""

    fits: Callable[[object], bool]
    least: int = 1
    most: int | None = None  # None: any number

    def allow(self, values: tuple) -> bool:
        most = len(values) if self.most is None else self.most
        return self.least <= len(values) <= most and all(map(self.fits, values))


_NOTHING = _Values(_is_end, least=0, most=0)
_TAKES = {
    "index": _Values(is_whole),
    "slice": _Values(_is_end, least=2, most=2),
    "role": _Values(is_text, most=1),
    "steps": _Values(is_whole),
}


@dataclass(frozen=True)
class At:
    """Positions: a key of POSITIONS, and its values.

    Raises:
        BadInput: an unknown kind, or values that it cannot have.
    """

    kind: str
    values: tuple = ()

    def __post_init__(self) -> None:
        if self.kind not in POSITIONS:
            raise BadInput(
                f"position {self.kind!r} is not known; use one of {', '.join(POSITIONS)}"
            )
        object.__setattr__(self, "values", plain_value(tuple(self.values)))
        if not _TAKES.get(self.kind, _NOTHING).allow(self.values):
            raise BadInput(
                f"position {self.kind!r} cannot be {self.values!r}; it means {POSITIONS[self.kind]}"
            )
        if self.kind == "steps" and min(self.values) < 0:
            raise BadInput(f"step {min(self.values)} is not possible; steps count from 0")


ALL, PROMPT, ANSWER, ANSWERING, DECODE = map(At, ("all", "prompt", "answer", "answering", "decode"))


def index(*positions: int) -> At:
    """Name positions by number, from 0, or from the end if negative."""
    return At("index", positions)


def span(first: int | None, last: int | None) -> At:
    """Name the positions from `first` to before `last`, as a slice does."""
    return At("slice", (first, last))


def role(name: str) -> At:
    """Name the position that the prompts' coordinate `role_<name>` gives."""
    return At("role", (name,))


def steps(*numbers: int) -> At:
    """Name steps of writing: step s is the forward that reads written token s, from 0."""
    return At("steps", numbers)


def steps_of(at: At, new_tokens: int) -> list[int]:
    """Return the written tokens that an edit acts on, by their step."""
    if at.kind == "steps":
        return list(at.values)
    return list(range(new_tokens - 1)) if at.kind in EVERY_STEP else []


def positions_of(at: At, prompts: xr.Dataset) -> Int[torch.Tensor, "row chosen"]:
    """Return the positions that `at` means in labelled prompts, -1 for none.

    Args:
        prompts: mask (batch, position); coordinates `role_*` and `prompt_length` (batch); where
            there is `massive` (batch, position), stretches leave out the positions that it marks.
    """
    mask = np.asarray(prompts["mask"].values)
    chosen = resolved(at, mask, roles_of(prompts), prompt_lengths(prompts))
    if "massive" not in prompts or not several(at):
        return chosen
    return _without(chosen, prompts["massive"].values.astype(bool))


def several(at: At) -> bool:
    """Return whether it names a stretch of positions and not single ones."""
    return at.kind not in ("role", "index", "steps")


def _without(
    chosen: Int[torch.Tensor, "row chosen"], marked: Bool[np.ndarray, "row position"]
) -> Int[torch.Tensor, "row left"]:
    """Return the positions that are not marked, -1 for none."""
    rows = [
        [one for one in row if one >= 0 and not marked[number, one]]
        for number, row in enumerate(chosen.tolist())
    ]
    width = max([len(one) for one in rows] + [1])
    return torch.tensor([one + [-1] * (width - len(one)) for one in rows])


def roles_of(prompts: xr.Dataset) -> dict[str, np.ndarray]:
    """Return the role coordinates of prompts: name -> position of each row."""
    names = [str(name) for name in prompts.coords if str(name).startswith("role_")]
    return {name.removeprefix("role_"): prompts[name].values for name in names}


def prompt_lengths(prompts: xr.Dataset) -> np.ndarray | None:
    """Return how many tokens of each row are the prompt, if the prompts say so."""
    return prompts["prompt_length"].values if "prompt_length" in prompts.coords else None


@dataclass(frozen=True)
class _Row:
    """One row: its number, the position of its first token, its tokens, and those of the prompt."""

    number: int
    first: int
    length: int
    prompt: int


def resolved(
    at: At,
    mask: Int[np.ndarray, "row position"],
    roles: Mapping[str, np.ndarray],
    prompt: np.ndarray | None = None,
) -> Int[torch.Tensor, "row chosen"]:
    """Return the positions that `at` means in rows with this mask, -1 for none.

    Args:
        roles: name -> position of each row.
        prompt: how many of each row's tokens are the prompt; default all of them.

    Raises:
        BadInput: an unknown role, a position outside a prompt.
    """
    length, first = mask.sum(1), mask.argmax(1)
    prompt = length if prompt is None else prompt
    chosen = []
    for number in range(len(mask)):
        row = _Row(number, int(first[number]), int(length[number]), int(prompt[number]))
        chosen.append([row.first + position for position in _counted(at, row, roles)])
    width = max([len(one) for one in chosen] + [1])
    return torch.tensor([one + [-1] * (width - len(one)) for one in chosen])


def _counted(at: At, row: _Row, roles: Mapping[str, np.ndarray]) -> list[int]:
    """Return the positions in one row, counted from its first token."""
    if at.kind == "role":
        return _at_role(at.values[0], row, roles)
    if at.kind == "index":
        return _at_index(at.values, row)
    if at.kind == "slice":
        return list(range(row.length))[slice(*at.values)]
    stretches = {
        "all": (0, row.length),
        "prompt": (0, row.prompt),
        "answer": (row.prompt, row.length),
        "answering": (max(row.prompt - 1, 0), row.length),
    }
    return list(range(*stretches.get(at.kind, (0, 0))))


def _at_role(name: str, row: _Row, roles: Mapping[str, np.ndarray]) -> list[int]:
    if name not in roles:
        raise BadInput(
            f"role {name!r} is not known in these prompts; known: {', '.join(roles) or 'none'}"
        )
    position = int(roles[name][row.number])
    return [] if position < 0 else [position - row.first]


def _at_index(values: tuple[int, ...], row: _Row) -> list[int]:
    for value in values:
        if not -row.length <= value < row.length:
            raise BadInput(f"position {value} lies outside a prompt of {row.length} tokens")
    return [value % row.length for value in values]

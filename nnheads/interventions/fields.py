"""What the fields of an operation may hold, by their annotations, and how that is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from nnheads.interventions.plain_values import (
    is_flag,
    is_function,
    is_number,
    is_numbers,
    is_text,
    is_whole,
)
from nnheads.interventions.positions import At

Check: TypeAlias = Callable[[object], bool]


def _or_none(fits: Check) -> Check:
    return lambda value: value is None or fits(value)


def _is_value(value: object) -> bool:
    return is_number(value) or is_text(value)


def _is_positions(value: object) -> bool:
    return isinstance(value, At)


# a field's annotation -> what it may hold, and how that is said
CHECKS: dict[str, tuple[Check, str]] = {
    "int": (is_whole, "a whole number"),
    "float": (is_number, "a number"),
    "str": (is_text, "text"),
    "bool": (is_flag, "True or False"),
    "str | float": (
        _is_value,
        "a number, a tensor, or the name of one in Intervention(..., tensors={name: tensor})",
    ),
    "str | None": (_or_none(is_text), "the name of a tensor or None"),
    "At | None": (_or_none(_is_positions), "positions or None"),
    "tuple[int, ...] | None": (_or_none(is_numbers), "a tuple of whole numbers or None"),
    "str | Callable": (
        is_function,
        "a function or its import path, such as 'package.module:name'",
    ),
}

"""Values that an intervention may hold: what counts as a number, and how it is stored."""

from __future__ import annotations

import numbers
from typing import Any


def is_whole(value: object) -> bool:
    """Return whether this is a whole number of any type, NumPy's too, and no truth value."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Return whether this is a real number of any type, and no truth value."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_text(value: object) -> bool:
    """Return whether this is a string."""
    return isinstance(value, str)


def is_flag(value: object) -> bool:
    """Return whether this is True or False."""
    return isinstance(value, bool)


def is_numbers(value: object) -> bool:
    """Return whether this is a tuple of at least one whole number."""
    return isinstance(value, tuple) and bool(value) and all(map(is_whole, value))


def is_function(value: object) -> bool:
    """Return whether this is a function, or an import path such as 'package.module:name'."""
    return callable(value) or (isinstance(value, str) and all(value.partition(":")))


def plain_value(value: Any) -> Any:
    """Return numbers as Python's own and lists as tuples, also inside; all else as it is.

    Other numbers cannot be saved.
    """
    if isinstance(value, (list, tuple)):
        return tuple(map(plain_value, value))
    if is_whole(value):
        return int(value)
    return float(value) if is_number(value) else value

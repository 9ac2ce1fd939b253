"""Refuse options that are impossible, by their names on the command line.

check_at_least(1, new_tokens=new_tokens, draws=draws)
check_choice("--kind", kind, KINDS)
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from nnheads.errors import BadInput

MOST = 10**7  # of anything that is counted: more is a slip of the keyboard


def check_at_least(least: int, *, most: int = MOST, **values: int | None) -> None:
    """Refuse counts that are too small, or a slip of the keyboard; None is an option not used."""
    for name, value in values.items():
        option = name.replace("_", "-")
        if value is not None and value < least:
            raise BadInput(f"--{option} {value} is not possible; it must be at least {least}")
        if value is not None and value > most:
            shown = str(value) if value < 10**18 else "of so many digits"
            raise BadInput(f"--{option} {shown} is not possible; it must be at most {most}")


def check_size(**values: float | None) -> None:
    """Refuse numbers that are negative, infinite or none, by the name of their option."""
    for name, value in values.items():
        if value is not None and not 0 <= value < math.inf:
            expected = "it must be a number that is at least 0"
            raise BadInput(f"--{name.replace('_', '-')} {value} is not possible; {expected}")


def check_text(study: Any, text: str) -> None:
    """Refuse the name of a model where a text belongs: the text comes first."""
    from nnheads.models.gguf import SMOLLM2
    from nnheads.models.shipped import REFERENCE

    if study.name == REFERENCE and text in (REFERENCE, SMOLLM2):
        raise BadInput(
            f"{text!r} is taken for the text; the model comes behind it: nnheads"
            f" {study.recipe} TEXT {text}"
        )


def check_choice(option: str, value: str, known: Iterable[str]) -> None:
    """Refuse a value that is none of those that an option takes."""
    choices = list(known)
    if value not in choices:
        raise BadInput(f"{option} {value!r} is not known; use one of {', '.join(choices)}")

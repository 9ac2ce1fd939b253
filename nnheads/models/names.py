"""TODO docstring."""

from __future__ import annotations

import re

from nnheads.errors import BadInput
from nnheads.models.geometry import geometry


def head_name(layer: int, head: int) -> str:
    """Zero-based, as printed everywhere: L9H6."""
    return f"L{layer}H{head}"


def parse_head(text: str) -> tuple[int, int]:
    """`9.6` or `L9H6` -> (9, 6)."""
    match = re.fullmatch(
        r"\s*(?:L(\d{1,6})H(\d{1,6})|(\d{1,6})\.(\d{1,6}))\s*", text, re.IGNORECASE
    )
    if match is None:
        raise BadInput(f"{text!r} is no head; write layer and head from zero, as 9.6 or L9H6")
    layer, head = (group for group in match.groups() if group is not None)
    return int(layer), int(head)


def parse_numbers(text: str, what: str, limit: int) -> list[int]:
    """`0,2,5-8` -> [0, 2, 5, 6, 7, 8], each below `limit`."""
    numbers: set[int] = set()
    for piece in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})\s*(?:-\s*(\d{1,9})\s*)?", piece)
        if match is None:
            raise BadInput(f"{text!r} is no list of {what}s; write 0,2,5-8")
        first = int(match.group(1))
        last = int(match.group(2) or first)
        if first > last:
            raise BadInput(f"{piece.strip()!r} runs backwards; write {last}-{first}")
        if last >= limit:
            raise BadInput(f"{what} {last} does not exist; this model has {what}s 0 to {limit - 1}")
        numbers.update(range(first, last + 1))
    return sorted(numbers)


def check_head(model, head: tuple[int, int]) -> None:
    """Raise BadInput for a head that the model does not have."""
    sizes = geometry(model)
    if head[0] >= sizes.layers or head[1] >= sizes.heads:
        raise BadInput(
            f"head {head[0]}.{head[1]} does not exist; this model has layers 0 to"
            f" {sizes.layers - 1} and heads 0 to {sizes.heads - 1}"
        )

"""How heads and lists of numbers are written and read.

    parse_head("9.6"), parse_head("L9H6"), head_name(9, 6)  # (9, 6), (9, 6), "L9H6"

Layers and heads count from 0. What cannot be read, or does not exist, is BadInput.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from nnheads.errors import BadInput
from nnheads.models.geometry import geometry

if TYPE_CHECKING:
    from nnsight import TransformersModel


def head_name(layer: int, head: int) -> str:
    """Return the name of a head as it is printed everywhere: L9H6."""
    return f"L{layer}H{head}"


def parse_head(text: str) -> tuple[int, int]:
    """Return layer and head of `9.6` or `L9H6`. Raises BadInput for what is no head."""
    match = re.fullmatch(
        r"\s*(?:L(\d{1,6})H(\d{1,6})|(\d{1,6})\.(\d{1,6}))\s*", text, re.IGNORECASE
    )
    if match is None:
        raise BadInput(f"Not a head: {text!r}. Use layer.head counted from 0, such as 9.6 or L9H6.")
    layer, head = (group for group in match.groups() if group is not None)
    return int(layer), int(head)


def parse_numbers(text: str, what: str, limit: int) -> list[int]:
    """Return the numbers of `0,2,5-8`, sorted, each below `limit`.

    Args:
        what: the name of one of them, for errors: "layer".

    Raises:
        BadInput: no list of numbers, a range that runs backwards, a number that does not exist.
    """
    numbers: set[int] = set()
    for piece in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})\s*(?:-\s*(\d{1,9})\s*)?", piece)
        if match is None:
            raise BadInput(f"Not a list of {what}s: {text!r}. Use numbers and ranges: 0,2,5-8.")
        first = int(match.group(1))
        last = int(match.group(2) or first)
        if first > last:
            raise BadInput(f"{piece.strip()!r} runs backwards. Use {last}-{first}.")
        check_number(last, what, limit)
        numbers.update(range(first, last + 1))
    return sorted(numbers)


def check_head(model: TransformersModel, head: tuple[int, int]) -> None:
    """Raise BadInput for a head that the model does not have."""
    sizes = geometry(model)
    check_unit(*head, sizes.layers, sizes.heads)


def check_unit(layer: int, unit: int, layers: int, units: int, name: str = "head") -> None:
    """Raise BadInput for a head that is not among `units` of each of `layers`.

    name: what the units are: "head", or "kv_head" for key/value heads.
    """
    if not (0 <= layer < layers and 0 <= unit < units):
        raise BadInput(
            f"{head_name(layer, unit)} does not exist; this model has layers 0 to {layers - 1} and"
            f" {name}s 0 to {units - 1}"
        )


def check_layer(layer: int, layers: int) -> None:
    """Raise BadInput for a layer that the model does not have."""
    check_number(layer, "layer", layers)


def check_number(number: int, what: str, count: int) -> None:
    """Raise BadInput for a number beyond those that the model has; `what` is one of them."""
    if not 0 <= number < count:
        raise BadInput(f"{what} {number} does not exist; this model has {what}s 0 to {count - 1}")


def check_site(site: str, known: Iterable[str], problem: str = "is not known") -> None:
    """Raise BadInput for a site that is none of the known ones; `problem` says what it lacks."""
    choices = list(known)
    if site not in choices:
        raise BadInput(f"site {site!r} {problem}; use one of {', '.join(choices)}")

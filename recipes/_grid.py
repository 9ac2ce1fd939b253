"""The options for needles in haystacks: lengths and depths, as a list or as the predecessor's
intervals.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nnheads.errors import BadInput

Lengths = Annotated[
    str | None, typer.Option(help="Retrieval: tokens of a prompt, e.g. 128,256 (the default).")
]
Shortest = Annotated[
    int | None, typer.Option(help="Retrieval: the shortest prompt, instead of --lengths.")
]
Longest = Annotated[
    int | None, typer.Option(help="Retrieval: the longest prompt, instead of --lengths.")
]
LengthCount = Annotated[
    int | None, typer.Option(help="Retrieval: how many lengths from --s-len to --e-len (20).")
]
DepthCount = Annotated[
    int | None, typer.Option(help="Retrieval: how many depths from start to end (10).")
]

Haystack = Annotated[
    Path | None, typer.Option(help="Retrieval: folder of .txt files to hide needles in.")
]
Needles = Annotated[
    Path | None, typer.Option(help="Retrieval: JSON lines with needle, question, answer.")
]

DEFAULT = [128, 256]
INTERVALS = ("s_len", "e_len", "context_lengths_num_intervals")
ONLY_NEEDLES = ("lengths", *INTERVALS, "document_depth_percent_intervals", "haystack", "needles")
MOST = 10**7  # tokens: more is a slip of the keyboard


def options_of(arguments: dict, asked: bool) -> dict:
    """What `prompts.needle` is given, from the command line.

    Args:
        asked: whether any head type is measured on needles; otherwise every such option is refused.
    """
    from nnheads.prompts.haystack import read_folder
    from nnheads.prompts.needles import read_needles

    given = [name for name in ONLY_NEEDLES if arguments[name] is not None]
    if given and not asked:
        raise BadInput(
            f"{_flag(given[0])} is for retrieval types; {arguments['head_type']!r} is none of them"
        )
    depths = arguments["document_depth_percent_intervals"]
    _positive(depths, "document_depth_percent_intervals")
    haystack, needles = arguments["haystack"], arguments["needles"]
    if haystack is not None:
        read_folder(haystack)
    if needles is not None:
        read_needles(needles)
    chosen: dict[str, list | Path | None] = {
        "lengths": lengths(arguments),
        "haystack": haystack,
        "needles": needles,
    }
    return chosen | {"depths": None if depths is None else spread(0.0, 1.0, depths)}


def lengths(arguments: dict) -> list[int]:
    """The list of --lengths, or as many as asked for from --s-len to --e-len."""
    from nnheads.models.names import parse_numbers

    given = [name for name in INTERVALS if arguments[name] is not None]
    if arguments["lengths"] is not None:
        if given:
            raise BadInput(f"--lengths and {_flag(given[0])} exclude each other")
        return parse_numbers(arguments["lengths"], "length", MOST)
    if not given:
        return DEFAULT
    first, last, count = (
        fallback if arguments[name] is None else arguments[name]
        for name, fallback in zip(INTERVALS, (*DEFAULT, 20))
    )
    for value, name in zip((first, last, count), INTERVALS):
        _positive(value, name)
    if first > last or last >= MOST:
        raise BadInput(
            f"lengths from --s-len {first} to --e-len {last} are not possible; they must rise"
        )
    return list(dict.fromkeys(round(one) for one in spread(first, last, count)))


def spread(first: float, last: float, count: int) -> list[float]:
    """`count` numbers at equal distances, both ends included."""
    return [first + (last - first) * step / max(1, count - 1) for step in range(count)]


def _positive(value: int | None, name: str) -> None:
    if value is not None and value < 1:
        raise BadInput(f"{_flag(name)} {value} is not possible; it must be at least 1")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"

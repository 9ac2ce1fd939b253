"""Resolve the options for needles in haystacks: lengths and depths, as a list or as intervals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from nnheads.recipes._checks import MOST, check_at_least

from nnheads.errors import BadInput

Lengths = Annotated[str | None, typer.Option(help="Retrieval: tokens a prompt (128,256).")]
Shortest = Annotated[int | None, typer.Option(help="Retrieval: shortest prompt (not --lengths).")]
Longest = Annotated[int | None, typer.Option(help="Retrieval: longest prompt (not --lengths).")]
LengthCount = Annotated[int | None, typer.Option(help="Retrieval: how many lengths (20).")]
DepthCount = Annotated[int | None, typer.Option(help="Retrieval: depths from start to end (10).")]

Haystack = Annotated[
    Path | None, typer.Option(help="Retrieval: folder of texts to hide needles in.")
]
Needles = Annotated[
    Path | None, typer.Option(help="Retrieval: JSON lines: needle, question, answer.")
]

DEFAULT = [128, 256]
MOST_DEPTHS = 1000
COUNT = 20  # of lengths between two ends
INTERVALS = ("s_len", "e_len", "context_lengths_num_intervals")
ONLY_NEEDLES = ("lengths", *INTERVALS, "document_depth_percent_intervals", "haystack", "needles")


def options_of(arguments: Mapping[str, Any], applies: bool) -> dict[str, Any]:
    """Return what `prompts.needle` takes, from the command line.

    applies: whether any head type is measured on needles; otherwise every such option is refused.
    """
    used = [name for name in ONLY_NEEDLES if arguments[name] is not None]
    if used and not applies:
        kind = f"{arguments['head_type']!r} is none of them"
        raise BadInput(f"{flag(used[0])} is for retrieval types; {kind}")
    check_files(arguments["haystack"], arguments["needles"])
    return {
        "lengths": lengths(arguments),
        "haystack": arguments["haystack"],
        "needles": arguments["needles"],
        "depths": depths(arguments["document_depth_percent_intervals"]),
    }


def check_files(haystack: Path | None, needles: Path | None) -> None:
    """Refuse files that cannot be read, before a model is loaded."""
    from nnheads.prompts.haystack import read_folder
    from nnheads.prompts.needles import read_needles

    if haystack is not None:
        read_folder(haystack)
    if needles is not None:
        read_needles(needles)


def depths(count: int | None) -> list[float] | None:
    """Return so many depths from start to end; None for the usual ones."""
    check_at_least(1, most=MOST_DEPTHS, document_depth_percent_intervals=count)
    return None if count is None else spread(0.0, 1.0, count)


def lengths(arguments: Mapping[str, Any]) -> list[int]:
    """Return the list of --lengths, or the lengths from --s-len to --e-len."""
    from nnheads.models.names import parse_numbers

    used = [name for name in INTERVALS if arguments[name] is not None]
    if arguments["lengths"] is None:
        return between(*(arguments[name] for name in INTERVALS)) if used else DEFAULT
    if used:
        raise BadInput(f"--lengths and {flag(used[0])} exclude each other")
    return parse_numbers(arguments["lengths"], "length", MOST)


def between(first: int | None, last: int | None, count: int | None) -> list[int]:
    """Return lengths at equal distances, each once; None stands for the usual ends and number."""
    first, last = (usual if one is None else one for one, usual in zip((first, last), DEFAULT))
    count = COUNT if count is None else count
    check_at_least(1, s_len=first, e_len=last, context_lengths_num_intervals=count)
    if first > last or last >= MOST:
        ends = f"--s-len {first} to --e-len {last}"
        raise BadInput(f"lengths from {ends} are not possible; they must rise")
    count = min(count, last - first + 1)  # more are not different
    return list(dict.fromkeys(round(one) for one in spread(first, last, count)))


def spread(first: float, last: float, count: int) -> list[float]:
    """Return `count` numbers at equal distances, both ends included."""
    return [first + (last - first) * step / max(1, count - 1) for step in range(count)]


def flag(name: str) -> str:
    """Return the option as it is typed."""
    return f"--{name.replace('_', '-')}"

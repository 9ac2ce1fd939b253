"""Resolve the options of `nnheads detect`: head types, revisions, and how prompts are drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from nnheads.recipes import _grid, _truth
from nnheads.recipes._checks import check_at_least
from nnheads.recipes._study import Study

from nnheads.errors import BadInput

OWN = "spans"  # the head type that a file of spans defines
DRAWN = ("length", "task", "steps", "spread")  # options of prompts that every type may have


def names_of(head_type: str, spans: Path | None) -> list[str]:
    """Return the head types to find: known ones, or the kinds in a file of spans."""
    from nnheads.detectors._catalog import canonical, types
    from nnheads.spans.files import kinds_in, read_span_records

    own = head_type.strip().lower() == OWN
    if own and spans is None:
        raise BadInput(f"head type {head_type!r} needs --spans FILE")
    if spans is None:
        return list(types()) if head_type == "all" else [canonical(head_type)]
    if not own:
        expected = f"--spans, which needs the type {OWN}"
        raise BadInput(f"head type {head_type!r} does not go with {expected}")
    return kinds_in(read_span_records(spans))


def revisions_in(text: str | None) -> list[str | None]:
    """Return the revisions of `a,b,c`; one None where the option is not used."""
    if text is None:
        return [None]
    return [piece.strip() for piece in text.split(",") if piece.strip()]


def drawing(study: Study, names: Sequence[str]) -> Callable[..., list]:
    """Return the function (model, seed=) that draws the prompts of these types.

    It draws `--limit` prompts, with those options that the prompts know, or reads `--spans`.

    Raises:
        BadInput: options of needles or of truthfulness for other types, or nothing to repeat.
    """
    from nnheads.detectors._catalog import head_types
    from nnheads.detectors._stimulus import known_options, prepare, prepare_spans

    check_at_least(1, length=study.length)
    types = [] if study.spans else head_types(names)
    stimuli = {one.stimulus for one in types}
    options = {name: study.arguments[name] for name in DRAWN}
    options |= _grid.options_of(study.arguments, "needle" in stimuli)
    options |= _truth.options_of(study.arguments, "truth" in stimuli)
    if study.spans:
        return partial(prepare_spans, path=study.spans, n=study.limit)
    known = known_options(types)
    own = {name: value for name, value in options.items() if name in known}
    return partial(prepare, names=list(names), n=study.limit, **own)

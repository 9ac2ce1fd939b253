"""Nulls: the same queries with other targets, drawn at random. Every null of a head type is one."""

from __future__ import annotations

import numpy as np

from nnheads.spans.layout import Spans, stack_spans

NULL_DRAWS = 4  # random targets per query: enough to tell the null's mean from its noise
NULL = "~null"  # behind the name of a kind


def null_spans(spans: Spans, generator: np.random.Generator, first: int = 0) -> Spans:
    """Return for each span NULL_DRAWS spans of its query and width at random visible positions.

    Args:
        first: first position that may be drawn; 1 keeps the attention sink out of the null.

    Returns:
        query, key_start, key_stop, each [batch, NULL_DRAWS x span]. A query with nowhere else to
        look gets -1.
    """
    query, start, stop = (np.tile(one, (1, NULL_DRAWS)) for one in spans)
    width = stop - start
    choices = query + 1 - width - first + 1  # positions at which such a span fits
    true = (start >= first) & (start - first < choices)  # the true one is among them: left out
    drawn = first + (generator.random(query.shape) * np.maximum(choices - true, 1)).astype(int)
    drawn = np.where(true & (drawn >= start), drawn + 1, drawn)
    usable = (query >= 0) & (choices - true > 0)
    return (
        np.where(usable, query, -1),
        np.where(usable, drawn, 0),
        np.where(usable, drawn + width, 1),
    )


def null_in_rows(spans: Spans, shift: np.ndarray, *generators: np.random.Generator) -> Spans:
    """Return `null_spans` behind each row's own padding (`shift` positions) and first token.

    One generator draws for all rows, or one for each.
    """
    each = generators * len(shift) if len(generators) == 1 else generators
    rows = [_null_in_row(spans, line, int(move), each[line]) for line, move in enumerate(shift)]
    return stack_spans(rows, np.zeros(len(shift), int))


def _null_in_row(
    spans: Spans, line: int, move: int, generator: np.random.Generator
) -> list[tuple[int, int, int]]:
    # only the row's own spans are drawn for, or its null would depend on how many others have
    present = np.flatnonzero(spans[0][line] >= 0)
    query, start, stop = (one[[line]][:, present] for one in spans)
    drawn = null_spans((query, start, stop), generator, first=move + 1)
    return [span for span in zip(*(one[0].tolist() for one in drawn)) if span[0] >= 0]

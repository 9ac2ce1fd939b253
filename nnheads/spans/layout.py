"""Spans as arrays: (query, first key, end of keys), the form of every question about attention."""

from __future__ import annotations

import numpy as np
import xarray as xr

MEANINGS = {
    "token": ("position", "token ids"),
    "mask": ("position", "1 where there is a token, 0 where there is padding"),
    "query": ("span", "position that attends; -1: no such span in this example"),
    "key_start": ("span", "first position attended to"),
    "key_stop": ("span", "end of the positions attended to, not included"),
}
Spans = tuple[np.ndarray, np.ndarray, np.ndarray]  # query, key_start, key_stop, each [batch, span]


def span_dataset(
    token: np.ndarray, mask: np.ndarray, spans: dict[str, Spans], coordinates: dict | None = None
) -> xr.Dataset:
    """Return prompts with spans.

    Args:
        token, mask: [batch, position], padded on the left.
        spans: kind -> (query, key_start, key_stop), each [batch, span of that kind], query -1 where
            an example has fewer spans than others.

    Returns:
        token, mask (batch, position); query, key_start, key_stop (batch, span); coordinate kind
        (span).
    """
    kinds = [kind for kind, (query, _, _) in spans.items() for _ in range(query.shape[1])]
    values = {"token": token.astype(np.int32), "mask": mask.astype(np.int8)}
    for part, name in enumerate(("query", "key_start", "key_stop")):
        values[name] = np.concatenate([one[part] for one in spans.values()], 1).astype(np.int32)
    data = {}
    for name, (along, meaning) in MEANINGS.items():
        data[name] = (("batch", along), values[name], {"long_name": meaning})
    index = {"batch": range(len(token)), "kind": ("span", kinds)}
    return xr.Dataset(data, {**index, **(coordinates or {})})


def pad_left(rows: list[list[int]], fill: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return token ids and mask [batch, position], and how far each row was moved to the right."""
    width = max(map(len, rows))
    token, mask = np.full((len(rows), width), fill, np.int64), np.zeros((len(rows), width), np.int8)
    shift = np.array([width - len(row) for row in rows])
    for line, row in enumerate(rows):
        token[line, shift[line] :], mask[line, shift[line] :] = row, 1
    return token, mask, shift


def stack_spans(rows: list[list[tuple[int, int, int]]], shift: np.ndarray) -> Spans:
    """Return ragged spans as three arrays, moved by each row's padding, filled up with query -1."""
    count = max(1, *map(len, rows))
    filled = np.tile(np.array([-1, 0, 1]), (len(rows), count, 1))
    for line, row in enumerate(rows):
        for number, span in enumerate(row):
            filled[line, number] = np.array(span) + shift[line]
    return filled[..., 0], filled[..., 1], filled[..., 2]

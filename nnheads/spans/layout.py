"""Spans: (query, first key, end of keys) per example, the shape in which every attention question
is asked.
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import xarray as xr

from nnheads.errors import BadInput
from nnheads.spans.lines import numbered_lines

NULL_DRAWS = 4  # random targets per query: enough to tell the null's mean from its noise
NULL = "~null"
Spans = tuple[np.ndarray, np.ndarray, np.ndarray]  # query, key_start, key_stop, each [batch, span]


def span_dataset(
    token: np.ndarray, mask: np.ndarray, spans: dict[str, Spans], coordinates: dict | None = None
) -> xr.Dataset:
    """Prompts with spans.

    Args:
        token, mask: [batch, position], padded on the left.
        spans: kind -> (query, key_start, key_stop), each [batch, span of that kind], query -1 where
            an example has fewer spans than others.

    Returns:
        token, mask (batch, position); query, key_start, key_stop (batch, span); coordinate kind
        (span).
    """
    place, span = ("batch", "position"), ("batch", "span")
    kinds = [kind for kind, (query, _, _) in spans.items() for _ in range(query.shape[1])]
    parts = [
        np.concatenate([one[part] for one in spans.values()], 1).astype(np.int32)
        for part in range(3)
    ]
    data = {
        "token": (place, token.astype(np.int32), {"long_name": "token ids"}),
        "mask": (
            place,
            mask.astype(np.int8),
            {"long_name": "1 where there is a token, 0 where there is padding"},
        ),
        "query": (
            span,
            parts[0],
            {"long_name": "position that attends; -1: no such span in this example"},
        ),
        "key_start": (span, parts[1], {"long_name": "first position attended to"}),
        "key_stop": (
            span,
            parts[2],
            {"long_name": "end of the positions attended to, not included"},
        ),
    }
    return xr.Dataset(
        data, {"batch": range(len(token)), "kind": ("span", kinds), **(coordinates or {})}
    )


def null_spans(spans: Spans, generator: np.random.Generator, first: int = 0) -> Spans:
    """For each span, NULL_DRAWS spans of the same query and width at random places that the query
    can see.

    Args:
        first: first position that may be drawn; 1 keeps the attention sink out of the null.

    Returns:
        query, key_start, key_stop, each [batch, NULL_DRAWS x span]. A query with nowhere else to
        look gets -1.
    """
    query, start, stop = (np.tile(one, (1, NULL_DRAWS)) for one in spans)
    width = stop - start
    choices = query + 1 - width - first + 1  # places at which such a span fits
    true = (start >= first) & (
        start - first < choices
    )  # the true place is one of them and is left out
    drawn = first + (generator.random(query.shape) * np.maximum(choices - true, 1)).astype(int)
    drawn = np.where(true & (drawn >= start), drawn + 1, drawn)
    usable = (query >= 0) & (choices - true > 0)
    return (
        np.where(usable, query, -1),
        np.where(usable, drawn, 0),
        np.where(usable, drawn + width, 1),
    )


def pad_left(rows: list[list[int]], fill: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Token ids and mask [batch, position], and how far each row was moved to the right."""
    width = max(map(len, rows))
    token, mask = np.full((len(rows), width), fill, np.int64), np.zeros((len(rows), width), np.int8)
    shift = np.array([width - len(row) for row in rows])
    for line, row in enumerate(rows):
        token[line, shift[line] :], mask[line, shift[line] :] = row, 1
    return token, mask, shift


def stack_spans(rows: list[list[tuple[int, int, int]]], shift: np.ndarray) -> Spans:
    """Ragged spans per example as three arrays, moved by each row's padding and filled up with
    query -1.
    """
    count = max(1, *map(len, rows))
    filled = np.tile(np.array([-1, 0, 1]), (len(rows), count, 1))
    for line, row in enumerate(rows):
        for place, span in enumerate(row):
            filled[line, place] = np.array(span) + shift[line]
    return filled[..., 0], filled[..., 1], filled[..., 2]


def read_spans(path: str | Path, tokenizer, *, n: int | None = None, seed: int = 0) -> xr.Dataset:
    """The user's own spans from JSON lines: {"text": ..., "spans": [{"kind", "query", "key"},
    ...]}.

    `query` and `key` are pieces of the text ("[start, stop]" characters, or the words themselves if
    they occur once). The last token of the query piece attends; the tokens of the key piece are
    attended to.

    Args:
        n: only the first n lines.

    Raises:
        BadInput: naming the line, for anything that does not fit.
    """
    records = read_span_records(path)[:n]
    examples = [_example(record, tokenizer) for record in records]
    token, mask, shift = pad_left([ids for ids, _ in examples], tokenizer.pad_token_id or 0)
    generator = np.random.default_rng(seed)
    stacked = {}
    for kind in kinds_in(records):
        rows = [[span for name, span in spans if name == kind] for _, spans in examples]
        stacked[kind] = stack_spans(rows, shift)
        stacked[f"{kind}{NULL}"] = null_in_rows(stacked[kind], shift, generator)
    dataset = span_dataset(token, mask, stacked)
    dataset.attrs.update(title=f"spans of {Path(path).name}", seed=seed, null_draws=NULL_DRAWS)
    return dataset


@dataclasses.dataclass(frozen=True)
class SpanRecord:
    """One line of a file of spans: (kind, query piece, key piece) on a text."""

    where: str
    text: str
    spans: list[tuple[str, object, object]]


def read_span_records(path: str | Path) -> list[SpanRecord]:
    """A file of spans as far as it can be checked without a tokenizer."""
    lines = numbered_lines(path, "one text with its spans a line, as JSON")
    return [_record(where, line) for where, line in lines]


def kinds_in(records: list[SpanRecord]) -> list[str]:
    """The kinds of span in a file, in the order in which they come up."""
    return list(dict.fromkeys(kind for record in records for kind, *_ in record.spans))


def null_in_rows(spans: Spans, shift: np.ndarray, *generators: np.random.Generator) -> Spans:
    """`null_spans` that start after each row's own padding (`shift` positions) and first token; one
    generator for all rows, or one for each."""
    each = generators * len(shift) if len(generators) == 1 else generators
    rows = []
    for line, move in enumerate(shift):
        # only the row's own spans are drawn for, or its null would depend on how many the others
        # have
        own = np.flatnonzero(spans[0][line] >= 0)
        query, start, stop = (one[[line]][:, own] for one in spans)
        drawn = null_spans((query, start, stop), each[line], first=int(move) + 1)
        rows.append([span for span in zip(*(one[0].tolist() for one in drawn)) if span[0] >= 0])
    return stack_spans(rows, np.zeros(len(shift), int))


def _record(where: str, line: str) -> SpanRecord:
    try:
        record = json.loads(line)
        text, spans = record["text"], record["spans"]
    except (json.JSONDecodeError, KeyError, TypeError):
        raise BadInput(f"{where}: expected an object with text and spans") from None
    if not isinstance(text, str) or not text.strip() or not isinstance(spans, list) or not spans:
        raise BadInput(f"{where}: text must be words, and spans a list that is not empty")
    found = []
    for span in spans:
        if not isinstance(span, dict) or not {"query", "key"} <= span.keys():
            raise BadInput(f"{where}: each span needs a query and a key")
        kind = span.get("kind", "spans")
        if not isinstance(kind, str) or not re.fullmatch(r"\w[\w-]{0,59}", kind, re.ASCII):
            raise BadInput(
                f"{where}: kind {kind!r} cannot name a head type; use up to 60 letters, digits, _"
                " and -"
            )
        found.append((kind, span["query"], span["key"]))
    return SpanRecord(where, text, found)


def _example(
    record: SpanRecord, tokenizer
) -> tuple[list[int], list[tuple[str, tuple[int, int, int]]]]:
    """Token ids, and (kind, span) for each span."""
    ids, offsets = encode(tokenizer, record.text)
    found = []
    for kind, query_piece, key_piece in record.spans:
        query = _tokens(record.where, record.text, offsets, query_piece)
        key = _tokens(record.where, record.text, offsets, key_piece)
        if key[-1] > query[-1]:
            raise BadInput(
                f"{record.where}: the key {key_piece!r} comes after its query {query_piece!r}"
            )
        found.append((kind, (query[-1], key[0], key[-1] + 1)))
    return ids, found


def encode(tokenizer, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids, and the characters that each one stands for."""
    if not getattr(tokenizer, "is_fast", False):
        raise BadInput(
            "this tokenizer does not say where its tokens are in the text; a fast one"
            " (tokenizer.json) does"
        )
    encoded = tokenizer(text, return_offsets_mapping=True)
    return encoded["input_ids"], encoded["offset_mapping"]


def covering(offsets: list[tuple[int, int]], start: int, stop: int) -> list[int]:
    """Return the tokens that hold any of these characters."""
    return [i for i, (low, high) in enumerate(offsets) if low < stop and high > start]


def _tokens(where: str, text: str, offsets: list[tuple[int, int]], piece) -> list[int]:
    """Tokens that cover a piece of the text, given as words that occur once or as [start, stop]."""
    if isinstance(piece, str) and piece:
        if text.count(piece) != 1:
            raise BadInput(
                f"{where}: {piece!r} occurs {text.count(piece)} times; give [start, stop] in"
                " characters"
            )
        start = text.index(piece)
        stop = start + len(piece)
    elif isinstance(piece, list) and len(piece) == 2 and all(isinstance(one, int) for one in piece):
        start, stop = piece
    else:
        raise BadInput(
            f"{where}: {piece!r} is neither words of the text nor [start, stop] in characters"
        )
    covered = covering(offsets, start, stop)
    if not covered:
        raise BadInput(f"{where}: characters {start} to {stop} hold no token")
    return covered

"""Spans of the user, from JSON lines with texts and pieces of them."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import xarray as xr

from nnheads.errors import BadInput
from nnheads.models.texts import encode_with_offsets
from nnheads.spans.characters import covering
from nnheads.spans.layout import pad_left, span_dataset, stack_spans
from nnheads.spans.lines import numbered_lines
from nnheads.spans.nulls import NULL, NULL_DRAWS, null_in_rows


def read_spans(path: str | Path, tokenizer, *, n: int | None = None, seed: int = 0) -> xr.Dataset:
    """Return the user's own spans from a file, with their nulls, as `layout.span_dataset`.

    A line is {"text": ..., "spans": [{"kind", "query", "key"}, ...]}. `query` and `key` are pieces
    of the text ("[start, stop]" characters, or the words themselves if they occur once). The last
    token of the query piece attends; the tokens of the key piece are attended to.

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
    """Return a file of spans as far as it can be checked without a tokenizer."""
    lines = numbered_lines(path, "one text with its spans a line, as JSON")
    return [_record(where, line) for where, line in lines]


def kinds_in(records: list[SpanRecord]) -> list[str]:
    """Return the kinds of span in a file, in the order in which they come up."""
    return list(dict.fromkeys(kind for record in records for kind, *_ in record.spans))


def _record(where: str, line: str) -> SpanRecord:
    try:
        record = json.loads(line)
        text, spans = record["text"], record["spans"]
    except (json.JSONDecodeError, KeyError, TypeError):
        raise BadInput(f"{where}: expected an object with text and spans") from None
    if not isinstance(text, str) or not text.strip() or not isinstance(spans, list) or not spans:
        raise BadInput(f"{where}: text must be words, and spans a list that is not empty")
    return SpanRecord(where, text, [_span(where, span) for span in spans])


def _span(where: str, span: object) -> tuple[str, object, object]:
    """Return kind, query piece and key piece of one span of a line."""
    if not isinstance(span, dict) or not {"query", "key"} <= span.keys():
        raise BadInput(f"{where}: each span needs a query and a key")
    kind = span.get("kind", "spans")
    if not isinstance(kind, str) or not re.fullmatch(r"\w[\w-]{0,59}", kind, re.ASCII):
        wanted = "use up to 60 letters, digits, _ and -"
        raise BadInput(f"{where}: kind {kind!r} cannot name a head type; {wanted}")
    return kind, span["query"], span["key"]


def _example(
    record: SpanRecord, tokenizer
) -> tuple[list[int], list[tuple[str, tuple[int, int, int]]]]:
    """Return token ids, and (kind, span) for each span."""
    ids, offsets = encode_with_offsets(tokenizer, record.text)
    found = []
    for kind, query_piece, key_piece in record.spans:
        query, key = (_tokens(record, offsets, piece) for piece in (query_piece, key_piece))
        if key[-1] > query[-1]:
            late = f"the key {key_piece!r} comes after its query {query_piece!r}"
            raise BadInput(f"{record.where}: {late}")
        found.append((kind, (query[-1], key[0], key[-1] + 1)))
    return ids, found


def _tokens(record: SpanRecord, offsets: list[tuple[int, int]], piece: object) -> list[int]:
    """Return the tokens that cover a piece of the text."""
    start, stop = _characters(record, piece)
    covered = covering(offsets, start, stop)
    if not covered:
        raise BadInput(f"{record.where}: characters {start} to {stop} hold no token")
    return covered


def _characters(record: SpanRecord, piece: object) -> tuple[int, int]:
    """Return where a piece stands: words that occur once, or [start, stop] in characters."""
    if isinstance(piece, str) and piece:
        count = record.text.count(piece)
        if count != 1:
            told = f"{piece!r} occurs {count} times; give [start, stop] in characters"
            raise BadInput(f"{record.where}: {told}")
        start = record.text.index(piece)
        return start, start + len(piece)
    if isinstance(piece, list) and len(piece) == 2 and all(type(one) is int for one in piece):
        if not 0 <= piece[0] < piece[1] <= len(record.text):
            told = f"characters {piece[0]} to {piece[1]} are not in a text of {len(record.text)}"
            raise BadInput(f"{record.where}: {told}")
        return piece[0], piece[1]
    expected = "neither words of the text nor [start, stop] in characters"
    raise BadInput(f"{record.where}: {piece!r} is {expected}")

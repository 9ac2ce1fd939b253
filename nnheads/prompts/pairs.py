"""Clean and corrupted prompts as one labelled dataset, whoever wrote them.

A pair is two texts and two words: `answer` follows the clean text, `wrong` is the word it is
    measured
against. Pairs are only comparable position by position if both texts have the same number of
tokens, and only at one logit if the words are single tokens, so both are audited here for the
tokenizer at hand.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import xarray as xr

from nnheads.errors import BadInput

FIELDS = ("clean", "corrupted", "answer", "wrong")


@dataclass(frozen=True)
class Pair:
    """Two texts that differ in what decides the next word.

    corrupted_answer: the word that is right after the corrupted text, if there is one.
    roles: name -> (start, stop) characters of the clean text; their first token is labelled.
    about: further labels of this pair, kept as coordinates.
    """

    clean: str
    corrupted: str
    answer: str
    wrong: str
    corrupted_answer: str | None = None
    roles: dict[str, tuple[int, int]] = field(default_factory=dict)
    about: dict[str, str | int] = field(default_factory=dict)


def read_pairs(path: str | Path) -> list[Pair]:
    """Read pairs from JSON lines (.jsonl) or a table with a header (.csv): clean, corrupted,
    answer, wrong.

    Raises BadInput for a missing, empty or binary file, and names the line of a record that is
    incomplete.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"no file {str(path)!r}; expected .jsonl or .csv with {', '.join(FIELDS)}")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput(f"{path} is not a text file in UTF-8") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None
    pairs = [
        _pair(path, *record)
        for record in (_table if path.suffix.lower() == ".csv" else _lines)(path, text)
    ]
    if not pairs:
        raise BadInput(
            f"{path} holds no pairs; expected one record a line with {', '.join(FIELDS)}"
        )
    return pairs


def _lines(path: Path, text: str) -> Iterator[tuple[int, dict]]:
    # not splitlines: JSON strings may hold other line separators as they are
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, _json(path, number, line)


def _table(path: Path, text: str) -> Iterator[tuple[int, dict]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        missing = [name for name in FIELDS if name not in (reader.fieldnames or FIELDS)]
        if missing:
            raise BadInput(
                f"{path}, line 1: the header names no {missing[0]!r}; expected {', '.join(FIELDS)}"
            )
        for record in reader:
            yield reader.line_num, record
    except csv.Error as error:
        raise BadInput(f"{path}, line {reader.line_num}: not CSV ({error})") from None


def _json(path: Path, number: int, line: str) -> dict:
    try:
        record = json.loads(line)
    except (
        ValueError,
        RecursionError,
    ) as error:  # also numbers of thousands of digits and endless nesting
        reason = str(error).partition(":")[0]
        raise BadInput(f"{path}, line {number}: not JSON ({reason})") from None
    if not isinstance(record, dict):
        raise BadInput(f"{path}, line {number}: expected an object with {', '.join(FIELDS)}")
    return record


def _pair(path: Path, number: int, record: dict) -> Pair:
    clean, corrupted, answer, wrong = (
        _text(path, number, name, record.get(name)) for name in FIELDS
    )
    right = record.get("corrupted_answer") or None
    right = None if right is None else _text(path, number, "corrupted_answer", right)
    return Pair(clean, corrupted, answer, wrong, right)


def _text(path: Path, number: int, name: str, text) -> str:
    if not isinstance(text, str) or not text.strip():
        raise BadInput(f"{path}, line {number}: {name!r} is missing or empty")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadInput(
            f"{path}, line {number}: {name!r} holds half a character (a lone surrogate)"
        ) from None
    return text


def next_token(tokenizer, text: str, word: str) -> int | None:
    """The one token that `word` adds to `text`, or None if it adds more than one or changes the
    text's own.
    """
    if not word.strip():
        return None
    before = tokenizer(text)["input_ids"]
    after = tokenizer(text + word if word[:1].isspace() else f"{text} {word}")["input_ids"]
    if len(after) == len(before) + 1 and after[:-1] == before:
        return None if after[-1] == getattr(tokenizer, "unk_token_id", None) else after[-1]
    return None


def one_pair(tokenizer, pair: Pair) -> xr.Dataset:
    """`tokenize` for a single pair; a refusal shows the tokens.

    Raises BadInput with both token rows if they do not line up, or with the pieces of a word that
    is split.
    """
    rows = {name: tokenizer(getattr(pair, name))["input_ids"] for name in ("clean", "corrupted")}
    if len(rows["clean"]) != len(rows["corrupted"]):
        shown = [f"  {name:<9} {_shown(tokenizer, ids)}" for name, ids in rows.items()]
        counts = f"{len(rows['clean'])} and {len(rows['corrupted'])}"
        raise BadInput(
            "\n".join(
                [f"clean and corrupted have {counts} tokens; they must line up one to one", *shown]
            )
        )
    for name in ("answer", "wrong"):
        word = getattr(pair, name)
        if word.strip() and next_token(tokenizer, pair.clean, word) is None:
            pieces = _shown(
                tokenizer, tokenizer(f" {word.strip()}", add_special_tokens=False)["input_ids"]
            )
            raise BadInput(f"{name} {word!r} is not one token after the clean prompt but {pieces}")
    return tokenize(tokenizer, [pair])


def _shown(tokenizer, ids) -> str:
    """Tokens on one line, line breaks and the like as escapes."""
    return " | ".join(repr(text)[1:-1] for text in token_texts(tokenizer, ids))


def token_texts(tokenizer, ids) -> list[str]:
    """Each token as text, as a reader would recognise it; ids beyond the tokenizer (padded
    vocabularies) as such.
    """
    return [
        tokenizer.decode([token])
        or str(tokenizer.convert_ids_to_tokens(int(token)) or f"<{int(token)}>")
        for token in ids
    ]


def tokenize(tokenizer, pairs: Iterable[Pair]) -> xr.Dataset:
    """Audit pairs for a tokenizer and lay them out as a dataset.

    Returns:
        `token`, `corrupted`, `mask` (batch, position), padded on the left; `answer`, `wrong`,
        `corrupted_answer` (batch), token ids, -1 where the corrupted text has no right answer;
        coordinates with the texts, the labels of each pair and `role_*`, the position of each role.
        `batch` keeps the
        number of the pair. attrs: `asked`, `dropped` (JSON, reason -> count).

    Raises:
        BadInput: if not one pair is left, with the commonest reason.
    """
    kept, asked = [], 0
    dropped: Counter[str] = Counter()
    for number, pair in enumerate(pairs):
        asked += 1
        row, reason = _row(tokenizer, pair)
        if row is None:
            dropped[reason] += 1
        else:
            kept.append((number, pair, row))
    if not kept:
        why = dropped.most_common(1)[0][0] if dropped else "there are none"
        raise BadInput(f"none of {asked} prompt pairs can be used: {why}")
    dataset = _layout(tokenizer, kept)
    dataset.attrs.update(asked=asked, dropped=json.dumps(dict(dropped)))
    return dataset


def _row(tokenizer, pair: Pair) -> tuple[dict | None, str]:
    """Token ids of one pair, or the reason why it cannot be used."""
    clean = tokenizer(pair.clean, return_offsets_mapping=bool(pair.roles))
    corrupted = tokenizer(pair.corrupted)["input_ids"]
    if len(clean["input_ids"]) != len(corrupted):
        return None, "clean and corrupted differ in their number of tokens"
    if clean["input_ids"] == corrupted:
        return None, "clean and corrupted are the same tokens"
    words = {"answer": pair.answer, "wrong": pair.wrong, "corrupted_answer": pair.corrupted_answer}
    ids = {
        name: next_token(tokenizer, pair.clean, word)
        for name, word in words.items()
        if word is not None
    }
    for name, token in ids.items():
        if token is None:
            return None, f"{name.replace('_', ' ')} is not a single token of this tokenizer"
    if ids["answer"] == ids["wrong"]:
        return None, "answer and wrong are the same token"
    roles = {
        name: _token_at(clean["offset_mapping"], name, span) for name, span in pair.roles.items()
    }
    return {"ids": clean["input_ids"], "corrupted": corrupted, "roles": roles, **ids}, ""


def _token_at(offsets: list[tuple[int, int]], role: str, span: tuple[int, int]) -> int:
    """The first token that covers a character of the span."""
    for place, (start, stop) in enumerate(offsets):
        if start < span[1] and stop > span[0]:
            return place
    raise BadInput(
        f"role {role!r} at characters {span[0]} to {span[1]} covers no token of the clean prompt"
    )


def _layout(tokenizer, kept: list) -> xr.Dataset:
    width = max(len(row["ids"]) for _, _, row in kept)
    token, corrupted, mask = (np.zeros((len(kept), width), np.int32) for _ in range(3))
    token[:], corrupted[:] = tokenizer.pad_token_id or 0, tokenizer.pad_token_id or 0
    for line, (_, _, row) in enumerate(kept):
        start = width - len(row["ids"])
        token[line, start:], corrupted[line, start:], mask[line, start:] = (
            row["ids"],
            row["corrupted"],
            1,
        )
    dims = ("batch", "position")
    data: dict = {
        "token": (dims, token, {"long_name": "token ids of the clean prompt"}),
        "corrupted": (dims, corrupted, {"long_name": "token ids of the corrupted prompt"}),
        "mask": (
            dims,
            mask.astype(np.int8),
            {"long_name": "1 where there is a token, 0 where there is padding"},
        ),
    }
    for name in ("answer", "wrong", "corrupted_answer"):
        ids = np.array([row.get(name, -1) for _, _, row in kept], np.int32)
        data[name] = ("batch", ids, {"long_name": f"token id of the {name.replace('_', ' ')}"})
    coordinates = {
        "batch": [number for number, _, _ in kept],
        "clean_text": ("batch", [pair.clean for _, pair, _ in kept]),
        "corrupted_text": ("batch", [pair.corrupted for _, pair, _ in kept]),
        "answer_text": ("batch", [pair.answer for _, pair, _ in kept]),
        "wrong_text": ("batch", [pair.wrong for _, pair, _ in kept]),
    }
    for name in kept[0][1].about:
        coordinates[name] = ("batch", [pair.about[name] for _, pair, _ in kept])
    for name in kept[0][2]["roles"]:
        places = [row["roles"][name] + width - len(row["ids"]) for _, _, row in kept]
        coordinates[f"role_{name}"] = ("batch", np.array(places, np.int32))
    return xr.Dataset(data, coordinates)

"""Clean and corrupted prompts as one labelled dataset, whoever wrote them.

    prompts = tokenize(tokenizer, [Pair(clean=..., corrupted=..., answer="Mary", wrong="John")])

A pair is two texts and two words: `answer` follows the clean text, `wrong` is the word it is
measured against. Pairs are only comparable position by position if both texts have the same number
of tokens, and only at one logit if the words are single tokens. Both are audited here for the
tokenizer at hand: what does not fit is left out and counted, and BadInput is raised if nothing is
left.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from nnheads.errors import BadInput
from nnheads.models.texts import (
    Offsets,
    added_tokens,
    encode,
    encode_with_offsets,
    next_token,
)
from nnheads.prompts.tokens import token_variables
from nnheads.spans.characters import covering

WAYS = ("clean", "corrupted")
WORDS = ("answer", "wrong", "corrupted_answer")
WITH_BLANK = "with a blank before the answer, as the text before it asks"
WITHOUT_BLANK = "without a blank before the answer, as the text before it asks"


@dataclass(frozen=True)
class Pair:
    """Two texts that differ in what decides the next word.

    Attributes:
        clean, corrupted: the texts.
        answer: the word that follows the clean text.
        wrong: the word that the answer is measured against.
        corrupted_answer: the word that is right after the corrupted text, if there is one.
        roles: name -> (start, stop) characters of the clean text; their first token is labelled.
        about: further labels of this pair, kept as coordinates.
        blank: whether a blank stands before words that are written without one; None: as the text
            asks for it (`models.texts.takes_blank`): "(" + "A", "to" + " Mary".

    Raises nothing; `tokenize` checks what it is given.

    Source: Zhang and Nanda 2023, arXiv 2309.16042 (symmetric token replacement).

    Example:
        >>> pair = nnheads.Pair("the code of Mary is", "the code of John is", "park", "hotel")
        >>> dict(nnheads.tokenize(nnheads.load("reference").tokenizer, [pair]).sizes)
        {'batch': 1, 'position': 6}
    """

    clean: str
    corrupted: str
    answer: str
    wrong: str
    corrupted_answer: str | None = None
    roles: dict[str, tuple[int, int]] = field(default_factory=dict)
    about: dict[str, str | int] = field(default_factory=dict)
    blank: bool | None = None


@dataclass(frozen=True)
class Row:
    """A pair as tokens, before padding.

    number: of the pair. words: token id of each of WORDS that the pair has. roles: position of each
    role. form: how the answer was taken, where it could also have been taken otherwise.
    """

    number: int
    pair: Pair
    clean: list[int]
    corrupted: list[int]
    words: dict[str, int]
    roles: dict[str, int]
    form: str = ""


def one_pair(tokenizer, pair: Pair) -> xr.Dataset:
    """Return `tokenize` for a single pair; a refusal shows the tokens.

    Raises BadInput with both token rows if they do not line up, or with the pieces of a word that
    is split.
    """
    clean, corrupted = (encode(tokenizer, text) for text in (pair.clean, pair.corrupted))
    if len(clean) != len(corrupted):
        raise BadInput(
            f"clean and corrupted have {len(clean)} and {len(corrupted)} tokens; they must line up"
            f" one to one\n  clean     {_shown(tokenizer, clean)}"
            f"\n  corrupted {_shown(tokenizer, corrupted)}"
        )
    for name, word in (("answer", pair.answer), ("wrong", pair.wrong)):
        if word.strip() and next_token(tokenizer, pair.clean, word, blank=pair.blank) is None:
            pieces = _shown(tokenizer, added_tokens(tokenizer, pair.clean, word, pair.blank))
            raise BadInput(f"{name} {word!r} is not one token after the clean prompt but {pieces}")
    return tokenize(tokenizer, [pair])


def _shown(tokenizer, ids: Sequence[int]) -> str:
    """Return tokens on one line, line breaks and the like as escapes."""
    return " | ".join(repr(text)[1:-1] for text in token_texts(tokenizer, ids))


def token_texts(tokenizer, ids: Sequence[int]) -> list[str]:
    """Return each token as text, as a reader would recognise it.

    Ids beyond the tokenizer (padded vocabularies) are shown as such.
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
        `batch` keeps the number of the pair. attrs: `asked`, `dropped` (JSON, reason -> count), and
        `word_form`: how answers were taken that could also have been taken otherwise.

    Raises:
        BadInput: if not one pair is left, with the commonest reason; or a role that covers no
            token.

    Source: Zhang and Nanda 2023, arXiv 2309.16042 (texts that line up token by token).

    Example:
        >>> pairs = [nnheads.Pair("the code of Mary is", "the code of John is", "park", "hotel")]
        >>> prompts = nnheads.tokenize(nnheads.load("reference").tokenizer, pairs)
        >>> prompts["token"].dims, prompts.attrs["dropped"]
        (('batch', 'position'), '{}')
    """
    kept: list[Row] = []
    dropped: Counter[str] = Counter()
    for number, pair in enumerate(pairs):
        row = _row(tokenizer, number, pair)
        if isinstance(row, Row):
            kept.append(row)
        else:
            dropped[row] += 1
    asked = len(kept) + dropped.total()
    if not kept:
        why = dropped.most_common(1)[0][0] if dropped else "there are none"
        raise BadInput(f"none of {asked} prompt pairs can be used: {why}")
    dataset = _layout(kept, tokenizer)
    return dataset.assign_attrs(
        asked=asked, dropped=json.dumps(dict(dropped)), word_form=_word_form(kept)
    )


def _word_form(rows: list[Row]) -> str:
    """Return in one line how answers were taken that could also have been taken otherwise."""
    forms = Counter(row.form for row in rows if row.form)
    return "; ".join(f"{count} {form}" for form, count in forms.most_common())


def _row(tokenizer, number: int, pair: Pair) -> Row | str:
    """Return the tokens of one pair, or the reason why it cannot be used."""
    clean, corrupted = encode(tokenizer, pair.clean), encode(tokenizer, pair.corrupted)
    if len(clean) != len(corrupted):
        return "clean and corrupted differ in their number of tokens"
    if clean == corrupted:
        return "clean and corrupted are the same tokens"
    words = _words(tokenizer, pair)
    unusable = [name for name, token in words.items() if token is None]
    if unusable:
        return f"{unusable[0].replace('_', ' ')} is not a single token of this tokenizer"
    if words["answer"] == words["wrong"]:
        return "answer and wrong are the same token"
    offsets = encode_with_offsets(tokenizer, pair.clean)[1] if pair.roles else []
    roles = {name: _token_at(pair.clean, offsets, name, span) for name, span in pair.roles.items()}
    form = _form(tokenizer, pair, words["answer"])
    return Row(number, pair, clean, corrupted, words, roles, form)


def _form(tokenizer, pair: Pair, taken: int) -> str:
    """Return how the answer was taken, where nobody said how and it could be another token."""
    if pair.blank is not None or pair.answer[:1].isspace():
        return ""
    spaced, plain = (
        next_token(tokenizer, pair.clean, pair.answer, blank=blank) for blank in (True, False)
    )
    if None in (spaced, plain) or spaced == plain:
        return ""
    return WITH_BLANK if taken == spaced else WITHOUT_BLANK


def _words(tokenizer, pair: Pair) -> dict[str, Any]:
    """Return the token of each word that the pair has; None where it is not one."""
    words = {name: getattr(pair, name) for name in WORDS}
    return {
        name: next_token(tokenizer, pair.clean, word, blank=pair.blank)
        for name, word in words.items()
        if word is not None
    }


def _token_at(text: str, offsets: Offsets, role: str, span: tuple[int, int]) -> int:
    """Return the first token that covers a character of the span."""
    covered = covering(offsets, *span)
    if not covered or not 0 <= span[0] < span[1] <= len(text):
        raise BadInput(
            f"role {role!r} at characters {span[0]} to {span[1]} covers no token of the clean"
            " prompt"
        )
    return covered[0]


def _layout(rows: list[Row], tokenizer) -> xr.Dataset:
    """Lay rows out as a dataset, padded on the left."""
    clean, shift = token_variables([row.clean for row in rows], tokenizer)
    corrupted, _ = token_variables([row.corrupted for row in rows], tokenizer)
    about = {name: {"long_name": f"token ids of the {name} prompt"} for name in WAYS}
    data = {
        "token": (*clean["token"][:2], about["clean"]),
        "corrupted": (*corrupted["token"][:2], about["corrupted"]),
        "mask": clean["mask"],
    }
    words = {name: _word_ids(rows, name) for name in WORDS}
    labels = {**_texts(rows), **_labels(rows), **_roles(rows, shift)}
    return xr.Dataset({**data, **words}, labels)


def _word_ids(rows: list[Row], name: str) -> tuple[str, np.ndarray, dict[str, str]]:
    """Return the token of a word of each pair; -1 where it has none."""
    ids = np.array([row.words.get(name, -1) for row in rows], np.int32)
    return "batch", ids, {"long_name": f"token id of the {name.replace('_', ' ')}"}


def _texts(rows: list[Row]) -> dict[str, list[int] | tuple[str, list]]:
    pairs = [row.pair for row in rows]
    texts = {
        f"{name}_text": ("batch", [getattr(pair, name) for pair in pairs])
        for name in (*WAYS, "answer", "wrong")
    }
    return {"batch": [row.number for row in rows], **texts}


def _labels(rows: list[Row]) -> dict[str, tuple[str, list]]:
    names = rows[0].pair.about
    return {name: ("batch", [row.pair.about[name] for row in rows]) for name in names}


def _roles(rows: list[Row], shift: np.ndarray) -> dict[str, tuple[str, np.ndarray]]:
    """Return where each role stands once the rows are padded."""
    names = rows[0].roles
    positions = {name: np.array([row.roles[name] for row in rows]) + shift for name in names}
    return {f"role_{name}": ("batch", at.astype(np.int32)) for name, at in positions.items()}

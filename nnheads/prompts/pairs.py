"""Clean and corrupted prompts as one labelled dataset, whoever wrote them.

    prompts = tokenize(tokenizer, [Pair(clean=..., corrupted=..., answer="Mary", wrong="John")])

Each pair is audited for the tokenizer at hand (`prompts.pair`): what does not fit is left out and
counted, and BadInput is raised if nothing is left.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import xarray as xr

from nnheads.errors import BadInput
from nnheads.models.texts import added_tokens, encode_all, next_token
from nnheads.prompts.pair import WORDS, Pair, Row, row_of
from nnheads.prompts.tokens import token_variables
from nnheads.runs.coordinates import meaning_of

WAYS = ("clean", "corrupted")


def one_pair(tokenizer, pair: Pair) -> xr.Dataset:
    """Return `tokenize` for a single pair; a refusal shows the tokens.

    Raises BadInput with both token rows if they do not line up, or with the pieces of a word that
    is split.
    """
    clean, corrupted = encode_all(tokenizer, [pair.clean, pair.corrupted])
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
        row = row_of(tokenizer, number, pair)
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


def _labels(rows: list[Row]) -> dict[str, tuple[str, list, dict[str, str]]]:
    """Return what is said of each pair; a name that files do not know says whose it is."""
    named = {
        name: {} if meaning_of(name) else {"long_name": f"label of the pair: {name}"}
        for name in rows[0].pair.about
    }
    return {
        name: ("batch", [row.pair.about[name] for row in rows], about)
        for name, about in named.items()
    }


def _roles(rows: list[Row], shift: np.ndarray) -> dict[str, tuple[str, np.ndarray]]:
    """Return where each role stands once the rows are padded."""
    names = rows[0].roles
    positions = {name: np.array([row.roles[name] for row in rows]) + shift for name in names}
    return {f"role_{name}": ("batch", at.astype(np.int32)) for name, at in positions.items()}

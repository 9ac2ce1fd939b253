"""How a text becomes tokens, everywhere: its special tokens, and the token of a word behind it.

    encode(tokenizer, text)                    # [bos, ...]: what stands in front, nothing behind
    next_token(tokenizer, text, "Mary")        # the one token that the word adds to the text

Tokenizers differ in what they put around a text. Here a text is read as the beginning of one that
goes on: special tokens that a tokenizer puts before every text stand in front, once; those that it
puts behind (an end of sequence) are left out.

A word that is written without a blank before it follows the text with a blank or without one.
`blanks.takes_blank` says which, by what stands before it; whoever knows better says `blank=`.
"""

from __future__ import annotations

from typing import Any

from nnheads.errors import BadInput
from nnheads.models.blanks import takes_blank

Offsets = list[tuple[int, int]]

SAMPLE = "a"


def encode(tokenizer: Any, text: str) -> list[int]:
    """Return the token ids of a text as a model reads its beginning.

    What the tokenizer puts before every text stands in front, once, also where the text has it
    already; what it puts behind (an end-of-sequence token) is left out.

    Raises:
        BadInput: a text with a NUL character, which no file of results can hold.
    """
    _check(text)
    ids = tokenizer(text)["input_ids"]
    return [ids[at] for at in _kept(tokenizer, text, ids)]


def encode_with_offsets(tokenizer: Any, text: str) -> tuple[list[int], Offsets]:
    """Return the token ids of `encode`, and the characters that each one stands for.

    Raises:
        BadInput: as for `encode`, and for a tokenizer that does not know them.
    """
    _check(text)
    if not getattr(tokenizer, "is_fast", False):
        raise BadInput(
            "this tokenizer does not say where its tokens are in the text; a fast one"
            " (tokenizer.json) does"
        )
    encoded = tokenizer(text, return_offsets_mapping=True)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    kept = _kept(tokenizer, text, ids)
    return [ids[at] for at in kept], [offsets[at] for at in kept]


def _check(text: str) -> None:
    """Refuse a character that netCDF ends a text at, and half a character."""
    if "\0" in text:
        at = text.index("\0")
        raise BadInput(f"character {at} of {text[:40]!r} is NUL; write the text without it")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadInput(
            f"character {error.start} of {text[:40]!a} is half a character (a lone surrogate)"
        ) from None


def prefix(tokenizer: Any) -> list[int]:
    """Return the special tokens that stand before every text."""
    ids = encode(tokenizer, SAMPLE)
    return ids[: len(ids) - len(_bare(tokenizer, SAMPLE))]


def tokens_behind(tokenizer: Any, text: str) -> int:
    """Return how many tokens a text takes behind another, a blank between them."""
    both, first = (len(_bare(tokenizer, one)) for one in (f"{SAMPLE} {text}", SAMPLE))
    return both - first


def _bare(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _kept(tokenizer: Any, text: str, ids: list[int]) -> list[int]:
    """Return which ids are the text with one set of special tokens before it."""
    bare = _bare(tokenizer, text)
    added = len(ids) - len(bare)
    if added <= 0:
        return list(range(len(ids)))
    before = _before(tokenizer, added)
    own = set(ids[:before])  # the text may begin with some of them itself
    again = next((at for at, one in enumerate(bare) if one not in own), len(bare))
    return [*range(before), *range(before + again, before + len(bare))]


def _before(tokenizer: Any, added: int) -> int:
    """Return how many of the special tokens of every text stand before it."""
    whole, bare = tokenizer(SAMPLE)["input_ids"], _bare(tokenizer, SAMPLE)
    places = [at for at in range(added + 1) if whole[at : at + len(bare)] == bare]
    return places[0] if places else 0


def next_token(tokenizer: Any, text: str, word: str, *, blank: bool | None = None) -> int | None:
    """Return the one token that `word` adds to `text`; None if it adds several or changes it.

    Args:
        word: with a blank before it, it is taken as it is.
        blank: whether a blank comes before a word that is written without one; None:
            `blanks.takes_blank` says so, and where that form is several tokens and the other is
            one, it is the other.
    """
    if not word.strip():
        return None
    if word[:1].isspace():
        return _added(tokenizer, text, word)
    if blank is not None:
        return _added(tokenizer, text, f" {word}" if blank else word)
    forms = (f" {word}", word) if takes_blank(text, word) else (word, f" {word}")
    found = (_added(tokenizer, text, form) for form in forms)
    return next((token for token in found if token is not None), None)


def added_tokens(tokenizer: Any, text: str, word: str, blank: bool | None = None) -> list[int]:
    """Return the tokens of a text and a word behind it, from where they differ from the text's.

    word, blank: as for `next_token`.
    """
    spaced = takes_blank(text, word) if blank is None else blank
    piece = f" {word}" if spaced and not word[:1].isspace() else word
    before, after = encode(tokenizer, text), encode(tokenizer, text + piece)
    same = next((at for at, pair in enumerate(zip(before, after)) if pair[0] != pair[1]), None)
    return after[min(len(before), len(after)) if same is None else same :]


def _added(tokenizer: Any, text: str, piece: str) -> int | None:
    """Return the one known token that a piece adds to a text, if that is all that changes."""
    before, after = encode(tokenizer, text), encode(tokenizer, text + piece)
    if len(after) == len(before) + 1 and after[:-1] == before:
        token = after[-1]
    else:
        # a text that ends in a blank: the tokenizer would take the blank into the word
        alone = _behind_blank(tokenizer, text, piece)
        if alone is None:
            return None
        token = alone
    return None if token == getattr(tokenizer, "unk_token_id", None) else token


def _behind_blank(tokenizer: Any, text: str, piece: str) -> int | None:
    """Return the token that says a piece and nothing else, behind a text that ends in a blank."""
    if not text[-1:].isspace() or piece[:1].isspace():
        return None
    # behind a line break no tokenizer adds a blank of its own
    before, after = (_bare(tokenizer, one) for one in ("\n", "\n" + piece))
    whole = len(after) == len(before) + 1 and after[:-1] == before
    return after[-1] if whole else None

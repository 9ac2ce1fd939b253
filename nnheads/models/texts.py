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

from collections.abc import Sequence
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
    return encode_all(tokenizer, [text])[0]


def encode_all(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of several texts, each as `encode` does.

    A tokenizer takes as long to be called as to read a sentence: all are read in two calls.

    Raises:
        BadInput: as for `encode`.
    """
    for text in texts:
        _check(text)
    whole, bare = tokenizer([*texts, SAMPLE])["input_ids"], _bare(tokenizer, [*texts, SAMPLE])
    before = _before(whole.pop(), bare.pop())
    return [[ids[at] for at in _kept(ids, own, before)] for ids, own in zip(whole, bare)]


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
    encoded = tokenizer([text, SAMPLE], return_offsets_mapping=True)
    (ids, sample), (offsets, _) = encoded["input_ids"], encoded["offset_mapping"]
    bare, bare_sample = _bare(tokenizer, [text, SAMPLE])
    kept = _kept(ids, bare, _before(sample, bare_sample))
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
    return ids[: len(ids) - len(_bare(tokenizer, [SAMPLE])[0])]


def tokens_behind(tokenizer: Any, *texts: str) -> list[int]:
    """Return how many tokens each text takes behind another, a blank between them."""
    *both, first = _bare(tokenizer, [*(f"{SAMPLE} {text}" for text in texts), SAMPLE])
    return [len(ids) - len(first) for ids in both]


def _bare(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return ids


def _kept(ids: list[int], bare: list[int], before: int) -> list[int]:
    """Return which ids are the text with one set of special tokens before it.

    bare: the text's ids without special tokens. before: how many stand before every text.
    """
    if len(ids) <= len(bare):
        return list(range(len(ids)))
    own = set(ids[:before])  # the text may begin with some of them itself
    again = next((at for at, one in enumerate(bare) if one not in own), len(bare))
    return [*range(before), *range(before + again, before + len(bare))]


def _before(whole: list[int], bare: list[int]) -> int:
    """Return how many special tokens stand before a text, from its ids with and without them."""
    places = range(len(whole) - len(bare) + 1)
    return next((at for at in places if whole[at : at + len(bare)] == bare), 0)


def next_token(tokenizer: Any, text: str, word: str, *, blank: bool | None = None) -> int | None:
    """Return the one token that `word` adds to `text`; None if it adds several or changes it.

    Args:
        word: with a blank before it, it is taken as it is.
        blank: whether a blank comes before a word that is written without one; None:
            `blanks.takes_blank` says so, and where that form is several tokens and the other is
            one, it is the other.
    """
    return next_tokens(tokenizer, text, [word], blank=blank)[0]


def next_tokens(
    tokenizer: Any, text: str, words: Sequence[str], *, blank: bool | None = None
) -> list[int | None]:
    """Return what `next_token` does of each word, in two calls of the tokenizer."""
    forms = [_forms(text, word, blank) for word in words]
    pieces = list(dict.fromkeys(piece for own in forms for piece in own))
    before, *after = encode_all(tokenizer, [text, *(text + piece for piece in pieces)])
    found = {
        piece: _added(tokenizer, text, piece, before, ids) for piece, ids in zip(pieces, after)
    }
    tokens = ([found[piece] for piece in own] for own in forms)
    return [next((token for token in own if token is not None), None) for own in tokens]


def _forms(text: str, word: str, blank: bool | None) -> tuple[str, ...]:
    """Return how a word may be written behind a text, the likelier first."""
    if not word.strip():
        return ()
    if word[:1].isspace():
        return (word,)
    if blank is not None:
        return (f" {word}" if blank else word,)
    return (f" {word}", word) if takes_blank(text, word) else (word, f" {word}")


def added_tokens(tokenizer: Any, text: str, word: str, blank: bool | None = None) -> list[int]:
    """Return the tokens of a text and a word behind it, from where they differ from the text's.

    word, blank: as for `next_token`.
    """
    spaced = takes_blank(text, word) if blank is None else blank
    piece = f" {word}" if spaced and not word[:1].isspace() else word
    before, after = encode_all(tokenizer, [text, text + piece])
    same = next((at for at, pair in enumerate(zip(before, after)) if pair[0] != pair[1]), None)
    return after[min(len(before), len(after)) if same is None else same :]


def _added(
    tokenizer: Any, text: str, piece: str, before: list[int], after: list[int]
) -> int | None:
    """Return the one known token that a piece adds to a text, if that is all that changes.

    before, after: the tokens of the text, and of both.
    """
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
    before, after = _bare(tokenizer, ["\n", "\n" + piece])
    whole = len(after) == len(before) + 1 and after[:-1] == before
    return after[-1] if whole else None

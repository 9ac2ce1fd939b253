"""How a text becomes tokens, everywhere: its special tokens, and the token of a word behind it.

    encode(tokenizer, text)                    # [bos, ...]: what stands in front, nothing behind
    next_token(tokenizer, text, "Mary")        # the one token that the word adds to the text

Tokenizers differ in what they put around a text. Here a text is read as the beginning of one that
goes on: special tokens that a tokenizer puts before every text stand in front, once; those that it
puts behind (an end of sequence) are left out.

A word that is written without a blank before it follows the text with a blank or without one.
`takes_blank` says which, by what stands before it; whoever knows better says `blank=`.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from nnheads.errors import BadInput

Offsets = list[tuple[int, int]]

# scripts that put no blank between words
UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
OPENING = "([{«‹“‘„‚¿¡「『（【《〈$€£#@~_"
CLOSING = ".,;:!?)]}>»›”’…%"
JOINING = "=+-*/\\|&^<>"  # joins what stands on both sides, unless a blank stands before it
# a name at the beginning of a line or behind an operator, with its full stop: `os.`, `x = np.`
CODE_NAME = re.compile(r"(?:^|[(\[{=,+*/-])\s*[A-Za-z_]\w*(?:\.\w+)*\.\Z", re.MULTILINE)
SAMPLE = "a"


def encode(tokenizer: Any, text: str) -> list[int]:
    """Return the token ids of a text as a model reads its beginning.

    What the tokenizer puts before every text stands in front, once, also where the text has it
    already; what it puts behind (an end-of-sequence token) is left out.

    Raises:
        BadInput: a text with a NUL character, which no file of results can hold.
    """
    _check(text)
    ids, first, last = _bounds(tokenizer, text, tokenizer(text)["input_ids"])
    return ids[first:last]


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
    ids, first, last = _bounds(tokenizer, text, encoded["input_ids"])
    return ids[first:last], encoded["offset_mapping"][first:last]


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
    ids, first, last = _bounds(tokenizer, SAMPLE, tokenizer(SAMPLE)["input_ids"])
    return ids[first : last - len(_bare(tokenizer, SAMPLE))]


def tokens_behind(tokenizer: Any, text: str) -> int:
    """Return how many tokens a text takes behind another, a blank between them."""
    both, first = (len(_bare(tokenizer, one)) for one in (f"{SAMPLE} {text}", SAMPLE))
    return both - first


def _bare(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _bounds(tokenizer: Any, text: str, ids: list[int]) -> tuple[list[int], int, int]:
    """Return ids, and which of them are the text with one set of special tokens before it."""
    bare = _bare(tokenizer, text)
    added = len(ids) - len(bare)
    if added <= 0:
        return ids, 0, len(ids)
    before = _before(tokenizer, added)
    again = before and bare[:before] == ids[:before]  # the text begins with them itself
    return ids, before if again else 0, before + len(bare)


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
            `takes_blank` says so.
    """
    if not word.strip():
        return None
    if word[:1].isspace():
        return _added(tokenizer, text, word)
    if blank is None:
        blank = takes_blank(text, word)
    return _added(tokenizer, text, f" {word}" if blank else word)


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


def takes_blank(text: str, word: str) -> bool:
    """Return whether a word that follows a text is written with a blank before it.

    Not behind a blank, an opening bracket or quote, or a sign that joins (=, -, /, $) unless a
    blank stands before that; not before a sign that closes; not in scripts without blanks; not
    behind a full stop that joins (`os.path`, 3.14).
    """
    if not text or text[-1].isspace() or not word or word[0] in CLOSING + "'":
        return False
    last = text[-1]
    if last in OPENING or _unspaced(last) or _unspaced(word[0]):
        return False
    if last in "\"'`":
        return not _opens(text)
    if last in JOINING:
        return text[-2:-1].isspace()
    if last in ".:" and re.search(r"\w[.:]$", text):
        return not _joined(text, word)
    return True


def _unspaced(character: str) -> bool:
    """Return whether a character is of a script that puts no blank between words."""
    name = unicodedata.name(character, "")
    return name.startswith(UNSPACED) or unicodedata.east_asian_width(character) in "WF"


def _opens(text: str) -> bool:
    """Return whether the quotation mark that ends a text opens a quotation."""
    mark, line = text[-1], text.rpartition("\n")[2]
    if mark == "'":  # an apostrophe stands behind a letter
        return len(text) == 1 or not (text[-2].isalnum() or text[-2] in CLOSING)
    return line.count(mark) % 2 == 1


def _joined(text: str, word: str) -> bool:
    """Return whether a full stop or colon joins what stands on both sides: 3.14, 10:30, os.path."""
    before, mark = text[-2], text[-1]
    if before.isdigit() and word[0].isdigit():
        return True
    name = mark == "." and CODE_NAME.search(text)
    return bool(name) and word[0].islower()

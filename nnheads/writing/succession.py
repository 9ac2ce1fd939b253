"""Which heads count on? A successor head that attends to "Monday" raises "Tuesday".

    scores = copy_score.summary(successor_scores(model))

The output circuit is read as for copy scores: for each token of an ordered class, what a head
writes when it attends to the token by itself. A class with fewer than three words is refused; one
whose words are not single tokens is left out.
Source: Gould et al. 2023, arXiv 2312.09230.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float

from nnheads.errors import BadInput
from nnheads.models.texts import next_tokens
from nnheads.writing.shares import cases_of
from nnheads.writing.word_outputs import BEFORE, labelled, outputs

SOURCE = "Gould et al. 2023, arXiv 2312.09230"
SMALLEST = 3  # members of a class; with two, copying turned round would count as succession


@dataclass(frozen=True)
class OrderedClass:
    """Words in their order.

    cyclic: the first one follows the last.
    """

    name: str
    words: tuple[str, ...]
    cyclic: bool = False


TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty"
MONTHS = "January February March April May June July August September October November December"
CLASSES = (
    OrderedClass("digits", tuple(map(str, range(21)))),
    OrderedClass(
        "number words", tuple(f"one two three four five six seven eight nine {TEENS}".split())
    ),
    OrderedClass(
        "ordinals",
        tuple("first second third fourth fifth sixth seventh eighth ninth tenth".split()),
    ),
    OrderedClass(
        "days",
        tuple("Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()),
        cyclic=True,
    ),
    OrderedClass("months", tuple(MONTHS.split()), cyclic=True),
    OrderedClass("letters", tuple(string.ascii_uppercase)),
)


@dataclass(frozen=True)
class Succession:
    """A token of an ordered class, and the token that follows it.

    members: ids of the class's tokens, in their order. place, following: indices into members.
    """

    name: str
    members: list[int]
    place: int
    following: int

    @property
    def token(self) -> int:
        """Return the id of the token."""
        return self.members[self.place]

    @property
    def next_token(self) -> int:
        """Return the id of the token that follows it."""
        return self.members[self.following]


def successor_scores(model, classes: Sequence[OrderedClass] | None = None) -> xr.Dataset:
    """Return whether a head that attends to a token of an ordered class ranks the next one first.

    First means above every other token of the class.

    Args:
        classes: ordered words; of each class those count that are single tokens. Default: CLASSES.

    Returns:
        (batch, layer, head): `successor` (1 or 0) and `successor_null`, what a random order of the
        class's other tokens would give: 1 / (size - 1), or 0 where the head ranks the token itself
        first. Coordinates `token`, `token_text`, `successor_text` and `ordered_class` (batch).
        `copy_score.summary` reduces it.

    Raises:
        BadInput: a class of fewer than 3 words, or none with 3 single tokens. RunError: values that
            are not finite.

    Source: Gould et al. 2023, arXiv 2312.09230.

    Example:
        >>> from nnheads.writing.succession import OrderedClass
        >>> numbers = OrderedClass("digits", tuple("0123456789"))
        >>> scores = nnheads.successor_scores(nnheads.load(), [numbers])
        >>> scores["successor"].dims
        ('batch', 'layer', 'head')
    """
    chosen = CLASSES if classes is None else classes
    rows = [row for each in chosen for row in _successions(model.tokenizer, each)]
    if not rows:
        raise BadInput(
            f"No class has {SMALLEST} words that are single tokens of this tokenizer. Give classes"
            " of other words."
        )
    ids = np.array([row.token for row in rows])
    logits = outputs(model, ids, members=_members(rows), top=1)["members"]
    scores = labelled(model, _variables(rows, logits), ids).assign_attrs(scores="successor")
    texts = [model.tokenizer.decode([row.next_token]) for row in rows]
    names = [row.name for row in rows]
    return scores.assign_coords(ordered_class=("batch", names), successor_text=("batch", texts))


def _variables(
    rows: list[Succession], logits: Float[np.ndarray, "token layer head member"]
) -> dict[str, tuple]:
    """Return `successor` and its null, of every token."""
    hits = np.stack([_ranked_first(row, own) for row, own in zip(rows, logits)])
    nulls = np.stack([_null(row, own) for row, own in zip(rows, logits)])
    meaning = "the next token is ranked above all others of its class"
    return {
        "successor": cases_of(hits, meaning, SOURCE),
        "successor_null": cases_of(nulls, "the same in a random order of the class", SOURCE),
    }


def _members(rows: list[Succession]) -> np.ndarray:
    """Return the ids of each token's class [token, member]; shorter classes repeat their first."""
    widest = max(len(row.members) for row in rows)
    return np.array([[*own, *own[:1] * (widest - len(own))] for own in (r.members for r in rows)])


def _ranked_first(
    row: Succession, logits: Float[np.ndarray, "layer head member"]
) -> Float[np.ndarray, "layer head"]:
    """Return 1 where the next token is ranked above all others of its class, else 0."""
    own = logits[..., : len(row.members)]
    others = np.delete(own, row.following, -1).max(-1)
    return (own[..., row.following] > others).astype(float)


def _null(
    row: Succession, logits: Float[np.ndarray, "layer head member"]
) -> Float[np.ndarray, "layer head"]:
    """Return how often a random order of the other tokens would rank the next one first."""
    own = logits[..., : len(row.members)]
    itself = np.delete(own, row.place, -1).max(-1) <= own[..., row.place]
    return np.where(itself, 0.0, 1 / (len(row.members) - 1))


def _successions(tokenizer, each: OrderedClass) -> Iterator[Succession]:
    """Yield every token of a class that has a next one; none of a class with too few tokens."""
    if len(each.words) < SMALLEST:
        raise BadInput(
            f"Class {each.name!r} has {len(each.words)} words. Give at least {SMALLEST}."
        )
    ids = _ids(tokenizer, each.words)
    kept = [token for token in ids if token is not None]
    if len(set(kept)) < max(SMALLEST, len(kept)):
        return
    for token, following in zip(ids, _following(ids, each.cyclic)):
        if token is not None and following is not None:
            yield Succession(each.name, kept, kept.index(token), kept.index(following))


def _following(ids: list[int | None], cyclic: bool) -> list[int | None]:
    """Return what follows each token; nothing, or the first one, follows the last."""
    return [*ids[1:], ids[0] if cyclic else None]


def _ids(tokenizer, words: Sequence[str]) -> list[int | None]:
    """Return each word's single token, or None.

    Words stand after a space or, if that gives more single tokens, without one.
    """
    spaced = next_tokens(tokenizer, BEFORE, words, blank=True)
    bare = tokenizer(list(words), add_special_tokens=False)["input_ids"]
    plain = [_single(pieces, tokenizer.unk_token_id) for pieces in bare]
    return max(spaced, plain, key=_count)


def _single(pieces: list[int], unknown: int | None) -> int | None:
    """Return the token of a word that is one, and not unknown."""
    return pieces[0] if len(pieces) == 1 and pieces[0] != unknown else None


def _count(ids: list[int | None]) -> int:
    return sum(token is not None for token in ids)

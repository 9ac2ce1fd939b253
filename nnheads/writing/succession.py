"""Which heads count on? A successor head that looks at "Monday" raises "Tuesday" above the other
days.

The output circuit is read as in `copying`: for each token of an ordered class, what a head writes
    when it attends to
the token by itself. Source: Gould et al. 2023, arXiv 2312.09230.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from nnheads.errors import BadInput
from nnheads.prompts.pairs import next_token
from nnheads.writing.copy_score import BEFORE, cases_of, labelled, outputs

SOURCE = "Gould et al. 2023, arXiv 2312.09230"
SMALLEST = 3  # members of a class; with two, copying turned round would count as succession


@dataclass(frozen=True)
class OrderedClass:
    """Words in their order. `cyclic`: the first one follows the last."""

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


def successor_scores(model, classes: Sequence[OrderedClass] | None = None) -> xr.Dataset:
    """Does a head that looks at a token of an ordered class rank the next one above every other
    token of the class?

    Args:
        classes: ordered words; of each class those count that are single tokens. Default: CLASSES.

    Returns:
        (batch, layer, head): `successor` (1 or 0) and `successor_null`, what a random order of the
        class's other
        tokens would give: 1 / (size - 1), or 0 where the head ranks the token itself first.
            Coordinates `token`,
        `token_text`, `successor_text` and `ordered_class` (batch). `copying.summary` reduces it.

    Raises:
        BadInput: a class of fewer than 3 words, or none with 3 single tokens.
    """
    rows = list(_rows(model.tokenizer, CLASSES if classes is None else classes))
    if not rows:
        raise BadInput(f"no class has {SMALLEST} words that are single tokens of this tokenizer")
    widest = max(len(members) for _, members, _, _ in rows)
    members = np.array([[*own, *own[:1] * (widest - len(own))] for _, own, _, _ in rows])
    ids = np.array([own[place] for _, own, place, _ in rows])
    logits = outputs(model, ids, members=members, top=1)["members"]
    hit, null = np.zeros(logits.shape[:3]), np.zeros(logits.shape[:3])
    for line, (_, own, place, following) in enumerate(rows):
        each = logits[line][..., : len(own)]
        others = np.delete(each, following, -1).max(-1)
        hit[line] = each[..., following] > others
        itself = np.delete(each, place, -1).max(-1) <= each[..., place]
        null[line] = np.where(itself, 0.0, 1 / (len(own) - 1))
    data = {
        "successor": cases_of(
            hit, "the next token is ranked above all others of its class", SOURCE
        ),
        "successor_null": cases_of(null, "the same in a random order of the class", SOURCE),
    }
    following = np.array([own[after] for _, own, _, after in rows])
    found = labelled(model, data, ids).assign_attrs(scores="successor")
    texts = [model.tokenizer.decode([token]) for token in following]
    return found.assign_coords(
        ordered_class=("batch", [name for name, *_ in rows]), successor_text=("batch", texts)
    )


def _rows(tokenizer, classes: Sequence[OrderedClass]):
    """(class, ids of its members, place of a token, place of the next) for every token that has a
    next one.
    """
    for each in classes:
        if len(each.words) < SMALLEST:
            raise BadInput(
                f"class {each.name!r} has {len(each.words)} words; at least {SMALLEST} are needed"
            )
        ids = _ids(tokenizer, each.words)
        kept = [token for token in ids if token is not None]
        if len(set(kept)) < max(SMALLEST, len(kept)):
            continue
        for place, token in enumerate(ids):
            after = (place + 1) % len(ids)
            following = ids[after]
            if token is not None and following is not None and (after > 0 or each.cyclic):
                yield each.name, kept, kept.index(token), kept.index(following)


def _ids(tokenizer, words: Sequence[str]) -> list[int | None]:
    """Each word's single token, or None: after a space or, if that gives more of them, without one."""
    spaced = [next_token(tokenizer, BEFORE, word) for word in words]
    bare = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
    unknown = tokenizer.unk_token_id
    plain = [one[0] if len(one) == 1 and one[0] != unknown else None for one in bare]
    return max(spaced, plain, key=lambda found: sum(token is not None for token in found))

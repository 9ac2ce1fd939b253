"""Indirect-object sentences: "When Mary and John went to the market, John gave the book to" ->
Mary.

The repeated name is the subject S (first S1, then S2), the other one the indirect object IO; the
model has to name IO at END. A corruption changes who is who and leaves the rest of the sentence
alone.
Source: Wang et al. 2022, arXiv 2211.00593. The sentences are our own (`ioi_words.py`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import xarray as xr

from nnheads.errors import BadInput
from nnheads.prompts.ioi_words import ADJECTIVES, NAMES, OBJECTS, PLACES, TEMPLATES
from nnheads.prompts.pairs import Pair, next_token, tokenize

CORRUPTIONS = {
    "other": "S2 becomes the other name, so the other answer is right",
    "random": "S2 becomes a third name, so no answer is right",
    "abc": "all three names become fresh ones, so no answer is right",
    "swapped": "IO and S1 change places, so the answer stays and the order flips",
}
ORDERS = ("ABBA", "BABA")  # IO first, S first


def ioi(
    tokenizer,
    n: int = 100,
    *,
    seed: int = 0,
    corruption: str = "other",
    spread: int = 0,
    templates: Sequence[str] = TEMPLATES,
    names: Sequence[str] = NAMES,
) -> xr.Dataset:
    """Draw n sentences with their corruptions, templates and orders in turn.

    As published, END always stands as far behind S2 (four tokens: "gave the book to"), so that a
        head that looks at
    S2 and one that looks so far back do the same. With `spread` they do not.

    Args:
        tokenizer: the model's; names that it splits are left out.
        corruption: one of CORRUPTIONS.
        spread: up to so many adjectives stand before the object, from none to all in turn.

    Returns:
        A pair dataset (see `prompts.pairs.tokenize`) with coordinates `template`, `order`,
        `indirect_object`, `subject`, `role_IO`, `role_S1`, `role_S2`, `role_END`; attrs
        `names_single`, `names_split`.

    Raises:
        BadInput: n < 1, seed < 0, unknown corruption, a spread beyond the adjectives that there
            are, or a tokenizer that keeps fewer than five names whole.
    """
    if n < 1:
        raise BadInput(f"{n} prompts were asked for; ask for at least 1")
    if seed < 0:
        raise BadInput(f"seed {seed} is not possible; it must be at least 0")
    check_corruption(corruption)
    check_spread(spread)
    whole = single_token_names(tokenizer, names)
    if len(whole) < 5:
        raise BadInput(
            f"only {len(whole)} of {len(names)} names are single tokens of this tokenizer; 5 are"
            " needed"
        )
    drawn = draw(
        n, seed=seed, corruption=corruption, templates=templates, names=whole, spread=spread
    )
    dataset = tokenize(tokenizer, drawn)
    dataset.attrs.update(
        title="indirect-object sentences",
        seed=seed,
        corruption=corruption,
        about=CORRUPTIONS[corruption],
        names_single=len(whole),
        names_split=len(names) - len(whole),
        spread=spread,
    )
    return dataset


def check_corruption(corruption: str) -> None:
    if corruption not in CORRUPTIONS:
        raise BadInput(
            f"corruption {corruption!r} is not known; use one of {', '.join(CORRUPTIONS)}"
        )


def check_spread(spread: int) -> None:
    if not 0 <= spread <= len(ADJECTIVES):
        raise BadInput(
            f"spread {spread} is not possible; there are {len(ADJECTIVES)} adjectives to choose"
            " from"
        )


def single_token_names(tokenizer, names: Sequence[str] = NAMES) -> list[str]:
    """The names that this tokenizer keeps whole after a space."""
    return [name for name in names if next_token(tokenizer, "and", name) is not None]


def draw(
    n: int,
    *,
    seed: int,
    corruption: str,
    templates: Sequence[str],
    names: Sequence[str],
    spread: int = 0,
) -> list[Pair]:
    """n pairs, the same for the same seed whatever the platform; but for adjectives, also with
    another `spread`.
    """
    generator, other = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    pairs = []
    for number in range(n):
        place, round_ = number % len(templates), number // len(templates)
        # in pairs of templates and of rounds, since orders alternate from one to the next
        between = other.choice(ADJECTIVES, (place // 2 + round_ // 2) % (spread + 1), replace=False)
        template = templates[place].format(
            first="{first}",
            second="{second}",
            subject="{subject}",
            place=generator.choice(PLACES),
            object=" ".join([*between, generator.choice(OBJECTS)]),
        )
        # orders alternate once per round of templates, so that each template meets both
        order = ORDERS[(place + round_) % 2]
        chosen = [str(name) for name in generator.choice(names, size=5, replace=False)]
        about = {"template": place, "order": order}
        pairs.append(corrupt(template, order, chosen, corruption, about))
    return pairs


def corrupt(template: str, order: str, names: Sequence[str], corruption: str, about: dict) -> Pair:
    """Fill a sentence with names (IO, S and three fresh ones) and derive its corruption."""
    io, subject, x, y, z = names
    first, second = (io, subject) if order == "ABBA" else (subject, io)
    clean, roles = _fill(template, first, second, subject)
    filled, right = {
        "other": ((first, second, io), subject),
        "random": ((first, second, x), None),
        "abc": ((x, y, z), None),
        "swapped": ((second, first, subject), io),
    }[corruption]
    places = {
        "IO": roles["first" if order == "ABBA" else "second"],
        "S1": roles["second" if order == "ABBA" else "first"],
    }
    return Pair(
        clean=clean,
        corrupted=_fill(template, *filled)[0],
        answer=io,
        wrong=subject,
        corrupted_answer=right,
        roles={**places, "S2": roles["subject"], "END": (len(clean) - 1, len(clean))},
        about={**about, "indirect_object": io, "subject": subject},
    )


def _fill(
    template: str, first: str, second: str, subject: str
) -> tuple[str, dict[str, tuple[int, int]]]:
    """The sentence, and the characters that each name takes in it."""
    text, spans = "", {}
    for part in re.split(r"(\{\w+\})", template):
        name = {"{first}": first, "{second}": second, "{subject}": subject}.get(part)
        if name is not None:
            spans[part[1:-1]] = (len(text), len(text) + len(name))
        text += part if name is None else name
    return text, spans

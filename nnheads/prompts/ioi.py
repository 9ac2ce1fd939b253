"""Indirect-object sentences: "When Mary and John went to the market, John gave the book to" ->
Mary.

    prompts = ioi(tokenizer, 100, corruption="other")    # clean and corrupted, token by token

The repeated name is the subject S (first S1, then S2), the other one the indirect object IO; the
model has to name IO at END. A corruption changes who is who and leaves the rest of the sentence
alone. `ioi_spans.py` adds where heads should look.
Source: Wang et al. 2022, arXiv 2211.00593. The sentences are our own (`ioi_words.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from nnheads.errors import BadInput, Untypable
from nnheads.models.texts import next_tokens
from nnheads.prompts.checks import check_count
from nnheads.prompts.ioi_words import ADJECTIVES, NAMES, OBJECTS, PLACES, TEMPLATES
from nnheads.prompts.pair import Pair
from nnheads.prompts.pairs import tokenize

CORRUPTIONS = {
    "other": "S2 becomes the other name, so the other answer is right",
    "random": "S2 becomes a third name, so no answer is right",
    "abc": "all three names become fresh ones, so no answer is right",
    "swapped": "IO and S1 change places, so the answer stays and the order flips",
}
ORDERS = ("ABBA", "BABA")  # IO first, S first


SLOT = re.compile(r"(\{\w+\})")
LEAST_NAMES = 5


@dataclass(frozen=True)
class Cast:
    """The names of one sentence: indirect object, subject, and three fresh ones."""

    io: str
    subject: str
    fresh: tuple[str, str, str]


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
    """Draw n indirect-object sentences with their corruptions, templates and orders in turn.

    As published, END always stands as far behind S2 (four tokens: "gave the book to"), so that a
    head that looks at S2 and one that looks so far back do the same. With `spread` they do not.

    Args:
        tokenizer: the model's; names that it splits are left out.
        n: how many sentences.
        seed: of names, places and objects.
        corruption: one of CORRUPTIONS.
        spread: up to so many adjectives stand before the object, from none to all in turn.
        templates, names: other words than those that ship.

    Returns:
        A pair dataset (see `prompts.pairs.tokenize`): `token`, `corrupted`, `mask` (batch,
        position), `answer`, `wrong` (batch), token ids; coordinates (batch) `template`, `order`,
        `indirect_object`, `subject`, `role_IO`, `role_S1`, `role_S2`, `role_END`, positions in
        tokens from 0; attrs `names_single`, `names_split`.

    Raises:
        BadInput: n < 1, seed < 0, unknown corruption, a spread beyond the adjectives that there
            are, or a tokenizer that keeps fewer than five names whole.

    Source: Wang et al. 2022, arXiv 2211.00593.

    Example:
        >>> prompts = nnheads.ioi(nnheads.load("reference").tokenizer, 4)
        >>> prompts["token"].dims, prompts.sizes["batch"], prompts.attrs["corruption"]
        (('batch', 'position'), 4, 'other')
    """
    check_count(n)
    if seed < 0:
        raise BadInput(f"seed {seed} is not possible; it must be at least 0")
    check_corruption(corruption)
    check_spread(spread)
    whole = single_token_names(tokenizer, names)
    if len(whole) < LEAST_NAMES:
        raise Untypable(
            f"only {len(whole)} of {len(names)} names are single tokens of this tokenizer;"
            f" {LEAST_NAMES} are needed"
        )
    drawn = draw(
        n, seed=seed, corruption=corruption, templates=templates, names=whole, spread=spread
    )
    return tokenize(tokenizer, drawn).assign_attrs(
        title="indirect-object sentences",
        seed=seed,
        corruption=corruption,
        about=CORRUPTIONS[corruption],
        names_single=len(whole),
        names_split=len(names) - len(whole),
        spread=spread,
    )


def check_corruption(corruption: str) -> None:
    """Refuse a corruption that is not known."""
    if corruption not in CORRUPTIONS:
        raise BadInput(
            f"corruption {corruption!r} is not known; use one of {', '.join(CORRUPTIONS)}"
        )


def check_spread(spread: int) -> None:
    """Refuse more adjectives than there are."""
    if not 0 <= spread <= len(ADJECTIVES):
        raise BadInput(
            f"spread {spread} is not possible; there are {len(ADJECTIVES)} adjectives to choose"
            " from"
        )


def single_token_names(tokenizer, names: Sequence[str] = NAMES) -> list[str]:
    """Return the names that this tokenizer keeps whole after a space."""
    tokens = next_tokens(tokenizer, "and", names, blank=True)
    return [name for name, token in zip(names, tokens) if token is not None]


def draw(
    n: int,
    *,
    seed: int,
    corruption: str,
    templates: Sequence[str],
    names: Sequence[str],
    spread: int = 0,
) -> list[Pair]:
    """Draw n pairs, the same for the same seed whatever the platform.

    But for adjectives they are also the same with another `spread`.
    """
    generator = np.random.default_rng(seed)
    pairs = []
    for number, adjectives in enumerate(_adjectives(n, len(templates), seed, spread)):
        place, round_ = number % len(templates), number // len(templates)
        template = _filled_in(templates[place], adjectives, generator)
        # orders alternate once per round of templates, so that each template meets both
        order = ORDERS[(place + round_) % 2]
        chosen = [str(name) for name in generator.choice(names, size=5, replace=False)]
        about = {"template": place, "order": order}
        pairs.append(corrupt(template, order, chosen, corruption, about))
    return pairs


def _adjectives(n: int, templates: int, seed: int, spread: int) -> Iterator[list[str]]:
    """Draw what stands before the object of n sentences, from a generator of its own."""
    generator = np.random.default_rng([seed, 1])
    for number in range(n):
        # in pairs of templates and of rounds, since orders alternate from one to the next
        turn = number % templates // 2 + number // templates // 2
        yield generator.choice(ADJECTIVES, turn % (spread + 1), replace=False).tolist()


def _filled_in(template: str, adjectives: list[str], generator: np.random.Generator) -> str:
    """Return a template with its place and object; the names are still slots."""
    place = generator.choice(PLACES)
    things = " ".join([*adjectives, generator.choice(OBJECTS)])
    names = {slot: f"{{{slot}}}" for slot in ("first", "second", "subject")}
    return template.format(place=place, object=things, **names)


def corrupt(template: str, order: str, names: Sequence[str], corruption: str, about: dict) -> Pair:
    """Fill a sentence with names (IO, S and three fresh ones) and derive its corruption."""
    io, subject, x, y, z = names
    first, second = (io, subject) if order == "ABBA" else (subject, io)
    clean, roles = _fill(template, first, second, subject)
    filled, right = _corruption(corruption, first, second, Cast(io, subject, (x, y, z)))
    io_at, s1_at = ("first", "second") if order == "ABBA" else ("second", "first")
    ends = {"S2": roles["subject"], "END": (len(clean) - 1, len(clean))}
    return Pair(
        clean=clean,
        corrupted=_fill(template, *filled)[0],
        answer=io,
        wrong=subject,
        corrupted_answer=right,
        roles={"IO": roles[io_at], "S1": roles[s1_at], **ends},
        about={**about, "indirect_object": io, "subject": subject},
        blank=True,
    )


def _corruption(
    corruption: str, first: str, second: str, cast: Cast
) -> tuple[tuple[str, str, str], str | None]:
    """Return the corrupted sentence's first, second and third name, and its right answer."""
    if corruption == "other":
        return (first, second, cast.io), cast.subject
    if corruption == "swapped":
        return (second, first, cast.subject), cast.io
    return (first, second, cast.fresh[0]) if corruption == "random" else cast.fresh, None


def _fill(
    template: str, first: str, second: str, subject: str
) -> tuple[str, dict[str, tuple[int, int]]]:
    """Return the sentence, and the characters that each name takes in it."""
    names = {"{first}": first, "{second}": second, "{subject}": subject}
    text, spans = "", {}
    for part in SLOT.split(template):
        name = names.get(part, part)
        if part in names:
            spans[part[1:-1]] = (len(text), len(text) + len(name))
        text += name
    return text, spans

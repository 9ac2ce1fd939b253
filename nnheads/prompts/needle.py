"""A needle in a haystack: a fact hidden in unrelated text, a question about it, and the answer.

The answer is teacher-forced, so one forward shows where every head looks at each token of it. The
haystack is made here, or read from files. On the reference model everything is said in its own
small language.
Source: Wu et al. 2024, arXiv 2404.15574 (the task; needles and text are our own).
"""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import xarray as xr

from nnheads.errors import BadInput
from nnheads.prompts.haystack import Haystack
from nnheads.prompts.needles import CODE_LENGTH, PLAIN, TERSE, Needle, code_needle, read_needles
from nnheads.spans.layout import (
    NULL,
    NULL_DRAWS,
    encode,
    null_in_rows,
    pad_left,
    span_dataset,
    stack_spans,
)

LENGTHS = (128, 256)
DEPTHS = tuple(step / 9 for step in range(10))
GOLDEN = (5**0.5 - 1) / 2


def needle(
    tokenizer,
    n: int = 32,
    *,
    lengths: list[int] | None = None,
    depths: list[float] | None = None,
    seed: int = 0,
    haystack: str | Path | None = None,
    needles: str | Path | None = None,
) -> xr.Dataset:
    """n prompts over all lengths, depths and needles; fewer than there are of these are spread over
    them.

    Prompts that go once through all of them stand in one and the same text, so that they begin
    alike; the next ones get a text of their own. A needle stands at the end of the sentence that is
    nearest to the depth asked for; needles from a file, which come again at other lengths, may move
    as in `needle_grid`.

    Args:
        lengths: about how many tokens a prompt has; default 128 and 256.
        depths: where the needle is, from 0 (start) to 1 (end); default ten.
        haystack: a folder of .txt files; default: bland sentences made up here.
        needles: JSON lines with needle, question and answer; default: codes of a few words, new in
            each prompt. Prompts that ask about the same needle are not independent: with few of
            them, intervals are too narrow.

    Kinds of spans, asked at the token that predicts answer token j:
        retrieval        answer token j in the needle
        retrieval~null   random tokens of the context
        needle           all answer tokens in the needle

    Returns:
        A span dataset with `ask` and `target` (batch, step), the positions and tokens of the
        answer, -1 where an answer is shorter than others; coordinates (batch) `length`, `depth` (0
        start, 1 end; where the needle really came to stand), `depth_asked`, `haystack_number`
        (prompts with the same one share their text) and `text`.

    Raises:
        BadInput: a folder or file that cannot be used, a length that does not hold needle and
            question, a depth that is none, or a tokenizer that splits all code words or does not
            know an answer.
    """
    if n < 1:
        raise BadInput(f"{n} prompts were asked for; ask for at least 1")
    rng = random.Random(seed)
    style = TERSE if _only_terse(tokenizer) else PLAIN
    source = Haystack(tokenizer, rng, style is TERSE, haystack)
    given = None if needles is None else read_needles(needles)
    words = single_words(tokenizer, source.code_words) if given is None else []
    lengths, depths, rows = list(lengths or LENGTHS), list(depths or DEPTHS), []
    asked, size = (
        cells(n, lengths, depths, len(given or [0])),
        len(lengths) * len(depths) * len(given or [0]),
    )
    step = _between(depths) if given else 0.0
    for number, first in enumerate(range(0, n, size)):
        part = asked[first : first + size]
        # codes are new in each prompt, or the cases of one haystack would not be independent
        facts = [given[which] if given else code_needle(rng, style, words) for *_, which in part]
        written = _in_one_text(tokenizer, source, style[2], part, facts, step)
        rows += [row | {"haystack_number": number} for row in written]
    dataset = _dataset(rows, tokenizer.pad_token_id or 0, np.random.default_rng(seed))
    dataset.attrs.update(_origin(seed, haystack, needles))
    return dataset


def needle_grid(
    tokenizer,
    *,
    lengths: list[int],
    depths: list[float],
    needles: int | str | Path = 1,
    seed: int = 0,
    haystack: str | Path | None = None,
) -> xr.Dataset:
    """Every length at every depth with every needle, all in one and the same text, so that prompts
    begin alike.

    A needle stands at the end of a sentence. Where that moves it by less than half the distance
    between two depths, prompts of different lengths share that place, and then everything up to the
    end of the shorter text.

    Args:
        needles: how many codes to make up, or JSON lines as for `needle`. Others: as for `needle`.

    Returns: what `needle` does, and the coordinate `needle_number` (batch).
    """
    if not lengths or not depths or (isinstance(needles, int) and needles < 1):
        raise BadInput("a grid needs at least one length, one depth and one needle")
    rng = random.Random(seed)
    style = TERSE if _only_terse(tokenizer) else PLAIN
    source = Haystack(tokenizer, rng, style is TERSE, haystack)
    words = single_words(tokenizer, source.code_words) if isinstance(needles, int) else []
    made = (
        [code_needle(rng, style, words) for _ in range(needles)] if isinstance(needles, int) else []
    )
    given = made or read_needles(str(needles))
    asked = cells(len(lengths) * len(depths) * len(given), lengths, depths, len(given))
    facts = [given[which] for *_, which in asked]
    rows = _in_one_text(tokenizer, source, style[2], asked, facts, _between(depths))
    dataset = _dataset(rows, tokenizer.pad_token_id or 0, np.random.default_rng(seed))
    dataset.attrs.update(_origin(seed, haystack, None if made else str(needles)))
    return dataset.assign_coords(needle_number=("batch", [one[2] for one in asked]))


def _between(depths: list[float]) -> float:
    """The least distance between two depths."""
    return float(min(np.diff(sorted(set(depths))), default=0.0))


def _in_one_text(
    tokenizer,
    source: Haystack,
    form: str,
    asked: list[tuple],
    facts: list[Needle],
    step: float = 0.0,
) -> list[dict]:
    """A prompt for each (length, depth, ...) and its needle, all from the same text; `step` as for
    `shared_places`.
    """
    rooms = [_room(tokenizer, form, fact, length) for fact, (length, *_) in zip(facts, asked)]
    text = source.sentences(max(rooms))
    ends = np.cumsum(
        [0, *(len(tokenizer(f" {one}", add_special_tokens=False)["input_ids"]) for one in text)]
    )
    stops, depths = (
        np.searchsorted(ends, rooms, side="right") - 1,
        np.array([depth for _, depth, _ in asked]),
    )
    rows = []
    for one, fact, stop, place in zip(
        asked, facts, stops, shared_places(ends, stops, depths, step)
    ):
        about = {
            "length": one[0],
            "depth_asked": one[1],
            "depth": float(ends[place] / max(1, ends[stop])),
        }
        rows.append(
            _written(tokenizer, text[:stop], place, form, fact) | about | {"haystack_number": 0}
        )
    return rows


def shared_places(
    ends: np.ndarray, stops: np.ndarray, depths: np.ndarray, step: float
) -> list[int]:
    """After how many sentences each needle stands, so that few places serve all.

    Args:
        ends: tokens before the first, second, ... sentence and after the last.
        stops, depths: [cell] how many sentences a cell has, and the depth that it asks for.
        step: twice the depth by which a needle may be moved from where it was asked for.
    """
    size, wanted = ends[stops], depths * ends[stops]
    nearest = np.array(
        [np.abs(ends[: stop + 1] - place).argmin() for stop, place in zip(stops, wanted)]
    )
    low = np.minimum(np.searchsorted(ends, wanted - step / 2 * size, side="right"), nearest)
    high = np.minimum(
        np.maximum(np.searchsorted(ends, wanted + step / 2 * size) - 1, nearest), stops
    )
    places = np.full(len(stops), -1)
    for cell in np.argsort(
        -stops, kind="stable"
    ):  # the longest first: the shorter then cost nothing
        here = np.unique(places[(places >= low[cell]) & (places <= high[cell])])
        if not here.size:
            here = np.arange(low[cell], high[cell] + 1)
            serves = (low <= here[:, None]) & (here[:, None] <= high) & (places < 0)
            saved = (serves * (size - ends[here][:, None])).sum(1)
            here = here[saved == saved.max()]
        places[cell] = here[np.abs(ends[here] - wanted[cell]).argmin()]
    return places.tolist()


def cells(
    n: int, lengths: list[int], depths: list[float], needles: int
) -> list[tuple[int, float, int]]:
    """(length, depth, needle) of n prompts: all in turn, or, where they are more than n, steps of
    the golden ratio through them, so that a few prompts still meet every length and depth alike."""
    for depth in depths:
        if not 0 <= depth <= 1:
            raise BadInput(f"depth {depth} is not possible; it runs from 0 (start) to 1 (end)")
    total = len(lengths) * len(depths) * needles
    stride = 1
    if n < total:
        stride = max(1, round(GOLDEN * total))
        while math.gcd(stride, total) > 1:
            stride += 1
    order = [number * stride % total for number in range(n)]
    return [
        (
            lengths[cell % len(lengths)],
            depths[cell // len(lengths) % len(depths)],
            cell // (len(lengths) * len(depths)),
        )
        for cell in order
    ]


def _origin(seed: int, haystack: str | Path | None, needles: str | Path | None) -> dict:
    used = {"haystack": haystack, "needles": needles}
    files = {name: "made up" if path is None else Path(path).name for name, path in used.items()}
    about = {"title": "needle in a haystack", "seed": seed, "null_draws": NULL_DRAWS}
    return {**about, "source": "Wu et al. 2024, arXiv 2404.15574", **files}


def _dataset(rows: list[dict], fill: int, generator: np.random.Generator) -> xr.Dataset:
    """Prompts of different lengths, with answers of different lengths, as one dataset."""
    token, mask, shift = pad_left([row["ids"] for row in rows], fill)
    spans = {
        kind: stack_spans([row[kind] for row in rows], shift) for kind in ("retrieval", "needle")
    }
    spans[f"retrieval{NULL}"] = null_in_rows(spans["retrieval"], shift, generator)
    dataset = span_dataset(token, mask, spans)
    ask = spans["retrieval"][0]
    target = np.where(ask < 0, -1, np.take_along_axis(token, np.maximum(ask, 0) + 1, 1))
    place, short = ("batch", "step"), "; -1: this answer is shorter"
    dataset["ask"] = (
        place,
        ask.astype(np.int32),
        {"long_name": f"position that predicts the answer token{short}"},
    )
    dataset["target"] = (
        place,
        target.astype(np.int32),
        {"long_name": f"token of the answer{short}"},
    )
    named = ("length", "depth", "depth_asked", "haystack_number", "text")
    return dataset.assign_coords({name: ("batch", [row[name] for row in rows]) for name in named})


def single_words(tokenizer, words: tuple[str, ...]) -> list[str]:
    """Words that are one token after a space."""
    unknown = getattr(tokenizer, "unk_token_id", None)
    pieces = {word: tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in words}
    whole = [word for word, ids in pieces.items() if len(ids) == 1 and ids[0] != unknown]
    if len(whole) < 2 * CODE_LENGTH:
        raise BadInput(
            f"only {len(whole)} code words are single tokens of this tokenizer; {2 * CODE_LENGTH}"
            " are needed"
        )
    return whole


def _only_terse(tokenizer) -> bool:
    unknown = getattr(tokenizer, "unk_token_id", None)
    plain = PLAIN[2].format(question=PLAIN[1].format(name="Mary"))
    return unknown is not None and unknown in tokenizer(plain)["input_ids"]


def _room(tokenizer, form: str, needle: Needle, length: int) -> int:
    """How many tokens a prompt of this length has left for the haystack."""
    question = form.format(question=needle.question)
    used = len(tokenizer(f" {needle.fact}{question} {needle.answer}")["input_ids"])
    if used >= length:
        raise BadInput(
            f"a prompt of {length} tokens cannot hold needle, question and answer ({used} tokens)"
        )
    return length - used


def _written(tokenizer, sentences: list[str], place: int, form: str, needle: Needle) -> dict:
    """The needle after this many sentences, the question and the answer; and where the answer is in
    the needle.
    """
    fact, answer, question = needle.fact, needle.answer, form.format(question=needle.question)
    before = " ".join(sentences[:place])
    text = " ".join([*sentences[:place], fact, *sentences[place:]]) + question
    ids, offsets = encode(tokenizer, f"{text} {answer}")
    there, asked = len(before) + bool(before) + needle.start, len(text) + 1
    written = _covering(offsets, asked, asked + len(answer))
    if getattr(tokenizer, "unk_token_id", None) in [ids[one] for one in written]:
        raise BadInput(f"this tokenizer does not know all words of the answer {answer!r}")
    pairs = _pairs(ids, offsets, written, asked, there, len(answer))
    if not pairs:
        raise BadInput(f"this tokenizer has no token for the answer {answer!r}")
    return {
        "ids": ids,
        "retrieval": [(one - 1, *key) for one, key in pairs],
        "needle": [(one - 1, pairs[0][1][0], pairs[-1][1][1]) for one, _ in pairs],
        "text": text,
    }


def _pairs(
    ids: list[int], offsets: list, written: list[int], asked: int, there: int, size: int
) -> list:
    """Each token of the answer where it is written, with the tokens (first, end) of the needle that
    say the same: one, or, where the two are split differently, those that share characters with
        it."""
    stands = _covering(offsets, there, there + size)
    if [ids[one] for one in written] == [ids[one] for one in stands]:
        return [(one, (key, key + 1)) for one, key in zip(written, stands)]
    pairs = []
    for one in written:
        low, high = (max(0, min(size, place - asked)) for place in offsets[one])
        shared = _covering(offsets, there + low, there + high)
        if shared:  # a blank of its own in one place may be part of a word in the other
            pairs.append((one, (shared[0], shared[-1] + 1)))
    return pairs


def _covering(offsets: list[tuple[int, int]], start: int, stop: int) -> list[int]:
    """The tokens that hold any of these characters."""
    return [i for i, (low, high) in enumerate(offsets) if low < stop and high > start]

"""A needle in a haystack: a fact hidden in unrelated text, a question about it, and the answer.

    prompts = needle(tokenizer, 32, lengths=[128, 256])          # codes, new in each prompt
    prompts = needle_grid(tokenizer, lengths=[128], depths=[0, 0.5, 1])

The answer is teacher-forced, so one forward shows where every head looks at each token of it. The
haystack is made here, or read from files. On the reference model everything is said in its own
small language. The nulls, `retrieval~null` and `first_token~null`, are drawn here: `null_in_rows`
picks random tokens that the same query can see. What cannot be used is refused with BadInput.
Source: Wu et al. 2024, arXiv 2404.15574 (the task; needles and text are our own).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from nnheads.errors import BadInput
from nnheads.prompts.checks import check_count
from nnheads.prompts.needle_cells import cells, least_distance
from nnheads.prompts.needle_text import Material, Row, rows_in_one_text, single_words
from nnheads.prompts.needles import Needle, code_needle, read_needles
from nnheads.prompts.tokens import following, step_variables
from nnheads.spans.layout import pad_left, span_dataset, stack_spans
from nnheads.spans.nulls import NULL, NULL_DRAWS, null_in_rows

LENGTHS = (128, 256)
DEPTHS = tuple(step / 9 for step in range(10))
SOURCE = "Wu et al. 2024, arXiv 2404.15574"
ASKED = "position that predicts the answer token; -1: this answer is shorter"
WANTED = "token of the answer; -1: this answer is shorter"
COORDINATES = ("length", "tokens", "depth", "depth_asked", "haystack_number", "text")


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
    """Draw n prompts over all lengths, depths and needles, or, if there are more, some of each.

    Prompts that go once through all of them stand in one and the same text, so that they begin
    alike; the next ones get a text of their own. A needle stands at the end of the sentence that is
    nearest to the depth asked for; needles from a file, which come again at other lengths, may move
    as in `needle_grid`.

    Args:
        lengths: about how many tokens a prompt has; default 128 and 256.
        depths: where the needle is, from 0 (start) to 1 (end); default ten.
        seed: of the codes, the text and the null.
        haystack: a folder of .txt files; default: bland sentences made up here.
        needles: JSON lines with needle, question and answer; default: codes of a few words, new in
            each prompt. Prompts that ask about the same needle are not independent: with few of
            them, intervals are too narrow.

    Kinds of spans, asked at the token that predicts answer token j:
        retrieval        answer token j in the needle
        retrieval~null   random tokens of the context
        first_token      the first answer token in the needle, asked where it is to be said
        first_token~null random tokens of the context
        needle           all answer tokens in the needle

    Returns:
        A span dataset with `ask` and `target` (batch, step), the positions and tokens of the
        answer, -1 where an answer is shorter than others; coordinates (batch) `length` (asked for),
        `tokens` (of the prompt with its answer), `depth` (0
        start, 1 end; where the needle really came to stand), `depth_asked`, `haystack_number`
        (prompts with the same one share their text) and `text`.

    Raises:
        BadInput: a folder or file that cannot be used, a length that does not hold needle and
            question, a depth that is none, or a tokenizer that splits all code words or does not
            know an answer.
    """
    check_count(n)
    material = Material.opened(tokenizer, seed, haystack)
    known = [] if needles is None else read_needles(needles)
    words = [] if known else single_words(tokenizer, material.haystack.code_words)
    lengths, depths = list(lengths or LENGTHS), list(depths or DEPTHS)
    requested = cells(n, lengths, depths, len(known) or 1)
    size = len(lengths) * len(depths) * (len(known) or 1)
    step = least_distance(depths) if known else 0.0
    rows: list[Row] = []
    for number, first in enumerate(range(0, n, size)):
        part = requested[first : first + size]
        # codes are new in each prompt, or the cases of one haystack would not be independent
        facts = [known[one.needle] if known else made_up(material, words) for one in part]
        rows += rows_in_one_text(material, part, facts, step, number)
    return _dataset(rows, tokenizer, seed).assign_attrs(_origin(seed, haystack, needles))


def needle_grid(
    tokenizer,
    *,
    lengths: list[int],
    depths: list[float],
    needles: int | str | Path = 1,
    seed: int = 0,
    haystack: str | Path | None = None,
) -> xr.Dataset:
    """Draw every length at every depth with every needle, all in one and the same text.

    So prompts begin alike. A needle stands at the end of a sentence. Where that moves it by less
    than half the distance between two depths, prompts of different lengths share that place, and
    then everything up to the end of the shorter text.

    Args:
        needles: how many codes to make up, or JSON lines as for `needle`. Others: as for `needle`.

    Returns:
        What `needle` does, and the coordinate `needle_number` (batch).

    Raises:
        BadInput: as for `needle`, and for an empty list.
    """
    several = not isinstance(needles, int) or needles > 0
    if not (lengths and depths and several):
        raise BadInput("A grid needs at least one length, one depth and one needle.")
    material = Material.opened(tokenizer, seed, haystack)
    if isinstance(needles, int):
        words = single_words(tokenizer, material.haystack.code_words)
        known = [made_up(material, words) for _ in range(needles)]
    else:
        known = read_needles(str(needles))
    requested = cells(len(lengths) * len(depths) * len(known), lengths, depths, len(known))
    facts = [known[one.needle] for one in requested]
    rows = rows_in_one_text(material, requested, facts, least_distance(depths))
    origin = _origin(seed, haystack, None if isinstance(needles, int) else str(needles))
    numbers = ("batch", [one.needle for one in requested])
    grid = _dataset(rows, tokenizer, seed).assign_attrs(origin)
    return grid.assign_coords(needle_number=numbers)


def made_up(material: Material, words: list[str]) -> Needle:
    """Return somebody's code, of words that are one token each."""
    return code_needle(material.rng, material.style, words)


def _origin(seed: int, haystack: str | Path | None, needles: str | Path | None) -> dict:
    """Return what attrs say of where prompts come from."""
    used = {"haystack": haystack, "needles": needles}
    files = {name: "made up" if path is None else Path(path).name for name, path in used.items()}
    about = {"title": "needle in a haystack", "seed": seed, "null_draws": NULL_DRAWS}
    return {**about, "source": SOURCE, **files}


def _dataset(rows: list[Row], tokenizer, seed: int) -> xr.Dataset:
    """Lay prompts of different lengths, with answers of different lengths, out as one dataset."""
    token, mask, shift = pad_left([row.ids for row in rows], tokenizer.pad_token_id or 0)
    spans = {
        "retrieval": stack_spans([row.retrieval for row in rows], shift),
        "needle": stack_spans([row.needle for row in rows], shift),
        "first_token": stack_spans([row.retrieval[:1] for row in rows], shift),
    }
    generator = np.random.default_rng(seed)
    for kind in ("retrieval", "first_token"):
        spans[f"{kind}{NULL}"] = null_in_rows(spans[kind], shift, generator)
    ask = spans["retrieval"][0]
    steps = step_variables(ask, following(token, ask), ASKED, WANTED)
    dataset = span_dataset(token, mask, spans).assign(steps)
    named = {name: ("batch", [getattr(row, name) for row in rows]) for name in COORDINATES}
    return dataset.assign_coords(named)

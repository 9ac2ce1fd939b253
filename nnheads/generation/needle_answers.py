"""Needle prompts with the answer that the model writes itself, and its spans."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import xarray as xr

from nnheads.generation.greedy import first_line, generate
from nnheads.models.inputs import fill_token
from nnheads.spans.layout import Spans, pad_left, span_dataset, stack_spans
from nnheads.spans.nulls import NULL, null_in_rows

EXTRA_TOKENS = 4  # written beyond the answer's length, for models that begin with something else
Copy = tuple[int, int, int, int]  # query, key, its end, which of the needle's different tokens


def answer_needles(model, prompts: xr.Dataset) -> xr.Dataset:
    """Let the model answer needle prompts itself, in place of the answer in the prompt.

    An answer ends with its first line, or with the text (Wu et al. 2024, arXiv 2404.15574): nothing
    after that counts. One forward over the result gives each step the rows that it had while it was
    written.

    Kinds of spans, asked at the token that predicts what is written:
        copied         each needle token that is the very token being written, one span each
        copied~null    random tokens of the context
        copied@i       the same as copied, for the needle's i-th different token alone
        answer_span    the whole needle, at every step

    Returns:
        A span dataset with coordinates (batch): `copies`, how many spans of kind copied;
        `needle_tokens`, `needle_different`, the needle's tokens and how many of them differ;
        `recall`, the share of the different ones in the answer; `answered`, 1 where that is over a
        half.
    """
    pad = fill_token(model)
    questions, _ = without_answers(prompts, pad)
    written = generate(model, questions, prompts.sizes["step"] + EXTRA_TOKENS)
    return answered(prompts, first_line(model, written), pad)


@dataclass(frozen=True)
class Written:
    """Needle questions with the answers that a model wrote.

    token, mask: the questions [batch, position], padded on the left; text: the answers
    [batch, step], -1 behind their ends; bounds: the needle's first position and its end.
    """

    token: np.ndarray
    mask: np.ndarray
    text: np.ndarray
    bounds: list[tuple[int, int]]

    @property
    def length(self) -> int:
        return self.token.shape[1]

    @property
    def padding(self) -> np.ndarray:
        return self.length - self.mask.sum(1)

    def needle(self, case: int) -> list[int]:
        low, high = self.bounds[case]
        return self.token[case, low:high].tolist()

    def nulls(self, spans: Spans) -> Spans:
        """Draw each case's null from its own tokens, the same in whatever batch it is."""
        rows = zip(self.token, self.padding)
        seeds = [zlib.crc32(row[first:].tobytes()) for row, first in rows]
        return null_in_rows(spans, self.padding, *map(np.random.default_rng, seeds))


def answered(prompts: xr.Dataset, written: np.ndarray, pad: int) -> xr.Dataset:
    """Return what `answer_needles` does, for answers [batch, step] that are already written."""
    questions, moved = without_answers(prompts, pad)
    needle = prompts.isel(span=prompts["kind"].values == "needle")
    # a needle's first span is there in every example, however long its answer is
    starts, stops = (needle[name].values[:, 0] + moved for name in ("key_start", "key_stop"))
    bounds = [(int(low), int(high)) for low, high in zip(starts, stops)]
    found = Written(questions["token"].values, questions["mask"].values, written, bounds)
    copies = [_copies(found, case) for case in range(len(bounds))]
    extended = span_dataset(
        np.concatenate([found.token, np.where(written < 0, pad, written)], 1),
        np.concatenate([found.mask, np.ones_like(written)], 1),
        _spans(found, copies),
    )
    kept = {name: prompts[name] for name in prompts.coords if prompts[name].dims == ("batch",)}
    return extended.assign_coords({**kept, **_recall(found, copies)})


def _recall(found: Written, copies: list[list[Copy]]) -> dict[str, tuple[str, np.ndarray]]:
    """Return how much of each needle is in its answer, as coordinates (batch)."""
    cases = range(len(copies))
    different = np.array([len(set(found.needle(case))) for case in cases])
    recall = np.array([len({which for *_, which in own}) for own in copies]) / different
    values = {
        "copies": np.array(list(map(len, copies))),
        "needle_tokens": np.array([len(found.needle(case)) for case in cases]),
        "needle_different": different,
        "recall": recall.astype(np.float32),
        "answered": (recall > 0.5).astype(np.int8),
    }
    return {name: ("batch", each) for name, each in values.items()}


def without_answers(prompts: xr.Dataset, fill: int) -> tuple[xr.Dataset, np.ndarray]:
    """Return prompts up to the position that predicts the answer's first token.

    They are padded on the left again; the second value is how far each was moved to the right.
    """
    token, last = prompts["token"].values, prompts["ask"].values[:, 0] + 1
    padding = prompts.sizes["position"] - prompts["mask"].values.sum(1)
    rows = [row[first:end].tolist() for row, first, end in zip(token, padding, last)]
    ids, mask, shift = pad_left(rows, fill)
    dims = ("batch", "position")
    questions = xr.Dataset({"token": (dims, ids.astype(np.int32)), "mask": (dims, mask)})
    return questions, shift - padding


def tokens_while_answering(prompts: xr.Dataset) -> int:
    """Return how many tokens the longest prompt has once its answer is written."""
    padding = prompts.sizes["position"] - prompts["mask"].values.sum(1)
    longest = int((prompts["ask"].values[:, 0] + 1 - padding).max())
    return longest + prompts.sizes["step"] + EXTRA_TOKENS


def _copies(found: Written, case: int) -> list[Copy]:
    """Return (query, key, key + 1, which of the needle's different tokens) of every copy.

    A copy is a step that writes a needle token.
    """
    low, high = found.bounds[case]
    different = list(dict.fromkeys(found.needle(case)))
    return [
        (found.length - 1 + step, key, key + 1, different.index(int(word)))
        for step, word in enumerate(found.text[case])
        for key in range(low, high)
        if found.token[case, key] == word
    ]


def _spans(found: Written, copies: list[list[Copy]]) -> dict[str, Spans]:
    """Return the spans of `answer_needles` by kind.

    What is written stands at the same positions in all cases, so no span has to be moved.
    """
    still = np.zeros(len(copies), int)
    spans = {"copied": stack_spans([[span[:3] for span in own] for own in copies], still)}
    spans[f"copied{NULL}"] = found.nulls(spans["copied"])
    for which in range(max(high - low for low, high in found.bounds)):
        rows = [[span[:3] for span in own if span[3] == which] for own in copies]
        spans[f"copied@{which}"] = stack_spans(rows, still)
    whole = [_whole(found, case) for case in range(len(copies))]
    spans["answer_span"] = stack_spans(whole, still)
    spans[f"answer_span{NULL}"] = found.nulls(spans["answer_span"])
    return spans


def _whole(found: Written, case: int) -> list[tuple[int, int, int]]:
    """Return a span on the whole needle for every step that writes something, and the first."""
    steps = [step for step, word in enumerate(found.text[case]) if word >= 0 or step == 0]
    return [(found.length - 1 + step, *found.bounds[case]) for step in steps]

"""Let a model answer, and read its own answer: greedy continuations and the spans that they give
rise to.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch
import xarray as xr
from nnsight import save

from nnheads.models.inputs import inputs
from nnheads.spans.layout import NULL, Spans, null_in_rows, pad_left, span_dataset, stack_spans
from nnheads.trace.session import remote_of

EXTRA_TOKENS = 4  # written beyond the answer's length, for models that begin with something else


def generate(model, prompts: xr.Dataset, new_tokens: int) -> np.ndarray:
    """Greedy continuations [batch, new_tokens] of token (batch, position), -1 from the end of a
    text on.
    """
    fed = inputs(model, prompts)
    fed.pop("position_ids", None)  # generation derives them from the mask, step by step
    with (
        torch.no_grad(),
        model.generate(
            **fed, max_new_tokens=new_tokens, do_sample=False, remote=remote_of(model)
        ) as tracer,
    ):
        ids = save(tracer.result.clone())
    written = ids.cpu().numpy()[:, prompts.sizes["position"] :]
    written = np.pad(written, ((0, 0), (0, new_tokens - written.shape[1])), constant_values=-1)
    ended = np.isin(written, ends_of(model)).cumsum(1) > 0
    return np.where(ended, -1, written)


def ends_of(model) -> list[int]:
    """Tokens that end a text: chat models name more of them for generation than in their
    configuration.
    """
    found: list[int] = []
    for place in (model.config, getattr(model, "generation_config", None)):
        ends = getattr(place, "eos_token_id", None)
        found += [] if ends is None else ends if isinstance(ends, (list, tuple)) else [ends]
    return found


def holds_line_break(model, tokens: np.ndarray) -> np.ndarray:
    """Which of these tokens, of any shape and -1 for none, stand for text with a line break in it."""
    different, place = np.unique(tokens, return_inverse=True)
    broken = [token >= 0 and "\n" in model.tokenizer.decode([int(token)]) for token in different]
    return np.array(broken)[place].reshape(tokens.shape)


def first_line(model, written: np.ndarray) -> np.ndarray:
    """What is written [batch, step] up to the first token with a line break; -1 after it."""
    broken = holds_line_break(model, written).astype(int)
    return np.where(broken.cumsum(1) > broken, -1, written)


def answer_needles(model, prompts: xr.Dataset) -> xr.Dataset:
    """Let the model answer needle prompts itself; its answer takes the place of the one in the
    prompt.

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
            `needle_tokens`,
        `needle_different`, the needle's tokens and how many of them differ; `recall`, the share of
        the different ones in the answer; `answered`, 1 where that is over a half.
    """
    pad = model.tokenizer.pad_token_id or 0
    asked, _ = without_answers(prompts, pad)
    written = generate(model, asked, prompts.sizes["step"] + EXTRA_TOKENS)
    return answered(prompts, first_line(model, written), pad)


def answered(prompts: xr.Dataset, written: np.ndarray, pad: int) -> xr.Dataset:
    """What `answer_needles` returns, for answers [batch, step] that are already written."""
    asked, moved = without_answers(prompts, pad)
    needle = prompts.isel(span=prompts["kind"].values == "needle")
    # a needle's first span is there in every example, however long its answer is
    starts, stops = (needle[name].values[:, 0] + moved for name in ("key_start", "key_stop"))
    bounds = [(int(low), int(high)) for low, high in zip(starts, stops)]
    token, length = asked["token"].values, asked.sizes["position"]
    copies = [_copies(token[case], written[case], *one, length) for case, one in enumerate(bounds)]
    padding = length - asked["mask"].values.sum(1)
    # each case draws its null from its own tokens, so that it is the same whichever batch it is in
    seeds = [zlib.crc32(row[at:].tobytes()) for row, at in zip(token, padding)]
    extended = span_dataset(
        np.concatenate([token, np.where(written < 0, pad, written)], 1),
        np.concatenate([asked["mask"].values, np.ones_like(written)], 1),
        _spans(copies, bounds, written, length, padding, seeds),
    )
    different = np.array(
        [len(set(token[case, low:high])) for case, (low, high) in enumerate(bounds)]
    )
    recall = np.array([len({which for *_, which in own}) for own in copies]) / different
    about = {
        "copies": np.array(list(map(len, copies))),
        "needle_tokens": np.array([high - low for low, high in bounds]),
        "needle_different": different,
        "recall": recall.astype(np.float32),
        "answered": (recall > 0.5).astype(np.int8),
    }
    kept = {name: prompts[name] for name in prompts.coords if prompts[name].dims == ("batch",)}
    return extended.assign_coords(
        {**kept, **{name: ("batch", values) for name, values in about.items()}}
    )


def without_answers(prompts: xr.Dataset, fill: int) -> tuple[xr.Dataset, np.ndarray]:
    """Prompts up to the position that predicts the answer's first token, padded on the left again;
    and how far each one was moved to the right by that."""
    token, padding = (
        prompts["token"].values,
        prompts.sizes["position"] - prompts["mask"].values.sum(1),
    )
    rows = [
        row[first:end].tolist()
        for row, first, end in zip(token, padding, prompts["ask"].values[:, 0] + 1)
    ]
    ids, mask, shift = pad_left(rows, fill)
    place = ("batch", "position")
    return (
        xr.Dataset({"token": (place, ids.astype(np.int32)), "mask": (place, mask)}),
        shift - padding,
    )


def tokens_while_answering(prompts: xr.Dataset) -> int:
    """How many tokens the longest prompt has once its answer is written."""
    padding = prompts.sizes["position"] - prompts["mask"].values.sum(1)
    asked = prompts["ask"].values[:, 0] + 1 - padding
    return int(asked.max()) + prompts.sizes["step"] + EXTRA_TOKENS


def _copies(token, written, low: int, high: int, length: int) -> list[tuple[int, int, int, int]]:
    """(query, key, key + 1, which of the needle's different tokens) wherever a step writes a needle
    token.
    """
    different = list(dict.fromkeys(token[low:high].tolist()))
    return [
        (length - 1 + step, place, place + 1, different.index(int(word)))
        for step, word in enumerate(written)
        for place in range(low, high)
        if token[place] == word
    ]


def _spans(
    copies: list, bounds: list, written: np.ndarray, length: int, padding, seeds: list
) -> dict[str, Spans]:
    """What is written stands at the same positions in all cases, so no span has to be moved."""
    still = np.zeros(len(copies), int)
    spans = {"copied": stack_spans([[span[:3] for span in own] for own in copies], still)}
    spans[f"copied{NULL}"] = null_in_rows(
        spans["copied"], padding, *map(np.random.default_rng, seeds)
    )
    for which in range(max(high - low for low, high in bounds)):
        rows = [[span[:3] for span in own if span[3] == which] for own in copies]
        spans[f"copied@{which}"] = stack_spans(rows, still)
    whole = [
        [
            (length - 1 + step, *one)
            for step, word in enumerate(written[case])
            if word >= 0 or step == 0
        ]
        for case, one in enumerate(bounds)
    ]
    spans["answer_span"] = stack_spans(whole, still)
    spans[f"answer_span{NULL}"] = null_in_rows(
        spans["answer_span"], padding, *map(np.random.default_rng, seeds)
    )
    return spans

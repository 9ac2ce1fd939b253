"""Many prompts that begin alike, read while the model answers them: what they share is computed
once.

The prompts become a prefix tree. Its segments run in an order in which each one continues a part of
the text that ran last, so that one key-value cache, cut back at every fork, serves the whole tree.
Prompts that are complete are then decoded together, aligned on the right; the queries of every
written token are kept, and the caches are dropped as soon as these queries have been measured.
Scores equal those of `answer_needles` and `measure`, which read each prompt twice.

It needs caches that can be cut anywhere and queries that can be read, so it runs here, not on a
server. Where it cannot be used the plain way is taken, and `attrs["reading"]` says why.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
import xarray as xr
from nnsight import save

from nnheads.generation.greedy import (
    EXTRA_TOKENS,
    answer_needles,
    answered,
    ends_of,
    holds_line_break,
    without_answers,
)
from nnheads.models.families import family
from nnheads.models.geometry import geometry
from nnheads.models.inputs import check_length, check_tokens
from nnheads.spans.measure import check_spans, labelled, measure, weights_of
from nnheads.trace.session import remote_of
from nnheads.trace.spans import BLOCK_BYTES, read_attention, span_mass

# of all tokens: a tree with more is no gain over one batch, since it is walked one segment at a
# time
WORTH = 0.7
CACHE_BYTES = 1 << 28  # keys and values of the prompts that are decoded together
SHARED = "shared prefixes"
Past = list[
    tuple[torch.Tensor, torch.Tensor]
]  # keys and values of each layer [batch, kv head, position, dim]
# what a model's generation settings must not ask for, beside what they say when they do not
GREEDY = {
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "bad_words_ids": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "sequence_bias": None,
    "min_length": 0,
    "min_new_tokens": None,
    "num_beams": 1,
    "guidance_scale": 1.0,
    "stop_strings": None,
    "exponential_decay_length_penalty": None,
}


@dataclasses.dataclass(frozen=True)
class Segment:
    """Tokens without a fork. `parent`: the segment that they continue, -1 for none; `start`: how
    many tokens stand before them; `ends`: the rows whose last token is the segment's last."""

    parent: int
    start: int
    tokens: tuple[int, ...]
    ends: tuple[int, ...]


def prefix_tree(rows: list[list[int]]) -> list[Segment]:
    """The segments of all rows, parents before children and each subtree in one piece.

    Empty rows are in none.
    """
    segments: list[Segment] = []
    waiting = [
        (-1, 0, group) for group in _forks(rows, sorted(range(len(rows)), key=rows.__getitem__), 0)
    ]
    while waiting:
        parent, start, members = waiting.pop()
        # the members are sorted: what the first and the last of them share is common to all
        first, last, stop = rows[members[0]], rows[members[-1]], start
        while stop < len(first) and first[stop] == last[stop]:
            stop += 1
        ends = tuple(row for row in members if len(rows[row]) == stop)
        waiting += [(len(segments), stop, group) for group in _forks(rows, members, stop)]
        segments.append(Segment(parent, start, tuple(first[start:stop]), ends))
    return segments


def _forks(rows: list[list[int]], members: list[int], at: int) -> list[list[int]]:
    """Members by their token at this place, last first; those that have none are left out."""
    groups: dict[int, list[int]] = {}
    for row in members:
        if len(rows[row]) > at:
            groups.setdefault(rows[row][at], []).append(row)
    return list(reversed(groups.values()))


def _plainly(
    model, prompts, reason: str, spent: int, threshold: float, block_bytes: int
) -> xr.Dataset:
    """Write all answers in one batch, then read them in another forward."""
    extended = answer_needles(model, prompts)
    scores = measure(model, extended, threshold=threshold, block_bytes=block_bytes)
    return scores.assign_attrs(
        reading=f"plain: {reason}", token_layers=spent, token_layers_plain=spent
    )


def answer_and_measure(
    model,
    prompts: xr.Dataset,
    *,
    threshold: float = 0.5,
    cache_bytes: int = CACHE_BYTES,
    block_bytes: int = BLOCK_BYTES,
) -> xr.Dataset:
    """Let the model answer needle prompts, and measure where its heads look at each token that it
    writes.

    Args:
        prompts: a needle in a haystack; the more their beginnings agree (`prompts.needle_grid`) the
            cheaper.
        threshold, block_bytes: as for `attention.measure`.
        cache_bytes: memory for keys and values of prompts that are decoded together; at least one
            prompt is.
        remote: on a server the plain way is taken.

    Returns:
        What `measure(model, answer_needles(model, prompts))` returns for all kinds of spans.
        Attributes: `reading`, "shared prefixes" or "plain: " and why; `token_layers`, tokens times
            layers that were computed;
        `token_layers_plain`, those of the plain way, padding not counted.
    """
    asked, _ = without_answers(prompts, 0)
    new, layers = prompts.sizes["step"] + EXTRA_TOKENS, geometry(model).layers
    lengths = asked["mask"].values.sum(1)
    check_tokens(asked["token"].values, model.config.vocab_size)
    check_length(int(lengths.max()) + new, model.config)
    # written once and read once: the last token is only read
    plain = int(2 * lengths.sum() + (2 * new - 1) * len(lengths)) * layers
    reason = why_plain(model, prompts)
    if reason:
        return _plainly(model, prompts, reason, plain, threshold, block_bytes)
    rows = _rows_of(asked)
    tree = prefix_tree([row[:-1] for row in rows])
    parts, order, spent = [], [], sum(len(segment.tokens) for segment in tree) * layers
    for group, pasts in _grouped(_prefill(model, tree), cache_bytes):
        written, attention = _decode(model, [rows[row] for row in group], pasts, new)
        parts.append(
            _measured(model, prompts.isel(batch=group), written, attention, threshold, block_bytes)
        )
        order += group
        spent += len(group) * attention[0][0].shape[2] * layers
    kinds = max((part["kind"].values for part in parts), key=len)
    parts = [part.reindex(kind=kinds) for part in parts]
    scores = xr.concat(parts, "batch", data_vars="minimal", coords="minimal", compat="override")
    about = {"reading": SHARED, "token_layers": spent, "token_layers_plain": plain}
    return scores.isel(batch=np.argsort(order)).assign_attrs(about)


def why_plain(model, prompts: xr.Dataset) -> str:
    """Why needle prompts are each read afresh; empty where what they share is computed once."""
    asked, _ = without_answers(prompts, 0)
    rows = _rows_of(asked)
    reason = not_shareable(model, min(map(len, rows)))
    tokens = (
        0
        if reason
        else sum(len(segment.tokens) for segment in prefix_tree([row[:-1] for row in rows]))
    )
    return reason or (
        "the prompts have little in common" if tokens > WORTH * sum(map(len, rows)) else ""
    )


def _rows_of(asked: xr.Dataset) -> list[list[int]]:
    """Token ids of each prompt, without its padding."""
    return [
        row[mask > 0].tolist() for row, mask in zip(asked["token"].values, asked["mask"].values)
    ]


def not_shareable(model, shortest: int) -> str:
    """Why prefixes cannot be shared; empty where they can."""
    if remote_of(model):
        return "caches stay on the server"
    if not family(model).interface:
        return f"{model.config.model_type} shows no queries"
    rope = (
        f"{getattr(model.config, 'rope_parameters', '')}"
        f" {getattr(model.config, 'rope_scaling', '')}"
    )
    if "longrope" in rope or "dynamic" in rope:
        return "positions are encoded by the length of the whole text"
    if shortest < 2:
        return "a prompt of one token has no prefix"
    settings = getattr(model._module, "generation_config", None)
    for name, neutral in GREEDY.items():
        if getattr(settings, name, None) not in (None, neutral, []):
            return f"the model's generation settings ask for {name}"
    return ""


def _grouped(
    leaves: Iterator[tuple[int, Past]], cache_bytes: int
) -> Iterator[tuple[list[int], list[Past]]]:
    """Rows and their caches in groups that fit the memory when they are padded to the longest."""
    rows: list[int] = []
    pasts: list[Past] = []
    widest = 0
    for row, past in leaves:
        own = sum(one.numel() * one.element_size() for pair in past for one in pair)
        if rows and max(widest, own) * (len(rows) + 1) > cache_bytes:
            yield rows, pasts
            rows, pasts, widest = [], [], 0
        rows, pasts, widest = [*rows, row], [*pasts, past], max(widest, own)
    yield rows, pasts


def _prefill(model, tree: list[Segment]) -> Iterator[tuple[int, Past]]:
    """Each row of the tree with the keys and values of its tokens."""
    past: Past = []
    for segment in tree:
        past = [
            (keys[:, :, : segment.start], values[:, :, : segment.start]) for keys, values in past
        ]
        past = _extend(model, segment, past)
        for row in segment.ends:
            yield row, past


def _extend(model, segment: Segment, past: Past) -> Past:
    """One forward over a segment behind the cache of its parent."""
    stop = segment.start + len(segment.tokens)
    fed = _fed(model, torch.tensor([segment.tokens]), torch.ones(1, stop, dtype=torch.long))
    cache = _cache(past)
    with (
        torch.no_grad(),
        model.trace(**fed, past_key_values=cache, use_cache=True, logits_to_keep=1),
    ):
        grown = save(model.output.past_key_values)
    return [(layer.keys, layer.values) for layer in grown.layers]


def _fed(model, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a forward behind a cache is fed: the mask covers the cache too."""
    fed = {"input_ids": ids, "attention_mask": mask}
    if family(model).position_ids:
        fed["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    return fed


def _cache(past: Past):
    """A cache that keeps every position also where a layer looks no further than a window: only
    that can be cut.
    """
    from transformers import DynamicCache

    return DynamicCache(past) if past else DynamicCache()


def _decode(
    model, rows: list[list[int]], pasts: list[Past], new_tokens: int
) -> tuple[np.ndarray, list[tuple]]:
    """Greedy continuations of rows of which all but the last token are in the caches: what is
    written [batch, step] (-1 from the end of a text on, or behind a line break), and each layer's
    attention as `span_mass` takes it, with one query per step."""
    width = max(map(len, rows))
    mask = torch.zeros(len(rows), width + new_tokens, dtype=torch.long)
    for line, row in enumerate(rows):
        mask[line, width - len(row) :] = 1
    cache = _cache(_aligned(pasts, width - 1))
    token, written, seen = torch.tensor([row[-1] for row in rows])[:, None], [], []
    ended = np.zeros(len(rows), bool)
    for step in range(new_tokens):
        fed = _fed(model, token, mask[:, : width + step])
        with (
            torch.no_grad(),
            model.trace(**fed, past_key_values=cache, use_cache=True, logits_to_keep=1),
        ):
            seen.append(save([read_attention(layer, True) for layer in model.layers]))
            token = save(model.output.logits[:, -1:].argmax(-1))
        token = token.cpu()
        ended |= np.isin(token[:, 0].numpy(), ends_of(model))
        written.append(np.where(ended, -1, token[:, 0].numpy()))
        ended |= holds_line_break(model, written[-1])
        if ended.all():
            break
    filled = np.full((len(rows), new_tokens), -1)
    filled[:, : len(written)] = np.stack(written, 1)
    return filled, [_joined(list(steps)) for steps in zip(*seen)]


def _aligned(pasts: list[Past], width: int) -> Past:
    """Caches of different lengths as one, ending at the same position."""
    joined = []
    for layer in zip(*pasts):
        pair = [one.new_zeros(len(pasts), one.shape[1], width, one.shape[3]) for one in layer[0]]
        for line, own in enumerate(layer):
            for whole, one in zip(pair, own):
                whole[line, :, width - one.shape[2] :] = one[0]
        joined.append((pair[0], pair[1]))
    return joined


def _joined(steps: list[tuple]) -> tuple:
    """One layer's attention over all steps: the queries side by side, the keys of the last step."""
    queries = torch.cat([step[0] for step in steps], 2)
    _, keys, values, _, options, _ = steps[-1]
    visible = torch.zeros(
        len(queries), 1, len(steps), keys.shape[2], dtype=torch.bool, device=keys.device
    )
    for row, (_, own, _, mask, *_) in enumerate(steps):
        # one query at the end sees all that no mask hides; masks are true, or 0, where it sees
        shown = (
            True
            if mask is None
            else (mask if mask.dtype == torch.bool else mask == 0)[:, :, 0, : own.shape[2]]
        )
        visible[:, :, row, : own.shape[2]] = shown
    return queries, keys, values, visible, options, None


def _measured(
    model,
    prompts: xr.Dataset,
    written: np.ndarray,
    attention: list[tuple],
    threshold: float,
    block_bytes: int,
) -> xr.Dataset:
    """The scores of prompts that were decoded together, labelled as `measure` labels them."""
    spans = answered(prompts, written, model.tokenizer.pad_token_id or 0)
    check_spans(spans)
    kinds = list(dict.fromkeys(map(str, spans["kind"].values)))
    weights, missing = weights_of(spans, kinds)
    first = spans.sizes["position"] - written.shape[1] - 1  # of the positions that were queries
    query = np.where(spans["query"].values < 0, -1, spans["query"].values - first)
    each = [
        torch.from_numpy(one).long()
        for one in (query, spans["key_start"].values, spans["key_stop"].values)
    ]
    layers = [
        _statistics(one, torch.stack(each), weights, threshold, block_bytes) for one in attention
    ]
    return labelled(torch.stack(layers, 2), spans, kinds, weights, missing, threshold)


def _statistics(
    attention: tuple, spans: torch.Tensor, weights: np.ndarray, threshold: float, block_bytes: int
):
    """One layer's statistics [statistic, batch, head, kind]."""
    mass, strongest = span_mass(attention, spans, True, block_bytes)
    every = torch.stack([mass, (mass > threshold).float(), strongest])
    return torch.einsum("cbhs,bsk->cbhk", every, torch.from_numpy(weights).to(mass.device)).cpu()

"""Many prompts that begin alike, read while the model answers: what they share is computed once.

The prompts become a prefix tree. Its segments run in an order in which each one continues a part of
the text that ran last, so that one key-value cache, cut back at every fork, serves the whole tree.
Prompts that are complete are then decoded together, aligned on the right; the queries of every
written token are kept, and the caches are dropped as soon as these queries have been measured.
Scores equal those of `answer_needles` and `measure`, which read each prompt twice.

It needs caches that can be cut anywhere and queries that can be read, so it runs here, not on a
server. Where it cannot be used the plain way is taken, and `attrs["reading"]` says why.
"""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from nnsight import save

from nnheads.generation.caches import (
    CACHE_BYTES,
    Past,
    aligned,
    cache_of,
    grouped,
    inputs_behind,
    prefill,
)
from nnheads.generation.greedy import ends_of, holds_line_break
from nnheads.generation.needle_answers import (
    EXTRA_TOKENS,
    answer_needles,
    answered,
    without_answers,
)
from nnheads.generation.prefix_tree import prefix_tree
from nnheads.models.families import family
from nnheads.models.geometry import geometry
from nnheads.models.inputs import (
    check_length,
    check_tokens,
    fill_token,
    positions_by_length,
    real_tokens,
)
from nnheads.spans.measure import bounds_of, measure
from nnheads.spans.scores import check_spans, labelled, weights_of
from nnheads.trace.session import remote_of
from nnheads.trace.spans import (
    BLOCK_BYTES,
    SpanOptions,
    blockwise_mass,
    read_attention,
    statistics,
)

# of all tokens: a tree with more is no gain, since it is walked one segment at a time
WORTH = 0.7
SHARED = "shared prefixes"
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


def answer_and_measure(
    model,
    prompts: xr.Dataset,
    *,
    threshold: float = 0.5,
    cache_bytes: int = CACHE_BYTES,
    block_bytes: int = BLOCK_BYTES,
) -> xr.Dataset:
    """Let the model answer needle prompts, and measure its heads at each token that it writes.

    Args:
        prompts: a needle in a haystack; the more their beginnings agree (`prompts.needle_grid`) the
            cheaper.
        threshold, block_bytes: as for `spans.measure`.
        cache_bytes: memory for keys and values of prompts that are decoded together; at least one
            prompt is.

    Returns:
        What `measure(model, answer_needles(model, prompts))` returns for all kinds of spans.
        Attributes: `reading`, "shared prefixes" or "plain: " and why; `token_layers`, tokens times
        layers that were computed; `token_layers_plain`, those of the plain way, padding not
        counted.

    Raises:
        BadInput: tokens outside the vocabulary, or more than the model reads.
    """
    questions, _ = without_answers(prompts, 0)
    new, lengths = prompts.sizes["step"] + EXTRA_TOKENS, questions["mask"].values.sum(1)
    check_tokens(real_tokens(questions), model.config.get_text_config().vocab_size)
    check_length(int(lengths.max()) + new, model.config)
    # written once and read once: the last token is only read
    plain = int(2 * lengths.sum() + (2 * new - 1) * len(lengths)) * geometry(model).layers
    reason = why_plain(model, prompts)
    if reason:
        extended = answer_needles(model, prompts)
        scores = measure(model, extended, threshold=threshold, block_bytes=block_bytes)
        spent, reading = plain, f"plain: {reason}"
    else:
        options = SpanOptions(
            threshold=threshold, hit=True, interface=True, block_bytes=block_bytes
        )
        scores, spent = _shared(model, prompts, options, cache_bytes)
        reading = SHARED
    return scores.assign_attrs(reading=reading, token_layers=spent, token_layers_plain=plain)


def _shared(
    model, prompts: xr.Dataset, options: SpanOptions, cache_bytes: int
) -> tuple[xr.Dataset, int]:
    """Return the scores of prompts whose beginnings are computed once, and tokens times layers."""
    rows, new = _rows_of(without_answers(prompts, 0)[0]), prompts.sizes["step"] + EXTRA_TOKENS
    tree = prefix_tree([row[:-1] for row in rows])
    parts, order, spent = [], [], sum(len(segment.tokens) for segment in tree)
    for group, pasts in grouped(prefill(model, tree), cache_bytes):
        written, attention = _decode(model, [rows[row] for row in group], pasts, new)
        parts.append(_measured(model, prompts.isel(batch=group), written, attention, options))
        order += group
        spent += len(group) * attention[0][0].shape[2]
    kinds = max((part["kind"].values for part in parts), key=len)
    parts = [part.reindex(kind=kinds) for part in parts]
    scores = xr.concat(parts, "batch", data_vars="minimal", coords="minimal", compat="override")
    return scores.isel(batch=np.argsort(order)), spent * geometry(model).layers


def why_plain(model, prompts: xr.Dataset) -> str:
    """Return why needle prompts are each read afresh; empty where what they share is not."""
    rows = _rows_of(without_answers(prompts, 0)[0])
    reason = not_shareable(model, min(map(len, rows)))
    if reason:
        return reason
    tokens = sum(len(segment.tokens) for segment in prefix_tree([row[:-1] for row in rows]))
    return "the prompts have little in common" if tokens > WORTH * sum(map(len, rows)) else ""


def _rows_of(questions: xr.Dataset) -> list[list[int]]:
    """Return the token ids of each prompt, without its padding."""
    pairs = zip(questions["token"].values, questions["mask"].values)
    return [row[mask > 0].tolist() for row, mask in pairs]


def not_shareable(model, shortest: int) -> str:
    """Return why prefixes cannot be shared; empty where they can."""
    if remote_of(model):
        return "caches stay on the server"
    if not family(model).interface:
        return f"{model.config.model_type} shows no queries"
    if positions_by_length(model.config):
        return "positions are encoded by the length of the whole text"
    if shortest < 2:
        return "a prompt of one token has no prefix"
    settings = getattr(model._module, "generation_config", None)
    for name, neutral in GREEDY.items():
        if getattr(settings, name, None) not in (None, neutral, []):
            return f"the model's generation settings ask for {name}"
    return ""


def _decode(
    model, rows: list[list[int]], pasts: list[Past], new_tokens: int
) -> tuple[np.ndarray, list[tuple]]:
    """Decode rows of which all but the last token are in the caches, greedily.

    Returns:
        What is written [batch, step] (-1 from the end of a text on, or behind a line break), and
        each layer's attention as `blockwise_mass` takes it, with one query per step.
    """
    width = max(map(len, rows))
    mask = _mask(rows, width + new_tokens)
    options = {"past_key_values": cache_of(aligned(pasts, width - 1)), "use_cache": True}
    token, written, seen = torch.tensor([row[-1] for row in rows])[:, None], [], []
    ended = np.zeros(len(rows), bool)
    for step in range(new_tokens):
        inputs = inputs_behind(model, token, mask[:, : width + step])
        with torch.no_grad(), model.trace(**inputs, **options, logits_to_keep=1):
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


def _mask(rows: list[list[int]], total: int) -> torch.Tensor:
    """Return a mask [batch, total] of rows that end at one position, and of all behind it."""
    width = max(map(len, rows))
    mask = torch.zeros(len(rows), total, dtype=torch.long)
    for line, row in enumerate(rows):
        mask[line, width - len(row) :] = 1
    return mask


def _joined(steps: list[tuple]) -> tuple:
    """Return one layer's attention over all steps: queries side by side, keys of the last step."""
    queries = torch.cat([step[0] for step in steps], 2)
    _, keys, values, _, options, _ = steps[-1]
    shape = (len(queries), 1, len(steps), keys.shape[2])
    visible = torch.zeros(shape, dtype=torch.bool, device=keys.device)
    for row, (_, own, _, mask, *_) in enumerate(steps):
        reach = own.shape[2]
        visible[:, :, row, :reach] = True if mask is None else _shown(mask)[:, :, 0, :reach]
    return queries, keys, values, visible, options, None


def _shown(mask: torch.Tensor) -> torch.Tensor:
    """Return what one query at the end sees: masks are true, or 0, where it does."""
    return mask if mask.dtype == torch.bool else mask == 0


def _measured(
    model,
    prompts: xr.Dataset,
    written: np.ndarray,
    attention: list[tuple],
    options: SpanOptions,
) -> xr.Dataset:
    """Return the scores of prompts that were decoded together, labelled as `measure` does it."""
    spans = answered(prompts, written, fill_token(model))
    check_spans(spans)
    kinds = list(dict.fromkeys(map(str, spans["kind"].values)))
    weights, missing = weights_of(spans, kinds)
    first = spans.sizes["position"] - written.shape[1] - 1  # of the positions that were queries
    shifted = xr.where(spans["query"] < 0, -1, spans["query"] - first)
    bounds, shares = bounds_of(spans.assign(query=shifted)), torch.from_numpy(weights)
    masses = (blockwise_mass(one, bounds, options["block_bytes"]) for one in attention)
    layers = [statistics(one, shares, options).cpu() for one in masses]
    return labelled(torch.stack(layers, 2), spans, kinds, weights, missing, options["threshold"])

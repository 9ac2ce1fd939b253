"""Keys and values of prompts that share beginnings: grown segment by segment, joined to decode."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from nnsight import save

from nnheads.generation.prefix_tree import Segment
from nnheads.models.families import family

CACHE_BYTES = 1 << 28  # keys and values of the prompts that are decoded together


# keys and values of each layer [batch, kv head, position, dim]
Past = list[tuple[torch.Tensor, torch.Tensor]]


def grouped(
    leaves: Iterator[tuple[int, Past]], cache_bytes: int
) -> Iterator[tuple[list[int], list[Past]]]:
    """Yield rows and their caches in groups that fit the memory when padded to the longest."""
    rows: list[int] = []
    pasts: list[Past] = []
    widest = 0
    for row, past in leaves:
        own = bytes_of(past)
        if rows and max(widest, own) * (len(rows) + 1) > cache_bytes:
            yield rows, pasts
            rows, pasts, widest = [], [], 0
        rows, pasts, widest = [*rows, row], [*pasts, past], max(widest, own)
    yield rows, pasts


def bytes_of(past: Past) -> int:
    """Return the memory that a cache takes."""
    return sum(one.numel() * one.element_size() for pair in past for one in pair)


def prefill(model, tree: list[Segment]) -> Iterator[tuple[int, Past]]:
    """Yield each row of the tree with the keys and values of its tokens."""
    past: Past = []
    for segment in tree:
        start = segment.start
        past = [(keys[:, :, :start], values[:, :, :start]) for keys, values in past]
        past = _extend(model, segment, past)
        for row in segment.ends:
            yield row, past


def _extend(model, segment: Segment, past: Past) -> Past:
    """Run one forward over a segment behind the cache of its parent; return the cache that grew."""
    visible = torch.ones(1, segment.start + len(segment.tokens), dtype=torch.long)
    inputs = inputs_behind(model, torch.tensor([segment.tokens]), visible)
    options = {"past_key_values": cache_of(past), "use_cache": True, "logits_to_keep": 1}
    with torch.no_grad(), model.trace(**inputs, **options):
        grown = save(model.output.past_key_values)
    return [(layer.keys, layer.values) for layer in grown.layers]


def inputs_behind(model, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the inputs of a forward behind a cache: the mask covers the cache too."""
    inputs = {"input_ids": ids, "attention_mask": mask}
    if family(model).position_ids:
        inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    return inputs


def cache_of(past: Past):
    """Return a cache that can be cut.

    It keeps every position, also where a layer looks no further than a window.
    """
    from transformers import DynamicCache

    return DynamicCache(past) if past else DynamicCache()


def aligned(pasts: list[Past], width: int) -> Past:
    """Return caches of different lengths as one, ending at the same position."""
    joined = []
    for layer in zip(*pasts):
        keys, values = (_ending([pair[half] for pair in layer], width) for half in (0, 1))
        joined.append((keys, values))
    return joined


def _ending(parts: list[torch.Tensor], width: int) -> torch.Tensor:
    """Return rows [1, kv head, position, dim] of different lengths as one, padded on the left."""
    first = parts[0]
    whole = first.new_zeros(len(parts), first.shape[1], width, first.shape[3])
    for line, part in enumerate(parts):
        whole[line, :, width - part.shape[2] :] = part[0]
    return whole

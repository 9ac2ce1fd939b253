"""The exact effect of swapping one part of a run at a time, for every part.

A *cell* is one thing to swap: a head, a position, or both, at one layer. All cells of a layer run as rows
of one batch (cell x case). Nothing is computed that cannot change:
- the forward starts at that layer from the saved residual stream, because the layers below see no change;
- positions before the first one that differs between the two runs come from a key-value cache;
- in the last layer only the last position counts, so all others come from a cache;
- only the logits of the answers at the last position are kept.

The tracing half of this file is shipped to remote servers as source: torch only, no decorators, and
whatever it computes is returned, never appended to something outside.
"""

from __future__ import annotations

import copy

import torch
from jaxtyping import Bool, Float, Int
from nnsight import save

from nnheads.heads import start_at
from nnheads.patching.sites import read_site
from nnheads.readout import answer_logits


def record(model, fed: dict, answers, layers: list[int], site: str, heads: int):
    """One run: the site's value and the incoming residual stream at `layers`, and the answers' logits."""
    with model.trace(**fed, use_cache=False, logits_to_keep=1):
        values, residuals = save([]), save([])
        for layer in layers:
            residuals.append(model.layers[layer].input.clone())
            values.append(read_site(model.layers[layer], site, heads, answers.shape[0]).clone())
        logits = save(answer_logits(model.output.logits[:, -1], answers))
    return values, residuals, logits


def prefix(model, fed: dict, length: int):
    """Key-value cache of the first `length` positions, or None for none."""
    if length == 0:
        return None
    with model.trace(**{name: value[:, :length] for name, value in fed.items()}, use_cache=True, logits_to_keep=1):
        cache = save(model.output.past_key_values)
    return cache


def swap(
    model,
    fed: dict,
    cache,
    answers: Int[torch.Tensor, "row answer"],
    layer: int,
    residual: Float[torch.Tensor, "row position d_model"],
    donor: Float[torch.Tensor, "row position unit width"],
    where: Bool[torch.Tensor, "row position unit"],
    site: str,
    heads: int,
    tuple_block: bool,
) -> Float[torch.Tensor, "row answer"]:
    """Run on from `layer` with the donor's value wherever `where` is set; the answers' logits."""
    cached = {"use_cache": False} if cache is None else {"use_cache": True, "past_key_values": cache}
    with model.trace(**fed, **cached, logits_to_keep=1):
        start_at(model, layer, residual, tuple_block)
        value = read_site(model.layers[layer], site, heads, answers.shape[0])
        value[:] = torch.where(where.to(value.device).unsqueeze(-1), donor, value)
        logits = save(answer_logits(model.output.logits[:, -1], answers))
    return logits


def tail(fed: dict, start: int, count: int) -> dict:
    """Inputs from position `start` on for `count` copies of all cases; the mask still covers what is cached."""
    return {
        name: (value if name == "attention_mask" else value[:, start:]).repeat(count, 1) for name, value in fed.items()
    }


def copies(cache, cases: int, count: int):
    """The cache of all cases, `count` times over. A forward writes into its cache, so each gets its own."""
    if cache is None:
        return None
    own = copy.deepcopy(cache)
    own.batch_select_indices(torch.arange(cases).repeat(count).to(own.layers[0].keys.device))
    return own


def sweep(
    model,
    base: dict,
    donor: dict,
    answers: Int[torch.Tensor, "case answer"],
    cells: Bool[torch.Tensor, "cell position unit"],
    layers: list[int],
    site: str,
    heads: int,
    tuple_block: bool,
    rows: int,
    shared: int = 0,
    remote=False,
):
    """Swap every cell of every layer from the donor run into the base run, one at a time.

    Args:
        base, donor: inputs of the two runs, [case, position], lined up position by position.
        answers: token ids whose logits are read at the last position.
        cells: for each cell, the positions and units that it swaps.
        rows: most rows (cell x case) in one forward; at least one cell is run at a time.
        shared: how many first positions are the same in both runs; swapping them changes nothing.
        remote: False, "local", True or a URL. The whole sweep is one remote job.

    Returns:
        logits [layer, cell, case, answer] of the swapped runs, and [case, answer] of base and donor.
    """
    cases, length = base["input_ids"].shape
    step, last = max(1, rows // cases), len(model.layers) - 1
    with torch.no_grad(), model.session(remote=remote):
        given, _, donor_logits = record(model, donor, answers, layers, site, heads)
        _, residuals, base_logits = record(model, base, answers, layers, site, heads)
        # keys and values of the last layer stay as they are, unless its input is what is swapped
        narrow = last if site != "resid_pre" else None
        starts = {layer: length - 1 if layer == narrow else shared for layer in layers}
        caches = {start: prefix(model, base, start) for start in set(starts.values())}
        result = base_logits.repeat(len(layers), cells.shape[0], 1, 1)
        for index, layer in enumerate(layers):
            start = starts[layer]
            alive = cells[:, start:].any((1, 2)).nonzero().squeeze(1)  # the others swap nothing that differs
            for some in alive.split(step):
                count = some.shape[0]
                logits = swap(
                    model,
                    tail(base, start, count),
                    copies(caches[start], cases, count),
                    answers.repeat(count, 1),
                    layer,
                    residuals[index][:, start:].repeat(count, 1, 1),
                    given[index][:, start:].repeat(count, 1, 1, 1),
                    cells[some, start:].repeat_interleave(cases, 0),
                    site,
                    heads,
                    tuple_block,
                )
                result[index, some] = logits.reshape(count, cases, -1)
        result, base_logits = save(result.clone()), save(base_logits.clone())
        donor_logits = save(donor_logits.clone())
    return result, base_logits, donor_logits

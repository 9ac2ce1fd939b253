"""The exact effect of swapping one part of a run at a time, for every part.

A *cell* is one thing to swap: a head, a position, or both, at one layer. All cells of a layer run as rows
of one batch (cell x case); the forward starts at that layer from the saved residual stream, because the
layers below see no change; and only the logits of the answers at the last position are kept.

The tracing half of this file is shipped to remote servers as source: torch only, no decorators, and
whatever it computes is returned, never appended to something outside.
"""

from __future__ import annotations

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


def swap(
    model,
    fed: dict,
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
    with model.trace(**fed, use_cache=False, logits_to_keep=1):
        start_at(model, layer, residual, tuple_block)
        value = read_site(model.layers[layer], site, heads, answers.shape[0])
        value[:] = torch.where(where.to(value.device).unsqueeze(-1), donor, value)
        logits = save(answer_logits(model.output.logits[:, -1], answers))
    return logits


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
    remote=False,
):
    """Swap every cell of every layer from the donor run into the base run, one at a time.

    Args:
        base, donor: inputs of the two runs, [case, position], lined up position by position.
        answers: token ids whose logits are read at the last position.
        cells: for each cell, the positions and units that it swaps.
        rows: most rows (cell x case) in one forward; at least one cell is run at a time.
        remote: False, "local", True or a URL. The whole sweep is one remote job.

    Returns:
        logits [layer, cell, case, answer] of the swapped runs, and [case, answer] of base and donor.
    """
    cases = answers.shape[0]
    step = max(1, rows // cases)
    with torch.no_grad(), model.session(remote=remote):
        given, _, donor_logits = record(model, donor, answers, layers, site, heads)
        _, residuals, base_logits = record(model, base, answers, layers, site, heads)
        swapped = []
        for index, layer in enumerate(layers):
            for first in range(0, cells.shape[0], step):
                part = cells[first : first + step]
                count = part.shape[0]
                swapped.append(
                    swap(
                        model,
                        {name: value.repeat(count, 1) for name, value in base.items()},
                        answers.repeat(count, 1),
                        layer,
                        residuals[index].repeat(count, 1, 1),
                        given[index].repeat(count, 1, 1, 1),
                        part.repeat_interleave(cases, 0),
                        site,
                        heads,
                        tuple_block,
                    )
                )
        result = save(torch.cat(swapped).clone())
        base_logits = save(base_logits.clone())
        donor_logits = save(donor_logits.clone())
    shape = (len(layers), cells.shape[0], cases, answers.shape[1])
    return result.reshape(shape), base_logits, donor_logits

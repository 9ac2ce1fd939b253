"""Path patching: what a head's changed output does along one kind of path, all else held still.

A run on other prompts says what the senders would have put out there. The first changed run (C)
puts that into the senders while every other head's output is frozen to the unchanged run's; MLPs
and norms are recomputed, or MLPs frozen too. The second (D) is an unchanged run whose receivers get
the queries, keys or values that they had in C. Where the receiver is the final residual stream, C's
logits are the answer.

With all other heads frozen nothing moves between positions in C. So C runs only the positions at
which receivers take something up, side by side, without the tokens between them, and a sender can
matter only there.

The tracing half of `patching.path_patching`, shipped to remote servers as source: torch only, no
decorators.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Int
from nnsight import save

from nnheads.trace.blocks import leave_out, put, start_at
from nnheads.trace.kernels import kernel_input
from nnheads.trace.known import comparing, entries_of, of_cases, record
from nnheads.trace.plain import (
    Cells,
    Chunk,
    Inputs,
    Known,
    ModelSpec,
    PathOptions,
    PathTask,
    Request,
    Write,
)
from nnheads.trace.readout import read_logits
from nnheads.trace.session import remote_of
from nnheads.trace.sites import read_site
from nnheads.trace.sweep import run_chunks, start_of, swap

Positions = Int[torch.Tensor, "row position"]


def paths(
    model: Any, inputs: Inputs, source: Inputs, task: PathTask
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the readings of every cell of senders.

    Args:
        inputs, source: the text that is run, and the one that senders get their output from.
        task: `cells["positions"]` are those that C runs; None: from each chunk's first to the end.

    Returns:
        readings [cell, case, question, reading], those of the unchanged run and of the source
        [case, question, reading].
    """
    everyone = torch.arange(inputs["input_ids"].shape[0])
    spec, senders = task["options"]["spec"], task["cells"]["entries"][:, 1].unique().tolist()
    with torch.no_grad(), model.session(remote=remote_of(model)):
        known = unchanged(model, inputs, of_cases(task["request"], everyone, 0), task)
        request = comparing(task["request"], known)
        asked = of_cases(request, everyone, 0)
        other = record(model, source, spec, {"z": senders}, [], asked)
        whole = carrying(task, request, by_position(other["values"]["z"]))
        result = run_chunks(follow, model, known, whole, bool(task["options"]["receivers"]))
        result, plain_read = save(result.clone()), save(known["read"].clone())  # type: ignore[union-attr]
        source_read = save(other["read"])
    return result, plain_read, source_read


def carrying(task: PathTask, request: Request, given: dict[int, torch.Tensor]) -> PathTask:
    """Return a task with what is read of each run, and with the senders' outputs."""
    return {**task, "request": request, "given": given}


def unchanged(model: Any, inputs: Inputs, request: Request, task: PathTask) -> Known:
    """Record the unchanged run between the lowest sender and the highest receiver."""
    options, targets = task["options"], sorted(task["options"]["receivers"])
    starts = {layer for _, layer, _, _ in task["cells"]["chunks"]}
    top = targets[-1] if targets else len(list(model.layers))
    between = list(range(min(starts, default=top), top))
    sites = {"z": between, "mlp_out": between if options["freeze"] else []}
    return record(model, inputs, options["spec"], sites, sorted({*starts, *targets}), request)


def by_position(values: dict[int, torch.Tensor]) -> dict[int, torch.Tensor]:
    """View head outputs [case, head, position, dim] as [case, position, head, dim]."""
    return {layer: value.transpose(1, 2) for layer, value in values.items()}


def follow(model: Any, known: Known, task: PathTask, cache: Any, chunk: Chunk) -> torch.Tensor:
    """Return what is asked [row, question, reading] of the rows of a chunk.

    Step C, and step D where there are receivers.
    """
    start, layer, first, last = chunk
    cells, options = task["cells"], task["options"]
    case, region, positions = rows_of(cells, chunk)
    sent = sent_by(task, positions, first, last)
    got, read = carry(model, known, task, layer, case, positions, sent)
    if read is not None:
        return read
    low, where = min(got), cells["regions"][region, case, start:]
    writes = {index: received(got[index], options["receivers"][index], where) for index in got}
    begin = start_of(known, cache, low, case, start)
    request = of_cases(task["request"], case, start)
    return swap(model, begin, writes, request, options["via"], options["spec"])  # type: ignore[arg-type]


def rows_of(cells: Cells, chunk: Chunk) -> tuple[torch.Tensor, torch.Tensor, Positions]:
    """Return case and region [row] of a chunk's rows, and the positions [row, position] of C."""
    start, _, first, last = chunk
    cases, width = cells["regions"].shape[1:]
    row, begins = torch.arange(first, last), torch.tensor(cells["bounds"][:-1])
    case, region = row % cases, cells["entries"][begins, 3][row // cases]
    chosen = cells.get("positions")
    if chosen is None:
        return case, region, torch.arange(start, width).expand(last - first, -1)
    return case, region, chosen[region, case]


def carry(
    model: Any,
    known: Known,
    task: PathTask,
    layer: int,
    case: torch.Tensor,
    positions: Positions,
    sent: dict[int, Write],
) -> tuple[dict[int, torch.Tensor], torch.Tensor | None]:
    """Run step C from the senders' layer on.

    Returns:
        what the receivers above it get, [row, unit, ..., position, width] by layer, or what is
        asked of the logits.
    """
    options, read = task["options"], None
    wanted = [index for index in sorted(options["receivers"]) if index > layer]
    top = wanted[-1] if wanted else len(list(model.layers))
    request = at_positions(task["request"], case, positions)
    inputs, keep = side_by_side(known["inputs"], case, positions), request["keep"]
    residual = chosen(known["residuals"][layer], case, positions)
    with model.trace(**inputs, use_cache=False, logits_to_keep=1 if wanted else keep):
        got = {}
        start_at(model, layer, residual, options["spec"]["tuple_block"])
        for index in range(layer, top):
            block, still = model.layers[index], still_at(known, index, case, positions, options)
            if index in wanted:
                got[index] = taken(block, index, options)
            hold(block, still, sent.get(index), index in wanted, options["spec"])
        if wanted:
            got[top] = taken(model.layers[top], top, options)
            leave_out(model, top + 1, model.layers[top].output)
        else:
            read = read_logits(model, request)
    return got, read


def taken(block: Any, index: int, options: PathOptions) -> torch.Tensor:
    """Return what a layer's receivers get: [row, unit, ..., position, width]."""
    every = kernel_input(block, options["via"], options["spec"])  # type: ignore[arg-type]
    return every[:, options["receivers"][index]].clone()


def still_at(
    known: Known, index: int, case: torch.Tensor, positions: Positions, options: PathOptions
) -> dict[str, torch.Tensor]:
    """Return what one layer is frozen to: `z` [row, position, head, dim], and `mlp` if asked."""
    values = known["values"]
    still = {"z": chosen(values["z"][index].transpose(1, 2), case, positions)}
    if options["freeze"]:
        still["mlp"] = chosen(values["mlp_out"][index][:, 0], case, positions)
    return still


def hold(
    block: Any, still: dict[str, torch.Tensor], write: Write | None, attended: bool, spec: ModelSpec
) -> None:
    """Freeze a block's heads, all but its senders, and its MLP where that is frozen.

    attended: its attention runs, because its receivers are read.
    """
    z = still["z"]
    if write is not None:
        put(z.transpose(1, 2), write, write["values"])
    # Bloom's attention adds the residual stream by itself, so it cannot be left out
    if attended or spec["kernel"] == "bloom":
        own = read_site(block, "z", spec, z.shape[:2])
        own[:] = z.transpose(1, 2).to(own)
    else:
        block.attention.skip((block.attention.projection(z.flatten(2)), None))
    if "mlp" in still:
        added = read_site(block, "mlp_out", spec, z.shape[:2])[:, 0]
        added[:] = still["mlp"].to(added)


def side_by_side(inputs: Inputs, case: torch.Tensor, positions: Positions) -> Inputs:
    """Return the inputs at the positions of C; what heads see is of no matter, they are frozen."""
    own = {name: value[case[:, None], positions] for name, value in inputs.items()}
    own["attention_mask"] = torch.ones_like(own["attention_mask"])
    return own


def chosen(values: torch.Tensor, case: torch.Tensor, positions: Positions) -> torch.Tensor:
    """Return each row's case at its positions: values [case, position, ...] by row."""
    return values[case[:, None].to(values.device), positions.to(values.device)]


def sent_by(task: PathTask, positions: Positions, first: int, last: int) -> dict[int, Write]:
    """Return what the senders of some rows put out at these rows' positions, by layer."""
    regions = task["cells"]["regions"]
    sent = {}  # type: dict[int, Write]
    for index, own in entries_of(task["cells"], first, last).items():
        at, values = positions[own["row"]], task["given"][index]
        pick = (own["case"][:, None], at, own["unit"][:, None])
        sent[index] = {
            "row": own["row"],
            "unit": own["unit"],
            "where": regions[own["region"], own["case"]].gather(1, at),
            "values": values[tuple(part.to(values.device) for part in pick)],
        }
    return sent


def at_positions(request: Request, case: torch.Tensor, positions: Positions) -> Request:
    """Return a request to a run of the positions of C alone: each question has its own."""
    own = of_cases(request, case, 0)
    if own["positions"] is not None:
        own["positions"] = torch.arange(positions.shape[1]).expand(positions.shape[0], -1)
    return own


def received(values: torch.Tensor, units: list[int], where: torch.Tensor) -> Write:
    """Return what step D writes into one layer, at the positions of `where` [row, position].

    values: [row, unit, ..., position, width]; a single position stands for whichever that is.
    """
    rows, count = values.shape[:2]
    return {
        "row": torch.arange(rows).repeat_interleave(count),
        "unit": torch.tensor(units).repeat(rows),
        "where": where.repeat_interleave(count, 0),
        "values": values.flatten(0, 1),
    }

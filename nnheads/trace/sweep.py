"""The exact effect of swapping parts of a run, for many swaps at once.

A *cell* is one question: some heads, each at some positions, hold another value. The unchanged run
is known, so nothing is computed that cannot change:
- the forward starts at the lowest swapped layer, from the unchanged run's residual stream;
- positions before the first swapped one come from the unchanged run's key-value cache;
- cells and cases of the same start are rows of one batch, and a batch that does not fit is halved;
- where only the last position is asked, the last block runs its projection and MLP there alone;
- only the logits of the answers are kept, and computed where the unembedding's weights are at hand.

The tracing half of patching, shipped to remote servers as source: torch only, no decorators, and
whatever it computes is returned, never appended to something outside. Traces inside a session hand
on all their names; what is saved is what leaves the server, and that are readings alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from nnsight import save

from nnheads.trace.blocks import narrow, put, start_at
from nnheads.trace.halves import in_halves
from nnheads.trace.known import comparing, copies, entries_of, of_cases, prefix, record, tail
from nnheads.trace.plain import (
    Chunk,
    Inputs,
    Known,
    ModelSpec,
    PathTask,
    Request,
    Start,
    SweepTask,
    Write,
)
from nnheads.trace.readout import read_logits
from nnheads.trace.session import remote_of, tell
from nnheads.trace.sites import put_site

Values = dict[int, torch.Tensor]


def sweep(
    model: Any,
    inputs: Inputs,
    source: Inputs | None,
    mix: torch.Tensor | None,
    task: SweepTask,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Return the readings of every cell.

    Args:
        inputs: the text that is run.
        source: the text (or prompt set) that values are taken from; None where a fill, or
            `task["given"]`, says what is put in.
        mix: [case, source row], how the source's values add up to each case's; None: row by row.
        task: given values begin at position `options["offset"]`.

    Returns:
        readings [cell, case, question, reading], those of the unchanged run and of the source
        [case, question, reading]; None for a source that is mixed, or none.
    """
    everyone = torch.arange(inputs["input_ids"].shape[0])
    with torch.no_grad(), model.session(remote=remote_of(model)):
        known = unchanged(model, inputs, of_cases(task["request"], everyone, 0), task)
        whole, source_read = asking(task, known), None
        if source is not None:
            given, source_read = source_values(model, source, mix, known, whole)
            whole = with_values(whole, given)
        result = run_chunks(swap_rows, model, known, whole, True)
        result, plain_read = save(result.clone()), save(known["read"].clone())  # type: ignore[union-attr]
        source_read = save(source_read)
    return result, plain_read, source_read


def asking(task: SweepTask, known: Known) -> SweepTask:
    """Return a task that also compares each run with the unchanged one."""
    return {**task, "request": comparing(task["request"], known)}


def with_values(task: SweepTask, given: Values) -> SweepTask:
    """Return a task with the values that are put in."""
    return {**task, "given": given}


def unchanged(model: Any, inputs: Inputs, request: Request, task: SweepTask) -> Known:
    """Record the unchanged run, as far as swapped runs go on from it."""
    spec = task["options"]["spec"]
    starts = sorted({layer for _, layer, _, _ in task["cells"]["chunks"]})
    # Bloom's attention adds the residual stream by itself, so it cannot be left out
    attended = task["options"]["site"] == "z" and spec["kernel"] != "bloom"
    return record(model, inputs, spec, {"z": starts if attended else []}, starts, request)


def source_values(
    model: Any, source: Inputs, mix: torch.Tensor | None, known: Known, task: SweepTask
) -> tuple[Values, torch.Tensor | None]:
    """Return the values that a source gives each case, and what is asked of it."""
    options, everyone = task["options"], torch.arange(known["inputs"]["input_ids"].shape[0])
    spec, site, offset = options["spec"], options["site"], options["offset"]
    touched = {site: task["cells"]["entries"][:, 1].unique().tolist()}
    if mix is not None:
        return mixed(kept(record(model, source, spec, touched, []), site), mix), None
    behind = copies(prefix(model, known, offset), 0, everyone, offset)
    request = of_cases(task["request"], everyone, offset)
    own = record(model, tail(source, offset, everyone), spec, touched, [], request, behind)
    return kept(own, site), own["read"]


def kept(known: Known, site: str) -> Values:
    """Return a site's recorded values; patterns in single precision, whatever the model's is."""
    values = known["values"][site]
    return {layer: v.float() for layer, v in values.items()} if site == "pattern" else values


def mixed(values: Values, mix: torch.Tensor) -> Values:
    """Return each case's value as a weighted sum over the source's rows."""
    return {
        layer: torch.einsum("cr,r...->c...", mix.to(value), value)
        for layer, value in values.items()
    }


def run_chunks(
    run: Callable[..., torch.Tensor],
    model: Any,
    known: Known,
    task: SweepTask | PathTask,
    cached: bool,
) -> torch.Tensor:
    """Return the readings [cell, case, question, reading] of all cells, chunk by chunk.

    cached: each chunk's run stands behind the unchanged run's cache.
    """
    cells, read = task["cells"], known["read"]
    count, cases = len(cells["bounds"]) - 1, cells["regions"].shape[1]
    result, at, cache = read.repeat(count, 1, 1, 1).flatten(0, 1), -1, None  # type: ignore[union-attr]
    shares = done_after(cells["chunks"], len(list(model.layers)))
    for chunk, share in zip(cells["chunks"], shares):
        start, _, first, last = chunk
        if cached and start != at:
            at, cache = start, prefix(model, known, start)
        result[first:last] = in_halves(run, chunk, model, known, task, cache)
        tell(model, share)
    return result.unflatten(0, (count, cases))  # type: ignore[no-any-return]


def done_after(chunks: list[Chunk], layers: int) -> list[float]:
    """Return which share of the work is done after each chunk, counted in rows and layers."""
    work = [(last - first) * (layers - layer) for _, layer, first, last in chunks]
    return (torch.tensor(work).cumsum(0) / max(sum(work), 1)).tolist()


def swap_rows(model: Any, known: Known, task: SweepTask, cache: Any, chunk: Chunk) -> torch.Tensor:
    """Run the rows of a chunk with their swaps in place: [row, question, reading]."""
    start, layer, first, last = chunk
    options, case = task["options"], torch.arange(first, last) % task["cells"]["regions"].shape[1]
    begin = start_of(known, cache, layer, case, start)
    z = known["values"]["z"].get(layer)
    if z is not None:
        begin["z"] = z[case.to(z.device)][:, :, start:]
    writes = {
        index: write_at(task, own, index, start)
        for index, own in entries_of(task["cells"], first, last).items()
    }
    request = of_cases(task["request"], case, start)
    return swap(model, begin, writes, request, options["site"], options["spec"])


def start_of(known: Known, cache: Any, layer: int, case: torch.Tensor, start: int) -> Start:
    """Return where a changed run of some cases begins: at a layer, from position `start` on."""
    residual = known["residuals"][layer]
    return {
        "inputs": tail(known["inputs"], start, case),
        "cache": copies(cache, layer, case, start),
        "layer": layer,
        "residual": residual[case.to(residual.device), start:],
        "z": None,
    }


def write_at(task: SweepTask, own: dict[str, torch.Tensor], index: int, start: int) -> Write:
    """Return what some entries write into one layer, for a run from position `start` on."""
    options, regions = task["options"], task["cells"]["regions"]
    where = regions[own["region"], own["case"], start:]
    write = {"row": own["row"], "unit": own["unit"], "where": where}  # type: Write
    if options["fill"] is not None:
        return {**write, "fill": options["fill"]}
    if task["given"] is None:
        return write
    values, owner = task["given"][index], options["owner"]
    case = own["case"] if owner is None else owner[own["case"]]
    values = values[case.to(values.device), own["unit"].to(values.device)]
    return {**write, "values": values[..., start - options["offset"] :, :], "add": options["add"]}


def swap(
    model: Any,
    begin: Start,
    writes: dict[int, Write],
    request: Request,
    site: str,
    spec: ModelSpec,
) -> torch.Tensor:
    """Run on from a layer with the writes of each layer in place; what is asked is returned.

    Where the first layer's head outputs are known, its attention is not run again: only its
    projection is.
    """
    inputs, cache, layer, z = begin["inputs"], begin["cache"], begin["layer"], begin["z"]
    cached = (
        {"use_cache": False} if cache is None else {"use_cache": True, "past_key_values": cache}
    )
    size, last = inputs["input_ids"].shape, len(list(model.layers)) - 1
    # what these two add in the last block is one position wide once it is narrowed
    wide = last in writes and site in ("attn_out", "mlp_out")
    with model.trace(**inputs, **cached, logits_to_keep=request["keep"]):
        start_at(model, layer, begin["residual"], spec["tuple_block"])
        for index, write in writes.items():
            if index == layer and z is not None:
                project(model.layers[layer], z, write)
            else:
                put_site(model.layers[index], index, site, write, spec, size)
        if request["end"] and size[1] > 1 and not wide:
            narrow(model.layers[last], attended=z is not None and last == layer)
        read = read_logits(model, request)
    return read


def project(layer: Any, z: torch.Tensor, write: Write) -> None:
    """Give a layer's attention what its projection makes of known head outputs and a write."""
    put(z, write, write.get("values"))
    projected = layer.attention.projection(z.transpose(1, 2).flatten(2).contiguous())
    layer.attention.skip((projected, None))

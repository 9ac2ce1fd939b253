"""Path patching: what a head's changed output does along one kind of path, with everything else
held still.

A new run says what the sender would have put out on other prompts. The first changed run (C) puts
that into the sender while every other head's output is frozen to the base run's; feed-forward parts
and norms are recomputed, or frozen too. The second (D) is a base run whose receivers get the
queries, keys or values that they had in C. Where the receiver is the final residual stream, C's
logits are the answer.

With all other heads frozen nothing moves between positions in C. So C runs only the positions at
which receivers listen, side by side, without the tokens between them, and a sender can matter only
there.

The tracing half of `patching.paths`, shipped to remote servers as source: torch only, no
decorators.
"""

from __future__ import annotations

import torch
from nnsight import save

from nnheads.trace.blocks import leave_out, start_at
from nnheads.trace.readout import read_logits
from nnheads.trace.session import remote_of
from nnheads.trace.sites import kernel_input, put, read_site
from nnheads.trace.sweep import asked_of, copies, out_of_memory, prefix, swap, tail


def paths(model, base: dict, source: dict, cells: dict, ask: dict, how: dict):
    """Readings of every cell of senders.

    Args:
        base, source: inputs of the base run and of the new run.
        cells: as for `sweep`, and `spots` [place, case, spot]: the positions that C runs; None:
            from each chunk's first position to the end.
        ask: as for `sweep`.
        how: `form`; `via`: "q", "k", "v" or None for the final residual stream; `receivers`: layer
            -> units; `freeze`: whether feed-forward parts are frozen as well.

    Returns:
        readings [cell, case, question, reading], those of the base run and of the new run [case,
        question, reading].
    """
    cases, count = base["input_ids"].shape[0], len(cells["bounds"]) - 1
    form, everyone, targets = how["form"], torch.arange(cases), sorted(how["receivers"])
    starts = sorted({layer for _, layer, _, _ in cells["chunks"]})
    top = targets[-1] if targets else len(list(model.layers))
    between = list(range(min(starts, default=top), top))
    senders = cells["entries"][:, 1].unique().tolist()
    with torch.no_grad(), model.session(remote=remote_of(model)):
        plain = asked_of(ask, everyone, 0)
        still = remember(model, base, plain, between, {*starts, *targets}, how["freeze"], form)
        asking = {**ask, "reference": still["reference"]}
        new = remember(model, source, asked_of(asking, everyone, 0), senders, (), False, form)
        still["given"], base_read = new["z"], still["read"]
        result, at, cache = base_read.repeat(count, 1, 1, 1).flatten(0, 1), -1, None
        for chunk in cells["chunks"]:
            if targets and chunk[0] != at:
                at, cache = chunk[0], prefix(model, base, still["cache"], chunk[0])
            result[chunk[2] : chunk[3]] = attempt(
                model, base, cache, still, cells, chunk, asking, how
            )
        result, base_read = (
            save(result.unflatten(0, (count, cases)).clone()),
            save(base_read.clone()),
        )
        source_read = save(new["read"])
    return result, base_read, source_read


def remember(model, fed: dict, ask: dict, layers, starts, freeze: bool, form: dict) -> dict:
    """One plain run: by layer `z`, what its feed-forward part adds (`mlp`, if that is to be frozen)
    and the `residuals` that enter `starts`; what is asked (`read`), log-probabilities where all of
    the vocabulary counts (`reference`), and the key-value `cache`."""
    rows, length = fed["input_ids"].shape
    with model.trace(**fed, use_cache=True, logits_to_keep=ask["keep"]):
        z, mlp, residuals, reference = {}, {}, {}, []
        for index in sorted({*layers, *starts}):
            layer = model.layers[index]
            if index in starts:
                residuals[index] = layer.input.clone()
            if index in layers:
                z[index] = read_site(layer, "z", form, rows, length).transpose(1, 2).clone()
                if freeze:
                    mlp[index] = read_site(layer, "mlp_out", form, rows, length)[:, 0].clone()
        read = read_logits(model, ask)
        if ask["full"]:
            reference.append(model.output.logits.float().log_softmax(-1))
        cache = model.output.past_key_values
    return {
        "z": z,
        "mlp": mlp,
        "residuals": residuals,
        "read": read,
        "cache": cache,
        "reference": reference[0] if reference else None,
    }


def attempt(model, base: dict, cache, still: dict, cells: dict, chunk: tuple, ask: dict, how: dict):
    """Both changed runs for the rows of a chunk, or for halves of it where memory runs out."""
    start, layer, first, last = chunk
    try:
        return follow(model, base, cache, still, cells, chunk, ask, how)
    except (RuntimeError, MemoryError) as error:
        if last - first == 1 or not out_of_memory(error):
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    middle = (first + last) // 2
    halves = ((start, layer, first, middle), (start, layer, middle, last))
    return torch.cat([attempt(model, base, cache, still, cells, half, ask, how) for half in halves])


def follow(model, base: dict, cache, still: dict, cells: dict, chunk: tuple, ask: dict, how: dict):
    """What is asked [row, question, reading] of the rows of a chunk: step C, and step D where there
    are receivers.
    """
    start, layer, first, last = chunk
    cases = cells["places"].shape[1]
    row = torch.arange(first, last)
    case, place = row % cases, cells["entries"][cells["bounds"][:-1], 3][row // cases]
    if cells["spots"] is None:
        spot = torch.arange(start, cells["places"].shape[2]).expand(last - first, -1)
    else:
        spot = cells["spots"][place, case]
    edits = spoken(cells, still["given"], spot, first, last)
    got, read = carry(model, base, still, layer, case, spot, edits, asked_at(ask, case, spot), how)
    if read is not None:
        return read
    low, where = min(got), cells["places"][place, case, start:]
    return swap(
        model,
        tail(base, start, case),
        copies(cache, low, case, start),
        low,
        still["residuals"][low][case.to(still["residuals"][low].device), start:],
        None,
        {index: received(got[index], how["receivers"][index], where) for index in got},
        asked_of(ask, case, start),
        how["via"],
        how["form"],
    )


def carry(
    model, base: dict, still: dict, layer: int, case, spot, edits: dict, ask: dict, how: dict
):
    """Step C from the senders' layer on: what the receivers above it get, [row, unit, ..., spot,
    width] by layer, or what is asked of the logits."""
    form, (rows, length) = how["form"], spot.shape
    wanted = [index for index in sorted(how["receivers"]) if index > layer]
    top = wanted[-1] if wanted else len(list(model.layers))
    fed = {name: value[case[:, None], spot] for name, value in base.items()}
    fed["attention_mask"] = torch.ones_like(
        fed["attention_mask"]
    )  # what heads see is of no matter: they are frozen
    keep = 1 if wanted else ask["keep"]
    with model.trace(**fed, use_cache=False, logits_to_keep=keep):
        got, read = {}, []
        start_at(model, layer, chosen(still["residuals"][layer], case, spot), form["tuple_block"])
        for index in range(layer, top):
            block = model.layers[index]
            if index in wanted:
                got[index] = kernel_input(block, how["via"], form)[
                    :, how["receivers"][index]
                ].clone()
            z = chosen(still["z"][index], case, spot)
            if index in edits:
                put(z.transpose(1, 2), edits[index], edits[index]["given"])
            if (
                index in wanted or form["kernel"] == "bloom"
            ):  # Bloom's attention adds the residual stream by itself
                own = read_site(block, "z", form, rows, length)
                own[:] = z.transpose(1, 2).to(own)
            else:
                block.attention.skip((block.attention.projection(z.flatten(2)), None))
            if how["freeze"]:
                added = read_site(block, "mlp_out", form, rows, length)[:, 0]
                added[:] = chosen(still["mlp"][index], case, spot).to(added)
        if wanted:
            got[top] = kernel_input(model.layers[top], how["via"], form)[
                :, how["receivers"][top]
            ].clone()
            leave_out(model, top + 1, model.layers[top].output)
        else:
            read.append(read_logits(model, ask))
    return got, read[0] if read else None


def chosen(values, case, spot):
    """Each row's case at its spots: values [case, position, ...] -> [row, spot, ...]."""
    return values[case[:, None].to(values.device), spot.to(values.device)]


def spoken(cells: dict, given: dict, spot, first: int, last: int) -> dict:
    """layer -> what the senders of the rows `first` to `last` of all (cell, case) say at these
    rows' spots.
    """
    places, bounds = cells["places"], cells["bounds"]
    cases = places.shape[1]
    entries = cells["entries"][bounds[first // cases] : bounds[(last - 1) // cases + 1]]
    rows = entries[:, :1] * cases + torch.arange(cases) - first
    entry, case = ((rows >= 0) & (rows < last - first)).nonzero(as_tuple=True)
    row, (_, layer, unit, place) = rows[entry, case], entries[entry].unbind(1)
    edits = {}
    for index in layer.unique().tolist():
        own = layer == index
        at, values = spot[row[own]], given[index]
        pick = [which.to(values.device) for which in (case[own][:, None], at, unit[own][:, None])]
        where = places[place[own], case[own]].gather(1, at)
        edits[index] = {
            "row": row[own],
            "unit": unit[own],
            "where": where,
            "given": values[tuple(pick)],
        }
    return edits


def asked_at(ask: dict, case, spot) -> dict:
    """What is asked of a run of the spots alone: each question has a spot of its own."""
    own = asked_of(ask, case, 0)
    if own["place"] is not None:
        own["place"] = torch.arange(spot.shape[1]).expand(spot.shape[0], -1)
    return own


def received(values, units: list, where) -> dict:
    """What step D writes into one layer: [row, unit, ..., spot, width] where `where` [row,
    position] says so. A single spot stands for whichever position that is."""
    rows, count = values.shape[:2]
    return {
        "row": torch.arange(rows).repeat_interleave(count),
        "unit": torch.tensor(units).repeat(rows),
        "where": where.repeat_interleave(count, 0),
        "given": values.flatten(0, 1),
    }

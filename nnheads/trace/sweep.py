"""The exact effect of swapping parts of a run, for many swaps at once.

A *cell* is one question: some heads, each at some positions, hold another value. The base run is
    known, so nothing
is computed that cannot change:
- the forward starts at the lowest swapped layer, from the base run's residual stream;
- positions before the first swapped one come from the base run's key-value cache;
- cells and cases of the same start are rows of one batch, and a batch that does not fit is halved;
- where only the last position is asked, the last block runs its projection and feed-forward part
    there alone;
- only the logits of the answers are kept, and computed where the unembedding's weights are at hand.

The tracing half of patching, shipped to remote servers as source: torch only, no decorators, and
whatever it computes is returned, never appended to something outside. Traces inside a session hand
on all their names; what is saved is what leaves the server, and that are readings alone.
"""

from __future__ import annotations

import copy

import torch
from nnsight import save

from nnheads.trace.blocks import start_at
from nnheads.trace.readout import read_logits
from nnheads.trace.session import remote_of
from nnheads.trace.sites import narrow, put, read_site, write_site


def record(
    model,
    fed: dict,
    cache,
    ask: dict | None,
    valued: list[int],
    started: list[int],
    site: str,
    form: dict,
):
    """One plain run, behind what is cached. Returns the site's values at the layers `valued`, the
    residual stream that enters those in `started` (layer -> tensor each), what is asked, where all
    of the vocabulary counts its log-probabilities, and the key-value cache."""
    rows, length = fed["input_ids"].shape
    cached = {} if cache is None else {"past_key_values": cache}
    with model.trace(
        **fed, **cached, use_cache=True, logits_to_keep=1 if ask is None else ask["keep"]
    ):
        values, residuals, read, reference = {}, {}, [], []
        for index in sorted({*valued, *started}):
            layer = model.layers[index]
            if index in started:
                residuals[index] = layer.input.clone()
            if index in valued:
                values[index] = read_site(layer, site, form, rows, length).clone()
        if ask is not None:
            read.append(read_logits(model, ask))
            if ask["full"]:
                reference.append(model.output.logits.float().log_softmax(-1))
        filled = model.output.past_key_values
    return values, residuals, read[0] if read else None, reference[0] if reference else None, filled


def prefix(model, fed: dict, filled, length: int):
    """A key-value cache that holds the first `length` positions: the whole run's, unless some of
    its layers kept a sliding window alone. None for no positions."""
    if length == 0:
        return None
    width = fed["input_ids"].shape[1]
    if all(layer.keys is not None and layer.keys.shape[-2] == width for layer in filled.layers):
        return filled
    with model.trace(
        **{name: value[:, :length] for name, value in fed.items()}, use_cache=True, logits_to_keep=1
    ):
        model.unembedding.skip(model.unembedding.input[..., :1])  # nobody reads what comes next
        cache = model.output.past_key_values
    return cache


def swap(
    model, fed: dict, cache, layer: int, residual, z, edits: dict, ask: dict, site: str, form: dict
):
    """Run on from `layer` with the edits of each layer in place; what is asked, [row, question,
    reading]. If the base run's head outputs `z` of that layer are given, its attention is not run
    again: only its projection is."""
    cached = (
        {"use_cache": False} if cache is None else {"use_cache": True, "past_key_values": cache}
    )
    rows, length = fed["input_ids"].shape
    last = len(list(model.layers)) - 1
    # what these two add in the last block is one position wide once it is narrowed
    narrowed = ask["end"] and length > 1 and not (last in edits and site in ("attn_out", "mlp_out"))
    with model.trace(**fed, **cached, logits_to_keep=ask["keep"]):
        start_at(model, layer, residual, form["tuple_block"])
        for index, edit in edits.items():
            if index == layer and z is not None:
                put(z, edit, edit.get("given"))
                projected = model.layers[layer].attention.projection(
                    z.transpose(1, 2).flatten(2).contiguous()
                )
                model.layers[layer].attention.skip((projected, None))
            else:
                write_site(model.layers[index], index, site, edit, form, rows, length)
        if narrowed:
            narrow(model.layers[last], attended=z is not None and last == layer)
        read = read_logits(model, ask)
    return read


def tail(fed: dict, start: int, case) -> dict:
    """Inputs from position `start` on, one row for each of `case`; the mask still covers what is
    cached.
    """
    return {
        name: (value if name == "attention_mask" else value[:, start:])[case]
        for name, value in fed.items()
    }


def copies(cache, layer: int, case, length: int):
    """The cache's first `length` positions with one row for each of `case`. A forward writes into
    its cache, so each gets its own; layers below `layer` do not run and only say how long the cache
    is."""
    if cache is None:
        return None
    own = copy.copy(cache)
    own.layers = []
    for index, whole in enumerate(cache.layers):
        part = copy.copy(whole)
        if whole.keys.shape[-2] > length:
            part.keys, part.values = whole.keys[..., :length, :], whole.values[..., :length, :]
            if hasattr(whole, "cumulative_length"):
                part.cumulative_length = length
        if index >= layer:
            part.keys, part.values = (
                half[case.to(half.device)] for half in (part.keys, part.values)
            )
        own.layers.append(part)
    return own


def asked_of(ask: dict, case, start: int) -> dict:
    """What is asked, one row for each of `case`, at positions counted from `start`."""
    own = {name: ask[name] for name in ("keep", "end", "full")}
    for name in ("answers", "weight", "bias", "reference"):
        if ask.get(name) is not None:
            own[name] = ask[name][case.to(ask[name].device)]
    own["place"] = None if ask["place"] is None else ask["place"][case] - start
    return own


def edits_of(cells: dict, given: dict | None, how: dict, first: int, last: int, start: int) -> dict:
    """layer -> what to write there, for the rows `first` to `last` of all (cell, case). The given
    values begin at position `how["offset"]`."""
    places, bounds = cells["places"], cells["bounds"]
    cases = places.shape[1]
    entries = cells["entries"][bounds[first // cases] : bounds[(last - 1) // cases + 1]]
    rows = entries[:, :1] * cases + torch.arange(cases) - first
    entry, case = ((rows >= 0) & (rows < last - first)).nonzero(as_tuple=True)
    row, (_, layer, unit, place) = rows[entry, case], entries[entry].unbind(1)
    edits = {}
    for index in layer.unique().tolist():
        own = layer == index
        edit = {"row": row[own], "unit": unit[own], "where": places[place[own], case[own], start:]}
        if how["fill"] is not None:
            edit["fill"] = how["fill"]
        elif given is not None:
            values, held = given[index], case[own] if how["of"] is None else how["of"][case[own]]
            edit["given"] = values[held.to(values.device), unit[own].to(values.device)]
            edit["given"] = edit["given"][..., start - how["offset"] :, :]
            edit["add"] = how["add"]
        edits[index] = edit
    return edits


def attempt(
    model, base: dict, cache, residual, z, cells: dict, given, chunk: tuple, ask: dict, how: dict
):
    """Run the rows of a chunk in one forward, or in halves where memory runs out."""
    start, layer, first, last = chunk
    case = torch.arange(first, last) % cells["places"].shape[1]
    try:
        return swap(
            model,
            tail(base, start, case),
            copies(cache, layer, case, start),
            layer,
            residual[case.to(residual.device), start:],
            None if z is None else z[case.to(z.device)][:, :, start:],
            edits_of(cells, given, how, first, last, start),
            asked_of(ask, case, start),
            how["site"],
            how["form"],
        )
    except (RuntimeError, MemoryError) as error:
        if last - first == 1 or not out_of_memory(error):
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    middle = (first + last) // 2
    halves = ((start, layer, first, middle), (start, layer, middle, last))
    return torch.cat(
        [attempt(model, base, cache, residual, z, cells, given, half, ask, how) for half in halves]
    )


def out_of_memory(error: BaseException) -> bool:
    """Both the accelerator's way and the CPU's of saying so."""
    text = str(error).lower()
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "allocate memory" in text


def sweep(
    model,
    base: dict,
    source: dict | None,
    mix,
    given: dict | None,
    cells: dict,
    ask: dict,
    how: dict,
):
    """Readings of every cell.

    Args:
        base, source: inputs of the base run and of the run (or prompt set) that values are taken
            from; no source where `how["fill"]` or `given` says what is put in.
        mix: [case, source row], how the source's values add up to each case's; None: row by row.
        given: layer -> values [case, unit, ..., position, width], instead of a source; `how["of"]`
            [case] names the row for each case, where several share one, and with `how["add"]` they
            are added to what is there.
        cells: `entries` [entry, 4] (cell, layer, unit, place) in the order of cells, `bounds`
            (first entry of each cell, and the end), `places` [place, case, position], `chunks`
            [(start, layer, first row, last row)] over rows (cell, case). See `patching.cells`.
        ask: `place` [case, question] (None: the last position), `answers` [case, question, answer],
            `full`, `end`, `keep`, and `weight`, `bias` of the answers' unembedding, or None. See
            `readout.read_logits`.
        how: `site`, `form`, `fill` (None, "zero" or "uniform"), `offset`: how many first positions
            base and source share and no forward starts before; given values begin there.

    Returns:
        readings [cell, case, question, reading], those of the base run and of the source [case,
        question, reading]; None for a source that is mixed, or none.
    """
    cases, count = base["input_ids"].shape[0], len(cells["bounds"]) - 1
    site, form, offset, everyone = how["site"], how["form"], how["offset"], torch.arange(cases)
    starts = sorted({layer for _, layer, _, _ in cells["chunks"]})
    with torch.no_grad(), model.session(remote=remote_of(model)):
        plain, source_read = asked_of(ask, everyone, 0), None
        # Bloom's attention adds the residual stream by itself, so it cannot be left out
        known = starts if site == "z" and form["kernel"] != "bloom" else []
        outputs, residuals, base_read, reference, filled = record(
            model, base, None, plain, known, starts, site, form
        )
        if source is not None:
            touched, behind, asked = cells["entries"][:, 1].unique().tolist(), None, None
            if mix is None:
                behind = copies(prefix(model, base, filled, offset), 0, everyone, offset)
                source, asked = (
                    tail(source, offset, everyone),
                    asked_of({**ask, "reference": reference}, everyone, offset),
                )
            given, _, source_read, _, _ = record(
                model, source, behind, asked, touched, [], site, form
            )
            if mix is not None:
                given = mixed(given, mix)
        asking = {**ask, "reference": reference}
        result, at, cache = base_read.repeat(count, 1, 1, 1).flatten(0, 1), -1, None
        for chunk in cells["chunks"]:
            if chunk[0] != at:
                at, cache = chunk[0], prefix(model, base, filled, chunk[0])
            result[chunk[2] : chunk[3]] = attempt(
                model,
                base,
                cache,
                residuals[chunk[1]],
                outputs.get(chunk[1]),
                cells,
                given,
                chunk,
                asking,
                how,
            )
        result, base_read = (
            save(result.unflatten(0, (count, cases)).clone()),
            save(base_read.clone()),
        )
        source_read = save(source_read)
    return result, base_read, source_read


def mixed(values: dict, mix) -> dict:
    """Each case's value as a weighted sum over the source's rows: means over a template, other
    prompts, ...
    """
    return {
        layer: torch.einsum("cr,r...->c...", mix.to(value), value)
        for layer, value in values.items()
    }

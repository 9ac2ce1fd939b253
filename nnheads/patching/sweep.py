"""The exact effect of swapping parts of a run, for many swaps at once.

A *cell* is one question: some heads, each at some positions, hold another value. The base run is known, so nothing
is computed that cannot change:
- the forward starts at the lowest swapped layer, from the base run's residual stream;
- positions before the first swapped one come from the base run's key-value cache;
- cells and cases of the same start are rows of one batch, and a batch that does not fit is halved;
- where only the last position is asked, the last block runs its projection and feed-forward part there alone;
- only the logits of the answers are kept, and computed where the unembedding's weights are at hand.

The tracing half of patching, shipped to remote servers as source: torch only, no decorators, and whatever it
computes is returned, never appended to something outside.
"""

from __future__ import annotations

import copy

import torch
from nnsight import save

from nnheads.heads import start_at
from nnheads.patching.sites import narrow, read_site, write_site
from nnheads.readout import read_logits


def record(model, fed: dict, ask: dict | None, valued: list[int], started: list[int], site: str, form: dict):
    """One plain run: the site's values at the layers `valued`, the residual stream entering those in `started`
    (layer -> tensor each), what is asked, and, where all of the vocabulary counts, its log-probabilities."""
    rows, length = fed["input_ids"].shape
    with model.trace(**fed, use_cache=False, logits_to_keep=1 if ask is None else ask["keep"]):
        values, residuals, read, reference = save({}), save({}), save([]), save([])
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
    return values, residuals, read[0] if read else None, reference[0] if reference else None


def prefix(model, fed: dict, length: int):
    """Key-value cache of the first `length` positions, or None for none."""
    if length == 0:
        return None
    with model.trace(**{name: value[:, :length] for name, value in fed.items()}, use_cache=True, logits_to_keep=1):
        model.unembedding.skip(model.unembedding.input[..., :1])  # nobody reads what comes next
        cache = save(model.output.past_key_values)
    return cache


def swap(model, fed: dict, cache, layer: int, residual, edits: dict, ask: dict, site: str, form: dict):
    """Run on from `layer` with the edits of each layer in place; what is asked, [row, question, reading]."""
    cached = {"use_cache": False} if cache is None else {"use_cache": True, "past_key_values": cache}
    rows, length = fed["input_ids"].shape
    last = len(model.layers) - 1
    # what these two add in the last block is one position wide once it is narrowed
    narrowed = ask["end"] and length > 1 and not (last in edits and site in ("attn_out", "mlp_out"))
    with model.trace(**fed, **cached, logits_to_keep=ask["keep"]):
        start_at(model, layer, residual, form["tuple_block"])
        for index, edit in edits.items():
            write_site(model.layers[index], index, site, edit, form, rows, length)
        if narrowed:
            narrow(model.layers[last])
        read = save(read_logits(model, ask))
    return read


def tail(fed: dict, start: int, case) -> dict:
    """Inputs from position `start` on, one row for each of `case`; the mask still covers what is cached."""
    return {name: (value if name == "attention_mask" else value[:, start:])[case] for name, value in fed.items()}


def copies(cache, layer: int, case):
    """The cache with one row for each of `case`. A forward writes into its cache, so each gets its own; layers below
    `layer` do not run and only say how long the cache is."""
    if cache is None:
        return None
    own = copy.copy(cache)
    own.layers = list(cache.layers[:layer])
    for above in cache.layers[layer:]:
        mine = copy.copy(above)
        mine.keys, mine.values = (part[case.to(part.device)] for part in (above.keys, above.values))
        own.layers.append(mine)
    return own


def asked_of(ask: dict, case, start: int) -> dict:
    """What is asked, one row for each of `case`, at positions counted from `start`."""
    own = {name: ask[name] for name in ("keep", "end", "full")}
    for name in ("answers", "weight", "bias", "reference"):
        if ask.get(name) is not None:
            own[name] = ask[name][case.to(ask[name].device)]
    own["place"] = None if ask["place"] is None else ask["place"][case] - start
    return own


def edits_of(cells: dict, given: dict | None, fill: str | None, first: int, last: int, start: int) -> dict:
    """layer -> what to write there, for the rows `first` to `last` of all (cell, case)."""
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
        if fill is not None:
            edit["fill"] = fill
        elif given is not None:
            values = given[index]
            edit["given"] = values[case[own].to(values.device), unit[own].to(values.device)][..., start:, :]
        edits[index] = edit
    return edits


def attempt(model, base: dict, cache, residual, cells: dict, given, chunk: tuple, ask: dict, how: dict):
    """Run the rows of a chunk in one forward, or in halves where memory runs out."""
    start, layer, first, last = chunk
    case = torch.arange(first, last) % cells["places"].shape[1]
    try:
        return swap(
            model, tail(base, start, case), copies(cache, layer, case), layer,
            residual[case.to(residual.device), start:], edits_of(cells, given, how["fill"], first, last, start),
            asked_of(ask, case, start), how["site"], how["form"],
        )  # fmt: skip
    except (RuntimeError, MemoryError) as error:
        if last - first == 1 or not out_of_memory(error):
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    middle = (first + last) // 2
    halves = ((start, layer, first, middle), (start, layer, middle, last))
    return torch.cat([attempt(model, base, cache, residual, cells, given, half, ask, how) for half in halves])


def out_of_memory(error: BaseException) -> bool:
    """Both the accelerator's way and the CPU's of saying so."""
    text = str(error).lower()
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "allocate memory" in text


def sweep(model, base: dict, source: dict | None, mix, given: dict | None, cells: dict, ask: dict, how: dict, remote):
    """Readings of every cell.

    Args:
        base, source: inputs of the base run and of the run (or prompt set) that values are taken from; no source where
            `how["fill"]` or `given` says what is put in.
        mix: [case, source row], how the source's values add up to each case's; None: row by row.
        given: layer -> values [case, unit, ..., position, width], instead of a source.
        cells: `entries` [entry, 4] (cell, layer, unit, place) in the order of cells, `bounds` (first entry of each
            cell, and the end), `places` [place, case, position], `chunks` [(start, layer, first row, last row)] over
            rows (cell, case). See `patching.cells`.
        ask: `place` [case, question] (None: the last position), `answers` [case, question, answer], `full`, `end`,
            `keep`, and `weight`, `bias` of the answers' unembedding, or None. See `readout.read_logits`.
        how: `site`, `form`, `fill` (None, "zero" or "uniform").

    Returns:
        readings [cell, case, question, reading], those of the base run and of the source [case, question, reading];
        None for a source that is mixed, or none.
    """
    cases, count = base["input_ids"].shape[0], len(cells["bounds"]) - 1
    site, form, everyone = how["site"], how["form"], torch.arange(cases)
    starts = sorted({layer for _, layer, _, _ in cells["chunks"]})
    with torch.no_grad(), model.session(remote=remote):
        plain, source_read = asked_of(ask, everyone, 0), None
        _, residuals, base_read, reference = record(model, base, plain, [], starts, site, form)
        if source is not None:
            touched = cells["entries"][:, 1].unique().tolist()
            asked = None if mix is not None else {**plain, "reference": reference}
            given, _, source_read, _ = record(model, source, asked, touched, [], site, form)
            if mix is not None:
                given = mixed(given, mix)
        asking = {**ask, "reference": reference}
        result, at, cache = base_read.repeat(count, 1, 1, 1).flatten(0, 1), -1, None
        for chunk in cells["chunks"]:
            if chunk[0] != at:
                at, cache = chunk[0], prefix(model, base, chunk[0])
            residual = residuals[chunk[1]]
            result[chunk[2] : chunk[3]] = attempt(model, base, cache, residual, cells, given, chunk, asking, how)
        result, base_read = save(result.unflatten(0, (count, cases)).clone()), save(base_read.clone())
        source_read = save(source_read)
    return result, base_read, source_read


def mixed(values: dict, mix) -> dict:
    """Each case's value as a weighted sum over the source's rows: means over a template, other prompts, ..."""
    return {layer: torch.einsum("cr,r...->c...", mix.to(value), value) for layer, value in values.items()}

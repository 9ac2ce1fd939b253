"""Do head scores survive fewer bits, another attention, or a server?

The same prompts, scored in two settings.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from nnheads.recipes import _options as options

from nnheads.errors import BadInput

TYPES = "induction,previous_token,duplicate_token,attention_sink,name_mover,retrieval"


def main(
    model: options.Model = "reference",
    types: Annotated[str, typer.Option(help="Head types (see `nnheads heads`), or all.")] = TYPES,
    against: Annotated[
        str, typer.Option(help="float32, bfloat16, float16, eager, sdpa, 4bit, 8bit, or remote.")
    ] = "bfloat16",
    top: Annotated[int, typer.Option(help="How many heads at the top to compare.")] = 10,
    limit: options.Limit = 16,
    batch_size: options.BatchSize = 8,
    seed: options.Seed = 0,
    revision: options.Revision = None,
    dtype: options.Dtype = "float32",
    quantization: options.Quantization = None,
    device_map: options.DeviceMap = None,
    remote: options.Remote = None,
    submit: options.Submit = False,
    output: options.Output = options.RESULTS,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    traceback: options.Traceback = False,
) -> None:
    """Do head scores survive fewer bits, another attention, or a server? The same prompts, scored
    in two settings.

    One side is as `--dtype` says, the other is the same but for what `--against` names; one is in
    memory at a time. With `--against remote`, `--remote` says which server scores the other side.
    Writes drift.nc (type, layer, head) and
    drift.png: rank correlation of all heads, most of which noise may rank, and of those flagged;
        heads at the top in
    common, largest change, flags that come and go.
    """
    arguments = dict(locals())
    from nnheads.compare import drift

    options.positive(top=top, limit=limit, batch_size=batch_size)
    arguments["types"] = names_of(types)
    where = options.remote_of(remote)
    sides = drift.settings(dtype, quantization, against, where)
    run, first, about = first_side(arguments, sides[0])
    if not run.complete:
        second, other = second_side(run, arguments, sides[1], about)
        finish(run, arguments, first, second, {**about, "source_against": json.dumps(other)})
    report(run)


def names_of(types: str) -> list[str]:
    """Head types by the names that nnheads gives them."""
    from nnheads.detectors import _catalog as catalog

    if types == "all":
        return list(catalog.types())
    return list(dict.fromkeys(catalog.canonical(name) for name in types.split(",")))


def loaded(arguments: dict, setting: dict):
    """The model of one side and its prompts."""
    from nnheads.detectors._stimulus import prepare

    model = options.load(
        arguments["model"],
        arguments["revision"],
        setting["dtype"],
        arguments["device_map"],
        setting["remote"],
        setting["quantization"],
        setting["attention"],
    )
    return model, prepare(model, arguments["types"], n=arguments["limit"], seed=arguments["seed"])


def measured(model, stimuli: list, parts: Path, arguments: dict) -> dict:
    """type -> scores; each side has a place of its own for finished batches, which do not say who
    made them.
    """
    from nnheads.detectors._scores import measure_all

    how = {"batch_size": arguments["batch_size"], "quiet": arguments["quiet"], "parts": parts}
    return measure_all(model, stimuli, **how)


def first_side(arguments: dict, setting: dict):
    """Open the run and score the side as asked, unless all is there: run, scores, and who made
    them.
    """
    from nnheads.compare.drift import check_top
    from nnheads.models.geometry import geometry
    from nnheads.runs.folder import Run
    from nnheads.runs.provenance import model_identity, prompts_hash, provenance

    model, stimuli = loaded(arguments, setting)
    check_top(arguments["top"], geometry(model).layers * geometry(model).heads)
    identity = model_identity(model, arguments["model"])
    hashes = {stimulus.key: prompts_hash(stimulus.prompts) for stimulus in stimuli}
    facts = {
        **arguments,
        "model": identity["model"],
        "weights": identity["commit"],
        "prompts": hashes,
    }
    run = Run(
        arguments["output"],
        "drift",
        arguments["model"],
        identity["revision"],
        facts,
        item=f"{arguments['quantization'] or arguments['dtype']}-{arguments['against']}",
        overwrite=arguments["overwrite"],
    )
    run.jobs_of(model)
    if run.complete:
        return run, {}, {}
    about = provenance(
        title="drift of head scores",
        model=model,
        name=arguments["model"],
        prompts=json.dumps(hashes),
        arguments=run.arguments,
        references="",
    )
    return run, measured(model, stimuli, run.parts / "first", arguments), about


def second_side(run, arguments: dict, setting: dict, about: dict):
    """Score the other side, once the first model is gone: scores and identity."""
    import gc

    import torch

    from nnheads.compare.drift import computed_in
    from nnheads.runs.provenance import model_identity

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    model, stimuli = loaded(arguments, setting)
    identity, there = model_identity(model, arguments["model"]), setting["remote"]
    if identity == json.loads(about["source"]) and not there:
        raise BadInput(f"both sides are {said(identity)}; name another with --against")
    run.jobs_of(model)
    scores = measured(model, stimuli, run.parts, arguments)
    if there:
        identity["dtype"] = computed_in(model, stimuli[0].prompts)
        identity["attention"] = f"{identity['attention']} at {'NDIF' if there is True else there}"
    return scores, identity


def finish(run, arguments: dict, first: dict, second: dict, about: dict) -> None:
    """Compare, draw, save."""
    import xarray as xr

    from nnheads import plot
    from nnheads.compare.drift import compare

    each = [
        compare(first[kind], second[kind], top=arguments["top"], seed=arguments["seed"])
        for kind in first
    ]
    found = xr.concat(
        each, xr.Variable("type", list(first)), combine_attrs="drop_conflicts"
    ).assign_attrs(about)
    changed = abs(found["difference"]).max("type")
    changed.attrs = {"long_name": "largest change of score, any type", "units": "1"}
    title = (
        f"Drift: {said(json.loads(about['source']))}\nagainst"
        f" {said(json.loads(about['source_against']))}"
    )
    figure = plot.heatmap(
        changed, title=title, signed=False, note=plot.note(found, arguments["limit"])
    )
    run.save(drift=found)
    run.picture("drift", figure)
    run.finish()


def said(identity: dict) -> str:
    """A side in words."""
    return f"{identity['dtype']} ({identity['attention']})"


def report(run) -> None:
    """A line for each type, and which heads gain or lose their flag."""
    import numpy as np

    from nnheads.models.names import head_name

    found = run.load("drift")
    sides = [said(json.loads(found.attrs[name])) for name in ("source", "source_against")]
    top = run.arguments["top"]
    options.say(f"{sides[0]} against {sides[1]}, {run.arguments['limit']} prompts a type")
    ranks = f"{'of all heads':<24} {'of those flagged, or at the top':<33}"
    options.say(f"  {'':<19} rank correlation [95% interval]")
    options.say(f"  {'type':<19} {ranks} top {top:<3} largest change  flags")
    for kind in found["type"].values:
        one = found.sel(type=kind)
        overlap, largest = float(one["overlap"]), float(one["largest"])
        if not np.isfinite(one["rank_correlation"]):
            options.say(f"  {kind:<19} no score to compare on one side, or all heads alike")
            continue
        flags = f"{int(one['flag'].sum())} -> {int(one['flag_against'].sum())}"
        each = [options.with_interval(one, f"rank_correlation{of}", ".4f") for of in ("", "_named")]
        named = f"{each[1]} {int(one['named'].sum()):>3} heads"
        ranks = f"{each[0]:<24} {named:<33}"
        options.say(f"  {kind:<19} {ranks} {overlap:>6.0%} {largest:>14.2g}  {flags}")
        changes = {
            "gained": one["flag_against"] > one["flag"],
            "lost": one["flag_against"] < one["flag"],
        }
        for word, mask in changes.items():
            names = [head_name(*head) for head, on in mask.to_series().items() if on]
            if names:
                options.say(f"  {'':<19} flag {word} by {', '.join(names)}")
    for name in ("drift.nc", "drift.png"):
        options.say(options.shown(run.folder / name))

"""Where does a model hold a variable?

Train an interchange at every layer and position, beside its controls.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from nnheads.recipes import _das
from nnheads.recipes import _options as options


def main(
    model: options.Model = "reference",
    task: Annotated[str, typer.Option(help="A causal model that ships: ioi or parity.")] = "ioi",
    variable: Annotated[
        str | None, typer.Option(help="Its variable, e.g. position, state or answer.")
    ] = None,
    pairs: Annotated[
        Path | None, typer.Option(help="Pairs of your own: .jsonl with base, source and answer.")
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            help="Where to look: roles or positions, e.g. S2,END or -1,-2; own pairs: -1."
        ),
    ] = None,
    site: Annotated[
        str, typer.Option(help="resid_post, resid_pre, z, attn_out, mlp_out, ...")
    ] = "resid_post",
    layers: Annotated[str | None, typer.Option(help="Only these layers, e.g. 0,2,5-8.")] = None,
    kind: Annotated[
        str, typer.Option(help="What is trained: das, lowrank, boundless or mask.")
    ] = "das",
    directions: Annotated[
        int | None, typer.Option(help="How many; default 1, for boundless and mask all.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Steps of training at each place.")] = 30,
    step_pairs: Annotated[int, typer.Option(help="Pairs in each step.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="Of rotations (Adam).")] = 0.01,
    patience: Annotated[
        int | None,
        typer.Option(
            help="Stop after so many measurements (one in ten steps) without improvement."
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", help="How many pairs to train on, at most.")
    ] = 256,
    test: Annotated[int, typer.Option(help="How many other pairs to test on, at most.")] = 128,
    seed: options.Seed = 0,
    revision: options.Revision = None,
    dtype: options.Dtype = "auto",
    quantization: options.Quantization = None,
    device_map: options.DeviceMap = None,
    output: options.Output = options.RESULTS,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    traceback: options.Traceback = False,
) -> None:
    """Where does a model hold a variable?

    A causal model says how an answer comes about, and what it would be had a variable the value
    that it has in another prompt. At every layer and position, directions are trained along which
    an interchange between the two prompts gives that answer (DAS), and tested on pairs that were
    never trained on, beside four controls: trained on shuffled answers, random directions, the
        whole site, and no intervention. Writes scores.nc (batch, layer, place), places.nc
    (layer, place), places.png, and the best place as an intervention in a folder. Training needs
    gradients, so it runs here and not on other machines.
    """
    arguments = dict(locals())
    from nnheads.errors import BadInput
    from nnheads.models.geometry import geometry
    from nnheads.models.names import parse_numbers
    from nnheads.runs.folder import Run, item_of
    from nnheads.runs.provenance import model_identity

    _das.check(arguments)
    records = None if pairs is None else _das.read(pairs)
    loaded = options.load(model, revision, dtype, device_map, False, quantization)
    if quantization is not None and loaded.device.type == "cpu":
        raise BadInput(
            "bitsandbytes has no gradients on a CPU; use a GPU (--device-map), or drop"
            " --quantization"
        )
    chosen = list(range(geometry(loaded).layers))
    if layers is not None:
        chosen = parse_numbers(layers, "layer", len(chosen))
    given = (
        _das.given_pairs(loaded, arguments)
        if records is None
        else _das.own_pairs(loaded, records, arguments)
    )
    places = _das.places_of(at, given)
    identity = model_identity(loaded, model)
    facts = {
        **arguments,
        "model": identity["model"],
        "weights": identity["commit"],
        "pairs_sha256": given.digest,
    }
    words = (given.name, site, kind, ",".join(places), str(chosen), str(directions))
    run = Run(
        output, "das", model, identity["revision"], facts, item=item_of(*words), overwrite=overwrite
    )
    run.jobs_of(loaded)
    if not run.complete:
        compute(run, loaded, given, places, chosen, facts, model, quiet)
    _das.report(run)


def compute(
    run, model, given, places: dict, layers: list[int], facts: dict, name: str, quiet: bool
) -> None:
    """Train, test, reduce, draw, save; every finished layer and place is kept in the run's folder."""
    from nnheads import plot
    from nnheads.interventions.alignment import SOURCE
    from nnheads.interventions.files import JSON_NAME, TENSORS_NAME
    from nnheads.interventions.files import save as save_edits
    from nnheads.interventions.localise import localise, reduced
    from nnheads.runs.provenance import provenance

    scores, best = localise(
        model,
        given.fit,
        given.test,
        places,
        site=facts["site"],
        layers=layers,
        kind=facts["kind"],
        directions=facts["directions"],
        steps=facts["steps"],
        batch_size=facts["step_pairs"],
        every=_das.EVERY,
        learning_rate=facts["learning_rate"],
        patience=facts["patience"],
        parts=run.parts,
        seed=facts["seed"],
        quiet=quiet,
    )
    about = provenance(
        title="alignment",
        model=model,
        name=name,
        prompts=given.digest,
        arguments=facts,
        references="; ".join(text for text in (SOURCE, given.references) if text),
    )
    about |= {"variable": given.name, "about": given.about, "kept": given.kept}
    scores = scores.assign_attrs({**scores.attrs, **about})
    table = reduced(scores, seed=facts["seed"])
    run.save(scores=scores, places=table)
    best_at = f"layer {table.attrs['best_layer']}, {table.attrs['best_place']}"
    figure = plot.heatmap(
        table["trained"].assign_attrs(long_name="interchange accuracy"),
        signed=False,
        title=f"Where is the {given.name}?\nBest on pairs left out of training: {best_at}",
        texts=_das.percent(table["trained"].values),
        note=plot.note(scores, scores.sizes["batch"]),
    )
    run.picture("places", figure)
    save_edits(best, run.folder / "intervention", model=about["model"])
    run.files += [f"intervention/{file}" for file in (JSON_NAME, TENSORS_NAME)]
    run.finish(best=best_at)

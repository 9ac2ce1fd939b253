"""Which way can a model be steered, and what does it cost? Adds a direction while it writes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated

import typer
from nnheads.recipes import _options as options
from nnheads.recipes import _steer

PLACES = ("all", "prompt", "decode")
READS = ("all", "end")
STRENGTHS = "0,0.5,1,2,4"
SHOWN = {
    "effect": "log odds of texts toward against away",
    "random": "the same, random directions: mean and range",
    "kl": "KL divergence on neutral text",
}


def main(
    model: options.Model = "reference",
    toward: Annotated[Path | None, typer.Option(help="Texts to steer toward, one a line.")] = None,
    away: Annotated[Path | None, typer.Option(help="Texts to steer away from, one a line.")] = None,
    prompt: Annotated[str | None, typer.Option(help="What the model continues.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Prompts to continue, one a line.")] = None,
    neutral: Annotated[
        Path | None, typer.Option(help="Texts that steering should not touch, one a line.")
    ] = None,
    intervention: Annotated[
        str | None,
        typer.Option(help="A saved intervention instead of a direction: a folder or a Hub id."),
    ] = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            help="Import the functions that the intervention names; only from authors you trust.",
        ),
    ] = False,
    layer: Annotated[
        str, typer.Option(help="Where to steer: a number, or auto (where the texts differ best).")
    ] = "auto",
    site: Annotated[
        str, typer.Option(help="resid_post, resid_pre, z, attn_out, mlp_out, ...")
    ] = "resid_post",
    read: Annotated[
        str, typer.Option(help="Which tokens of a text give the direction: all or end.")
    ] = "all",
    strength: Annotated[
        str,
        typer.Option(
            help=(
                "In lengths of the direction: 1 carries the mean of one sort of texts to the"
                " other's."
            )
        ),
    ] = STRENGTHS,
    at: Annotated[
        str,
        typer.Option(
            help="Where it is added: all, prompt, or decode (tokens as they are written)."
        ),
    ] = "all",
    draws: Annotated[int, typer.Option(help="Random directions to compare with.")] = 5,
    new_tokens: Annotated[int, typer.Option(help="How many tokens to write at most.")] = 30,
    temperature: Annotated[
        float | None, typer.Option(help="Draw tokens; default: the likeliest.")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw from the likeliest tokens with this share.")
    ] = None,
    batch_size: options.BatchSize = 16,
    seed: options.Seed = 0,
    revision: options.Revision = None,
    dtype: options.Dtype = "auto",
    quantization: options.Quantization = None,
    device_map: options.DeviceMap = None,
    remote: options.Remote = None,
    submit: options.Submit = False,
    output: options.Output = options.RESULTS,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    traceback: options.Traceback = False,
) -> None:
    """Which way can a model be steered, and what does it cost? Adds a direction while it writes.

    The direction is the difference of the mean activations of two sorts of texts, half of each; the
    other half says which layer tells them apart, and how much likelier steering makes the one than
    the other, beside what random directions do. Against that stand how far it moves predictions on
    neutral text, and how unlikely what it writes is to the model itself. Writes scores.nc
    (strength; prompt, text, neutral text), curve.nc (strength), curve.png, directions.nc (layer),
    and the intervention at strength 1 in a folder that `--intervention` takes.
    """
    arguments = dict(locals())
    arguments.pop("trust")  # what may be imported changes no number
    from nnheads.errors import BadInput
    from nnheads.runs.folder import Run, item_of
    from nnheads.runs.provenance import model_identity

    check(arguments)
    if trust and intervention is None:
        raise BadInput(
            "--trust is for a saved intervention; name one with --intervention, or leave it out"
        )
    texts = read_files(arguments)
    where = options.remote_of(remote)
    saved = None if intervention is None else saved_edits(intervention, trust)
    strengths = strengths_of(strength, saved)
    loaded = options.load(model, revision, dtype, device_map, where, quantization)
    identity = model_identity(loaded, model)
    digest = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
    facts = {
        **arguments,
        "model": identity["model"],
        "weights": identity["commit"],
        "texts": digest,
    }
    facts |= {"strength": strengths, "intervention": identity_of(intervention, saved)}
    item = item_of(site if saved is None else facts["intervention"], digest)
    run = Run(output, "steer", model, identity["revision"], facts, item=item, overwrite=overwrite)
    run.jobs_of(loaded)
    if not run.complete:
        compute(run, loaded, texts, saved, facts, model, quiet)
    _steer.report(run)


def check(arguments: dict) -> None:
    """Refuse what no model could be asked before one is loaded."""
    from nnheads.errors import BadInput
    from nnheads.interventions.generate import sampling

    options.positive(**{name: arguments[name] for name in ("draws", "new_tokens", "batch_size")})
    for name, known in (("at", PLACES), ("read", READS)):
        if arguments[name] not in known:
            raise BadInput(
                f"--{name} {arguments[name]!r} is not known; use one of {', '.join(known)}"
            )
    if not (
        arguments["layer"] == "auto"
        or (arguments["layer"].isascii() and arguments["layer"].isdigit())
    ):
        raise BadInput(f"--layer {arguments['layer']!r} is not possible; use a number or auto")
    if arguments["prompt"] is not None and arguments["prompts"] is not None:
        raise BadInput(
            "--prompt and --prompts exclude each other; what is continued comes from one of them"
        )
    if arguments["intervention"] is not None:
        for name, usual in (
            ("layer", "auto"),
            ("site", "resid_post"),
            ("read", "all"),
            ("at", "all"),
        ):
            if arguments[name] != usual:
                raise BadInput(
                    f"--{name} is for a direction; a saved intervention says itself where it acts"
                )
    if (arguments["toward"] is None) != (arguments["away"] is None):
        raise BadInput("--toward and --away belong together; give both or neither")
    sampling(sample_of(arguments))


def sample_of(facts: dict) -> dict | None:
    """How tokens are drawn; None for the likeliest."""
    asked = {name: facts[name] for name in ("temperature", "top_p") if facts[name] is not None}
    return {**asked, "seed": facts["seed"]} if asked else None


def read_files(arguments: dict) -> dict[str, list[str] | None]:
    """Texts of every kind, from files, or of the reference model's own world.

    None: neither toward nor away.
    """
    from nnheads.errors import BadInput
    from nnheads.models.shipped import REFERENCE

    own: dict = _steer.own_world(arguments["seed"]) if arguments["model"] == REFERENCE else {}
    found = {
        name: own.get(name) if arguments[name] is None else _steer.lines_of(arguments[name])
        for name in ("toward", "away", "prompts", "neutral")
    }
    if arguments["prompt"] is not None:
        found["prompts"] = [arguments["prompt"]]
    if found["toward"] is None and arguments["intervention"] is None:
        raise BadInput(
            "--toward and --away are needed: two files of texts, one a line (only the reference has"
            " its own)"
        )
    if found["prompts"] is None:
        raise BadInput("--prompt or --prompts is needed: what the model continues")
    return {**found, "neutral": found["neutral"] or list(_steer.NEUTRAL)}


def saved_edits(source: str, trust: bool):
    """An intervention of a folder or of the Hub, if it can be steered with."""
    from nnheads.errors import BadInput
    from nnheads.interventions.files import load

    try:
        found = load(source, trust=trust)
    except BadInput as error:
        raise BadInput(str(error).replace("load with trust=True", "use --trust")) from None
    if found.sources:
        raise BadInput(
            f"intervention {source!r} takes {found.sources} source prompts, which steer does not"
            " have"
        )
    return found


def identity_of(source: str | None, saved) -> str:
    """The name of a saved intervention, and a hash of what it says."""
    if saved is None:
        return ""
    digest = hashlib.sha256(repr(saved.edits).encode())
    for name, tensor in sorted(saved.tensors.items()):
        digest.update(name.encode() + tensor.detach().float().numpy().tobytes())
    return f"{Path(source or '').name} {digest.hexdigest()[:12]}"


def strengths_of(text: str, saved) -> list[float]:
    """The sweep; without and with what cannot be scaled."""
    from nnheads.errors import BadInput

    if saved is None or any(edit.do.name in ("add", "subtract") for edit in saved.edits):
        return _steer.numbers_in(text)
    if text != STRENGTHS:
        raise BadInput(
            "--strength scales what an intervention adds, and this one adds nothing; leave it out"
        )
    return [0.0, 1.0]


def compute(run, model, texts: dict, saved, facts: dict, name: str, quiet: bool) -> None:
    """Find the direction, sweep its strength, reduce, draw, save."""
    from nnheads import plot
    from nnheads.interventions.files import JSON_NAME, TENSORS_NAME
    from nnheads.interventions.files import save as save_edits
    from nnheads.interventions.steering import reduced, sweep
    from nnheads.interventions.steering_directions import SOURCE
    from nnheads.runs.provenance import provenance

    about = provenance(
        title="steering",
        model=model,
        name=name,
        prompts=facts["texts"],
        arguments=facts,
        references=SOURCE,
        sample_dims="prompt text neutral",
    )
    found, layer = None, -1
    steering = f"intervention {facts['intervention']}"
    if saved is None:
        found, layer, saved = found_direction(model, texts, facts)
        steering = (
            f"{facts['site']} of layer {layer}, direction read at {facts['read']}, added at"
            f" {facts['at']}"
        )
        run.save(directions=found.assign_attrs({**found.attrs, **about}))
    toward, away = unseen(texts, found, facts["seed"])
    scores = sweep(
        model,
        saved,
        texts["prompts"],
        texts["neutral"],
        strengths=facts["strength"],
        found=found,
        layer=layer,
        toward=toward,
        away=away,
        new_tokens=facts["new_tokens"],
        sample=sample_of(facts),
        draws=facts["draws"],
        parts=run.parts,
        batch_size=facts["batch_size"],
        seed=facts["seed"],
        quiet=quiet,
    ).assign_attrs(about)
    curve = reduced(scores, seed=facts["seed"]).assign_attrs(
        {**about, "layer": layer, "steering": steering}
    )
    run.save(scores=scores, curve=curve)
    shown = {
        text: (
            curve[key].assign_attrs(long_name="per token"),
            curve[f"{key}{low}"],
            curve[f"{key}{high}"],
        )
        for (key, text), (low, high) in zip(SHOWN.items(), _steer.ENDS.values())
        if key in curve
    }
    run.picture(
        "curve", plot.curves(shown, title=steering, note=plot.note(scores, scores.sizes["prompt"]))
    )
    save_edits(saved, run.folder / "intervention", model=about["model"])
    run.files += [f"intervention/{file}" for file in (JSON_NAME, TENSORS_NAME)]
    run.finish(strengths=facts["strength"])


def found_direction(model, texts: dict, facts: dict):
    """The direction at every layer, the layer that is steered, and the intervention that does it."""
    from nnheads.errors import BadInput
    from nnheads.interventions.schema import ALL, ANSWER, PROMPT
    from nnheads.interventions.steering_directions import END, best_layer, direction, steering
    from nnheads.models.geometry import geometry

    layers = geometry(model).layers
    if facts["layer"] != "auto" and int(facts["layer"]) >= layers:
        raise BadInput(
            f"layer {facts['layer']} does not exist; this model has layers 0 to {layers - 1}"
        )
    found = direction(
        model,
        texts["toward"],
        texts["away"],
        site=facts["site"],
        at=ALL if facts["read"] == "all" else END,
        batch_size=facts["batch_size"],
        seed=facts["seed"],
    )
    layer = best_layer(found) if facts["layer"] == "auto" else int(facts["layer"])
    at = {"all": ALL, "prompt": PROMPT, "decode": ANSWER}[facts["at"]]
    return found, layer, steering(found, layer, at=at)


def unseen(texts: dict, found, seed: int) -> tuple[list[str], list[str]]:
    """Texts of both sorts that gave no direction."""
    from nnheads.interventions.steering_directions import halves

    def kept(own: list[str]) -> list[str]:
        gave = halves(len(own), seed) if found is not None else [False] * len(own)
        return [text for text, used in zip(own, gave) if not used]

    return kept(texts["toward"] or []), kept(texts["away"] or [])

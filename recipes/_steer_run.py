"""What `nnheads steer` computes: a direction, and what every strength of it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nnheads.recipes import _steer, _steer_report
from nnheads.recipes._results import band, save_described, save_edits

from nnheads.errors import BadInput

if TYPE_CHECKING:
    import xarray as xr

    from nnheads.interventions.schema import Intervention
    from nnheads.runs.folder import Run

# picture: what it shows, in words; a cost a hundred times as large would hide the effect
PICTURES = {
    "curve": {
        "effect": "log odds of texts toward against away",
        "random": "the same, random directions: mean and range",
    },
    "cost": {"kl": "KL divergence on neutral text"},
}

# what --read and --at mean, in words
PLACES = {
    "all": "every position",
    "end": "the end",
    "prompt": "the prompt",
    "decode": "what is written",
}


@dataclass(frozen=True, eq=False)
class Steering:
    """What steers, in words and as an intervention; and the direction that it came from, if it was
    found here: its dataset (layer) and its layer.
    """

    words: str
    intervention: Intervention
    directions: xr.Dataset | None = None
    layer: int = -1


def compute(run: Run, request: _steer.Request) -> None:
    """Find the direction, sweep its strength, reduce, draw, save."""
    from nnheads.interventions.steering import reduced
    from nnheads.interventions.steering_directions import SOURCE

    about = run.about(
        title="steering",
        prompts=run.facts["texts"],
        references=SOURCE,
        sample_dims="prompt text neutral",
    )
    steering = steering_of(run, request)
    if steering.directions is not None:
        save_described(run, about, directions=steering.directions)
    scores = swept(run, request.texts, steering).assign_attrs(about)
    curve = reduced(scores, seed=run.facts["seed"]).assign_attrs(
        {**about, "layer": steering.layer, "steering": steering.words}
    )
    run.save(scores=scores, curve=curve)
    draw(run, scores, curve)
    save_edits(run, steering.intervention, about["model"])
    run.finish(strengths=run.facts["strength"])


def steering_of(run: Run, request: _steer.Request) -> Steering:
    """Return the saved intervention, or the direction between the two sorts of texts."""
    if request.saved is not None:
        return Steering(f"intervention {request.name}", request.saved)
    facts = run.facts
    directions, layer, intervention = found_direction(run.model, request.texts, facts)
    words = (
        f"{facts['site']} of layer {layer}, direction read at {PLACES[facts['read']]}, added at"
        f" {PLACES[facts['at']]}{left_out(directions)}"
    )
    return Steering(words, intervention, directions, layer)


def left_out(directions: xr.Dataset) -> str:
    """Return how many positions the means leave out, if any."""
    count = directions.attrs["massive_left_out"]
    return f" ({count} positions with massive activations left out)" if count else ""


def found_direction(
    model: Any, texts: _steer.Texts, facts: dict[str, Any]
) -> tuple[xr.Dataset, int, Intervention]:
    """Return the direction at every layer, the layer that is steered, and the intervention."""
    from nnheads.interventions.positions import ALL, ANSWER, PROMPT
    from nnheads.interventions.steering_directions import END, best_layer, direction
    from nnheads.interventions.steering_edits import steering

    check_layer(model, facts["layer"])
    directions = direction(
        model,
        texts.toward,
        texts.away,
        site=facts["site"],
        at=ALL if facts["read"] == "all" else END,
        batch_size=facts["batch_size"],
        seed=facts["seed"],
    )
    layer = best_layer(directions) if facts["layer"] == "auto" else int(facts["layer"])
    at = {"all": ALL, "prompt": PROMPT, "decode": ANSWER}[facts["at"]]
    return directions, layer, steering(directions, layer, at=at)


def check_layer(model: Any, layer: str) -> None:
    """Refuse a layer that the model does not have."""
    from nnheads.models.geometry import geometry

    layers = geometry(model).layers
    if layer != "auto" and int(layer) >= layers:
        raise BadInput(f"layer {layer} does not exist; this model has layers 0 to {layers - 1}")


def swept(run: Run, texts: _steer.Texts, steering: Steering) -> xr.Dataset:
    """Return what every strength does (strength; prompt, text, neutral text)."""
    from nnheads.interventions.steering import sweep

    facts = run.facts
    gave_direction = steering.directions is not None
    return sweep(
        run.model,
        steering.intervention,
        texts.prompts,
        texts.neutral,
        strengths=facts["strength"],
        directions=steering.directions,
        layer=steering.layer,
        toward=unseen(texts.toward, gave_direction, facts["seed"]),
        away=unseen(texts.away, gave_direction, facts["seed"]),
        new_tokens=facts["new_tokens"],
        sample=_steer.sample_of(facts),
        draws=facts["draws"],
        parts=run.parts,
        batch_size=facts["batch_size"],
        seed=facts["seed"],
        quiet=facts["quiet"],
    )


def unseen(texts: list[str] | None, gave_direction: bool, seed: int) -> list[str]:
    """Return the texts of one sort that gave no direction."""
    from nnheads.interventions.steering_directions import halves

    if texts is None or not gave_direction:
        return texts or []
    return [text for text, used in zip(texts, halves(len(texts), seed)) if not used]


def draw(run: Run, scores: xr.Dataset, curve: xr.Dataset) -> None:
    """Draw effect over the strength, and cost over it beside."""
    from nnheads import plot

    for picture, shown in PICTURES.items():
        lines = {}
        for name, text in shown.items():
            if name in curve:
                value, low, high = band(curve, name, _steer_report.ENDS[name])
                lines[text] = (value.assign_attrs(long_name="per token"), low, high)
        if not lines:  # a saved intervention without texts to judge it by
            continue
        figure = plot.curves(
            lines,
            title=curve.attrs["steering"],
            levels=(0.0,),  # nothing changed; these are nats, and 1 is no end of them
            shaded=shaded("random" in shown),
            note=plot.note(scores, scores.sizes["prompt"]),
        )
        run.picture(picture, figure)


def shaded(random: bool) -> str:
    """Return what the ends of the lines are; random: whether random directions are among them."""
    draws = "; of random directions, the lowest and the highest draw"
    return f"the 95% interval of each line{draws if random else ''}"

"""What `nnheads steer` says on the terminal."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from nnheads.recipes._terminal import say, say_files, with_interval

if TYPE_CHECKING:
    import xarray as xr

    from nnheads.runs.folder import Run

# what is measured at each strength, and how its ends are named where it has an interval
COLUMNS = ("effect", "random", "projection", "kl", "perplexity")
ENDS = {"effect": ("_low", "_high"), "random": ("_lowest", "_highest"), "kl": ("_low", "_high")}
WITH_INTERVAL = ("effect", "random")
SHOWN = 3  # prompts whose continuations are printed
FILES = ("scores.nc", "curve.nc", "curve.png", "cost.png", "directions.nc", "intervention")


def report(run: Run) -> None:
    """Print where texts are told apart, effect against fluency, and what is written."""
    scores, curve = run.load("scores"), run.load("curve")
    if (run.folder / "directions.nc").is_file():
        say_layers(run.load("directions"), curve.attrs["layer"])
    draws = ""
    if "draw" in scores.sizes:
        draws = f"; of random: lowest and highest of {scores.sizes['draw']} draws"
    say(f"{curve.attrs['steering']}; in nats per token [95% interval{draws}]")
    say_curve(curve)
    if "effect" in curve:
        say(verdict(curve))
    for prompt in range(min(SHOWN, scores.sizes["prompt"])):
        say_written(scores.isel(prompt=prompt))
    say_files(run, *(name for name in FILES if (run.folder / name).exists()))


def say_layers(directions: xr.Dataset, chosen: int) -> None:
    """Print how well each layer tells the texts apart, and which one is steered and why.

    Layers in a row that do so equally well share a line.
    """
    say("layers  separability of texts held out [q]")
    alike = itertools.groupby(
        directions["layer"].values.tolist(),
        lambda layer: (separability(directions, layer), layer == chosen),
    )
    for (value, steered), group in alike:
        layers = list(group)
        named = str(layers[0]) if len(layers) == 1 else f"{layers[0]}-{layers[-1]}"
        more = f"   steered{reason(directions, chosen)}; {lengths(directions, chosen)}"
        say(f"  {named:<7} {value}{more if steered else ''}")


def separability(directions: xr.Dataset, layer: int) -> str:
    """Return how well a layer tells the texts apart, and how sure that is."""
    one = directions.sel(layer=layer)
    rest = one["auc"].dims
    return f"{float(one['auc'].max(rest)):.3f} [{float(one['q_value'].min(rest)):.1e}]"


def lengths(directions: xr.Dataset, layer: int) -> str:
    """Return how long the direction is, and the activations that it is added to."""
    one = directions.sel(layer=layer)
    norm, typical = (float((one[name] ** 2).sum() ** 0.5) for name in ("norm", "typical"))
    return f"the direction's norm is {norm:.3g}, that of activations {typical:.3g}"


def reason(directions: xr.Dataset, chosen: int) -> str:
    """Return why a layer is steered that is not alone in telling texts apart best."""
    from nnheads.interventions.steering_directions import best_layer, equally_good

    equal = equally_good(directions)
    if chosen not in equal:
        return ", as asked for"
    if len(equal) == 1:
        return ""
    if chosen != best_layer(directions):
        return f", as asked for; {len(equal)} layers do equally well"
    return f": of {len(equal)} layers that do equally well, the one nearest the middle"


def say_curve(curve: xr.Dataset) -> None:
    """Print what each strength does, a line each, and what the columns are."""
    columns = [name for name in COLUMNS if name in curve]
    widths = {name: 24 if name in WITH_INTERVAL else 10 for name in ("strength", *columns)}
    say("  " + "  ".join(f"{name:<{width}}" for name, width in widths.items()).rstrip())
    for strength in curve["strength"].values:
        one = curve.sel(strength=strength)
        cells = [f"{number_of(one, name):<{widths[name]}}" for name in columns]
        say("  " + "  ".join([f"{strength:<10g}", *cells]).rstrip())
    for name in columns:
        say(f"{name}: {curve[name].attrs['long_name']}")


def verdict(curve: xr.Dataset) -> str:
    """Return at which strengths the effect is sure, and beyond that of every random direction."""
    up = (curve["effect_low"] > 0) & (curve["effect"] > curve["random_highest"])
    down = (curve["effect_high"] < 0) & (curve["effect"] < curve["random_lowest"])
    said = [
        f"texts {sort} become likelier at {strengths_in(curve, which)}"
        for sort, which in {"toward": up, "away": down}.items()
        if which.any()
    ]
    if not said:
        return "at no strength is the effect surely more than that of random directions"
    return "surely, and more than with any random direction: " + "; ".join(said)


def strengths_in(curve: xr.Dataset, which: xr.DataArray) -> str:
    """Return the strengths at which something holds, in words."""
    chosen = [f"{strength:g}" for strength in curve["strength"].values[which.values]]
    return f"strength{'s' * (len(chosen) > 1)} {', '.join(chosen)}"


def say_written(one: xr.Dataset) -> None:
    """Print a prompt, and what is written at each strength."""
    say(f"{str(one['prompt_text'].values)!r}")
    for strength in one["strength"].values:
        say(f"  {strength:>5g}  {str(one['written'].sel(strength=strength).values)!r}")


def number_of(one: xr.Dataset, name: str) -> str:
    """Return a measurement at one strength, with its interval if it has one."""
    if name in WITH_INTERVAL:
        return with_interval(one, name, "+.3f", ENDS[name])
    value = float(one[name])
    return "-" if value != value else format(value, ".2f" if name == "perplexity" else "+.3f")

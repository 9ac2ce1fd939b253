"""What `nnheads steer` says on the terminal."""

from __future__ import annotations

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
FILES = ("scores.nc", "curve.nc", "curve.png", "directions.nc", "intervention")


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
    for prompt in range(min(SHOWN, scores.sizes["prompt"])):
        say_written(scores.isel(prompt=prompt))
    say_files(run, *(name for name in FILES if (run.folder / name).exists()))


def say_layers(directions: xr.Dataset, chosen: int) -> None:
    """Print how well each layer tells the texts apart, and which one is steered."""
    say("layer  separability of texts held out [q]   norm of the direction, of the activations")
    for layer in directions["layer"].values:
        one = directions.sel(layer=layer)
        rest = one["auc"].dims
        auc, q_value = float(one["auc"].max(rest)), float(one["q_value"].min(rest))
        norm, typical = (float((one[name] ** 2).sum(rest) ** 0.5) for name in ("norm", "typical"))
        mark = "  steered" if layer == chosen else ""
        say(f"  {int(layer):>3}  {auc:.3f} [{q_value:.1e}]   {norm:.3g}, {typical:.3g}{mark}")


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

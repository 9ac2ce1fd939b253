"""What `nnheads das` says on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnheads.recipes._terminal import say, say_files, with_interval

if TYPE_CHECKING:
    import xarray as xr

    from nnheads.runs.folder import Run

FILES = ("scores.nc", "places.nc", "places.png", "intervention")


def report(run: Run) -> None:
    """Print the accuracy at every layer and position, and the best one beside its controls."""
    table = run.load("places")
    about = table.attrs
    say(f"{about['variable']}: {about['about']}; {about['kept']}")
    without = f"without any intervention {float(table['none'].mean()):.3f}"
    say(f"interchange accuracy on pairs never trained on, {about['site']}; {without}:")
    say_grid(table["trained"])
    say_best(table, len(run.load("scores")["batch"]))
    say_files(run, *FILES)


def say_grid(accuracy: xr.DataArray) -> None:
    """Print the accuracy (layer, place), a line a layer."""
    say("  layer  " + "  ".join(f"{name!s:>9}" for name in accuracy["place"].values))
    for layer in accuracy["layer"].values:
        row = accuracy.sel(layer=layer).values
        say(f"  {int(layer):>5}  " + "  ".join(f"{value:>9.3f}" for value in row))


def say_best(table: xr.Dataset, count: int) -> None:
    """Print the best layer and position beside its controls, on all pairs and on those whose answer
    changes.
    """
    from nnheads.interventions.localise import CONDITIONS

    layer, name = table.attrs["best_layer"], table.attrs["best_place"]
    say(f"best on pairs left out of training: layer {layer}, {name} [95% interval]")
    changed = f"the {table.attrs['pairs_changed']} whose answer changes"
    say(f"  {'':<42} {f'all {count} pairs':<22} {changed}")
    best = table.sel(layer=layer, place=name)
    for condition, text in CONDITIONS.items():
        all_pairs = with_interval(best, condition)
        # without an edit none of them is right: that is how they are chosen
        changed = "0.000" if condition == "none" else with_interval(best, f"{condition}_changed")
        say(f"  {text:<42} {all_pairs:<22} {changed}")

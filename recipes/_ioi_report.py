"""Draw and print what `nnheads ioi` found."""

from __future__ import annotations

from nnheads.recipes._pairs import for_and_against, letters_of
from nnheads.recipes._terminal import say, say_files, say_heads, say_kept, say_logit_difference


def draw(run, heads) -> None:
    """Draw the effect of every head, with the strongest ones marked."""
    from nnheads import plot
    from nnheads.patching.direction import direction_in

    positive, negative = for_and_against(heads, 5)
    swap = f"{heads.attrs['site_meaning']}, {direction_in(heads).words}"
    figure = plot.heatmap(
        heads["effect"],
        title=f"Indirect object: {swap}",
        marked=positive + negative[:3],
        note=plot.note(heads, heads.attrs["kept"]),
    )
    run.picture("heads", figure)


def report(run, top: int) -> None:
    """Print what was kept, the strongest heads in both directions, and where the files are."""
    heads = run.load("heads")
    say_kept(heads.attrs)
    say_logit_difference(heads)
    masked = int(heads["effect"].attrs["cases_masked"])
    if masked:
        gap = heads["effect"].attrs["gap_threshold"]
        say(f"{masked} cases have a gap below {gap} logit: left out of effects")
    say_effects(heads, top)
    say_files(run, "scores.nc", "heads.nc", "heads.png")


def say_effects(heads, top: int) -> None:
    """Print the strongest heads in both directions."""
    positive, negative = for_and_against(heads, top)
    letters = letters_of(heads)
    swap = f"{heads.attrs['site_meaning']}, {heads.attrs['direction']}"
    title = f"effect of each head, {swap}, ratio of means [95% interval]; highest:"
    say_heads(title, positive, letters)
    if negative:
        say_heads("lowest:", negative, letters)
    else:
        say("no head works against the answer beyond its interval")

"""Draw and print what `nnheads ioi` found."""

from __future__ import annotations

from nnheads.recipes._pairs import for_and_against, large_and_unsure, letters_of, with_heads
from nnheads.recipes._terminal import say, say_files, say_heads, say_kept, say_logit_difference

MARKED = 10  # heads that are framed


def draw(run, heads) -> None:
    """Draw the effect of every head, with the strongest ones marked."""
    from nnheads import plot
    from nnheads.patching.direction import direction_in

    positive, negative = for_and_against(heads, MARKED)
    largest = sorted(positive + negative, key=lambda head: -abs(head["value"]))[:MARKED]
    swap = f"{heads.attrs['site_meaning']}, {direction_in(heads).words}"
    figure = plot.heatmap(
        heads["effect"],
        title=f"Indirect object: {swap}",
        marked=largest,
        framed=f"the {len(largest)} largest whose interval leaves 0 out, either way",
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
    title = f"effect of each head, {swap}, ratio of means [95% interval]; for the answer:"
    say_heads(title, positive, letters)
    if negative:
        say_heads("against the answer:", negative, letters)
    else:
        say("no head works against the answer beyond its interval")
    unsure = large_and_unsure(heads, top)
    if unsure:
        say_heads("as large, but the interval holds 0:", unsure, letters)
    mixed = of_either_sign(heads, top)
    if mixed:
        say_heads("for it in some prompts, against it in others; mean |effect|:", mixed, letters)


def heads_named(run, top: int) -> list[tuple[int, int]]:
    """Return the heads of the lists of `say_effects`, as layer and head."""
    heads = run.load("heads")
    positive, negative = for_and_against(heads, top)
    unsure = large_and_unsure(heads, top)
    named = [*positive, *negative, *unsure, *of_either_sign(heads, top)]
    return list(dict.fromkeys((one["layer"], one["head"]) for one in named))


def of_either_sign(heads, top: int) -> list[dict]:
    """Return the heads among the largest by size whose effects cancel over prompts."""
    from nnheads import stats

    if "size" not in heads:  # a run of an earlier version
        return []
    heads = with_heads(heads)
    largest = stats.top_heads(heads, "size", top)
    cancels = abs(heads["effect"]) < heads["size"] / 2
    return [one for one in largest if bool(cancels.sel(layer=one["layer"], head=one["head"]))]

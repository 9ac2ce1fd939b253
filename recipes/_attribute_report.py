"""Print what `nnheads attribute` found: exact effects, and what the estimate missed."""

from __future__ import annotations

from nnheads.recipes._pairs import letters_of, with_heads
from nnheads.recipes._terminal import (
    line_of,
    say,
    say_files,
    say_heads,
    say_kept,
    say_logit_difference,
)


def heads_of_kind(heads, *kinds: int) -> list[dict]:
    """Return the heads of some kinds by their exact effect, strongest first in either direction."""
    from nnheads import stats

    heads = with_heads(heads)
    own = heads.where(heads["chosen"].isin(kinds))
    size = abs(own["effect"])
    return stats.top_heads(own, "effect", size.size, by=size)


def report(run) -> None:
    """Print the heads that were patched, what the estimate missed, and where the files are."""
    heads = run.load("heads")
    say_kept(heads.attrs)
    say_logit_difference(heads)
    say_top(heads)
    say_audit(heads)
    say_order(heads)
    say_files(run, "scores.nc", "heads.nc", "heads.png", "exact.png")


def say_order(heads) -> None:
    """Print whether the estimate puts heads in the order of their exact effects."""
    patched, correlation = int((heads["chosen"] > 0).sum()), float(heads["rank_correlation"])
    order = f"rank correlation of estimated and exact size, {patched} patched heads"
    say(f"{order}: {correlation:+.2f} (of their order; how large they are may differ)")


def say_top(heads) -> None:
    """Print the exact effect of the heads that the estimate puts on top."""
    from nnheads import stats
    from nnheads.patching.audit import FOUND

    patched = heads_of_kind(heads, FOUND)
    method, direction = heads.attrs["method"], heads.attrs["direction"]
    title = f"exact effect of the top {len(patched)} by {method}, {direction}, ratio of means"
    say(
        f"{title} [95% interval]; as estimated; mean size of the estimate over prompts, which ranks"
        " [logit]"
    )
    letters, table = letters_of(heads), with_heads(heads)
    for head in patched:
        one = table.sel(layer=head["layer"], head=head["head"])
        say(
            f"  {line_of(head, letters)}   {float(one['estimate']):+.3f}   {float(one['size']):.2f}"
        )
    off = abs(table["effect"]).where(far_off(table))
    names = [f"L{layer}{letters}{head}" for layer, head in stats.ranked_heads(off)]
    if names:
        say(f"estimated at less than half, or with the other sign: {', '.join(names)}")


def far_off(heads):
    """Return which patched heads the estimate is surely wrong about (layer, head or kv_head).

    It lies outside the interval of the exact effect, and is less than half of it or of the other
    sign; and the head is as large as those that count as missed.
    """
    exact, estimate = heads["effect"], heads["estimate"]
    outside = (estimate < heads["effect_low"]) | (estimate > heads["effect_high"])
    large = heads["exact_size"] >= heads["threshold"]
    return large & outside & (estimate * exact < exact**2 / 2)


def say_audit(heads) -> None:
    """Print how many heads that matter are not in the top, as far as the sample can tell."""
    others, audited = int(heads["others"]), int(heads["audited"])
    if audited:
        say_sample(heads, others, audited)
    elif others:
        rest = f"none of the {others} other heads was patched"
        say(f"{rest}: what the estimate missed is not known")


def say_sample(heads, others: int, audited: int) -> None:
    """Print what some of the other heads say of all of them."""
    missed, most, drawn = (int(heads[name]) for name in ("missed", "missed_most", "drawn"))
    some = f"{audited} of the {others} other heads, {audited - drawn} next and {drawn} at random"
    sample = some if audited < others else f"all {others} others"
    say(f"{sample}: {missed} with a change beyond {float(heads['threshold']):.3g} logit")
    if audited < others:
        share = f"{most} of the {others} go beyond it ({most / others:.0%})"
        say(f"with 95% confidence at most {share}")
    if missed:
        say_missed(heads)


def say_missed(heads) -> None:
    """Print the audited heads that matter."""
    from nnheads.patching.audit import DRAWN, NEXT

    beyond = heads.where(heads["exact_size"] > heads["threshold"])
    title = "patched though below the cut, with a change beyond it [effect, 95% interval]:"
    say_heads(title, heads_of_kind(beyond, DRAWN, NEXT), letters_of(heads))

"""What `nnheads verify` says on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnheads.recipes._terminal import say, say_files

from nnheads.errors import RunError

if TYPE_CHECKING:
    import xarray as xr

    from nnheads.claims.claim import Claim, Claims
    from nnheads.runs.folder import Run

WORDS = ("pass", "warn", "FAIL", "skip")  # in the order of the verdicts


def say_list(published: Claims, chosen: list[Claim]) -> None:
    """Print what is claimed, how it is measured, and who published it."""
    from nnheads.claims.claim import KINDS

    note = f": {published.note}" if published.note else ""
    say(f"{len(chosen)} claims about {published.model}{note}")
    for one in chosen:
        sign = "not so: " if one.negative else ""
        needs = f"; requires {one.requires}" if one.requires else ""
        number = f"{KINDS[one.kind]} {one.published:g}"
        say(f"  {one.id}: {sign}{one.claim} ({number}; {one.how['measure']}{needs})")
        say(f"    {one.source}")


def report(run: Run) -> None:
    """Print the table.

    Raises:
        RunError: a claim fails, which the exit code says.
    """
    from nnheads.claims.verdicts import FAIL, VERDICTS

    table = run.load("claims")
    width = max(len(str(name)) for name in table["said"].values) + len("not so: ")
    verdicts = [VERDICTS[code] for code in table["verdict"].values]
    say(f"      {'claim':<{width}}  measured  claimed     passes          source")
    for row in range(len(verdicts)):
        say_claim(table.isel(claim=row), width)
    counts = {word: verdicts.count(word) for word in VERDICTS if word in verdicts}
    say("what each number measures: nnheads verify MODEL --list")
    say(", ".join(f"{count} {word}" for word, count in counts.items()))
    say_files(run, "claims.nc", "verify.json")
    if FAIL in counts:
        raise RunError(f"{counts[FAIL]} of {len(verdicts)} claims fail")


def accepted(one: xr.Dataset) -> str:
    """Return which numbers pass: those within the tolerance of what is claimed."""
    published, tolerance = float(one["published"]), float(one["tolerance"])
    low, high = f"{published - tolerance:.4g}", f"{published + tolerance:.4g}"
    ends = {"value": f"{low} to {high}", "at_least": f">= {low}", "at_most": f"<= {high}"}
    return ends[str(one["kind"].values)]


def say_claim(one: xr.Dataset, width: int) -> None:
    """Print a claim, what was measured and published, and why it has no verdict of its own."""
    from nnheads.claims.claim import KINDS

    value, published = float(one["measured"]), float(one["published"])
    number = "-" if value != value else f"{value:.3f}"
    text = f"{'not so: ' if int(one['negative']) else ''}{one['said'].values}"
    claimed = f"{KINDS[str(one['kind'].values)]} {published:.4g}"
    say(
        f"{WORDS[int(one['verdict'])]}  {text:<{width}} {number:>8}  {claimed:<10}  "
        f"{accepted(one):<14}  {one['source'].values}"
    )
    if str(one["reason"].values):
        say(f"      {one['reason'].values}")

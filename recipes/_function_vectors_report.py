"""What `nnheads function-vectors` says on the terminal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from nnheads.recipes._terminal import say, say_files, with_interval

if TYPE_CHECKING:
    import xarray as xr

    from nnheads.runs.folder import Run
    from nnheads.stats import RankedHead

FILES = (
    "scores.nc",
    "heads.nc",
    "vectors.nc",
    "zero_shot.nc",
    "heads.png",
    "zero_shot.png",
)
VECTORS = {
    "shown": "function vector",
    "shuffled": "of shuffled examples",
    "random": "random heads",
}


def report(run: Run) -> None:
    """Print which tasks the model does, the heads that carry them, and what their sum does without
    examples.
    """
    heads, vectors = run.load("heads"), run.load("vectors")
    say_tasks(vectors, heads.attrs)
    say_heads(heads, json.loads(heads.attrs["arguments"])["top"])
    say_zero_shot(run.load("zero_shot"))
    say_files(run, *FILES)


def say_tasks(vectors: xr.Dataset, about: dict) -> None:
    """Print how each task is done, and which were left out."""
    done = json.loads(about["tasks"])
    for number, name in enumerate(vectors["task_name"].values):
        shown, shuffled = (
            float(vectors[f"accuracy_{kind}"][number]) for kind in ("shown", "shuffled")
        )
        left_out = "" if name in done else " (left out: not done)"
        say(
            f"task {name}: {shown:.0%} right with examples, {shuffled:.0%} with shuffled"
            f" ones{left_out}"
        )
    for name, reason in json.loads(about["dropped"]).items():
        say(f"task {name} left out: {reason}")


def say_heads(heads: xr.Dataset, top: int) -> None:
    """Print the strongest heads, beside each what another task's mean does there, and where that is
    no less.
    """
    from nnheads import stats

    compared = "excess_other" in heads
    say(
        "average indirect effect on the answer's probability [95% interval];"
        f" {int(heads['flag'].sum())} of {heads['flag'].size} heads beyond shuffled examples (*)"
        + ("; beside it that of another task's mean:" if compared else ":")
    )
    best = stats.top_heads(heads, "aie", top)
    for one in best:
        say(line_of(one, heads.sel(layer=one["layer"], head=one["head"])))
    if compared:
        say_unclear(heads, best)


def line_of(one: RankedHead, cell: xr.Dataset) -> str:
    """Return a head's effect with its interval, a star beyond shuffled examples, and another task's
    effect.
    """
    from nnheads.models.names import head_name

    star = "*" if int(cell["flag"]) else " "
    other = f" {float(cell['aie_other']):+.3f}" if "excess_other" in cell else ""
    interval = f"[{one['low']:+.3f}, {one['high']:+.3f}]"
    name = head_name(one["layer"], one["head"])
    return f"  {name:<7} {one['value']:+.3f} {interval} {star}{other}".rstrip()


def say_unclear(heads: xr.Dataset, best: list[RankedHead]) -> None:
    """Print the heads in which another task's mean may do as well."""
    from nnheads.models.names import head_name

    low = heads["excess_other_low"]
    cells = [(one["layer"], one["head"]) for one in best]
    unclear = [
        head_name(layer, head)
        for layer, head in cells
        if not float(low.sel(layer=layer, head=head)) > 0
    ]
    if unclear:
        say(
            f"another task's mean does as well, as far as can be told, in {', '.join(unclear)}:"
            " these carry no task of their own, or the tasks are one"
        )


def say_zero_shot(zero_shot: xr.Dataset) -> None:
    """Print how questions without examples are answered, as they are and with vectors added where
    the function vector does most.
    """
    layer = int(zero_shot["accuracy_shown"].values.argmax())
    before = float(zero_shot["accuracy_before"])
    say(f"questions without examples: {before:.0%} answered right")
    for kind, text in VECTORS.items():
        share = with_interval(zero_shot.isel(layer=layer), f"accuracy_{kind}", ".0%")
        say(f"  {text:<21} added before layer {layer}: {share}")

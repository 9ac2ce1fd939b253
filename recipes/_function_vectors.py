"""What `nnheads function-vectors` says on the terminal."""

from __future__ import annotations

import json

from nnheads.recipes import _options as options


def report(run) -> None:
    """Which tasks the model does, the heads that carry them, and what their sum does without
    examples.
    """
    heads, zero_shot, vectors = run.load("heads"), run.load("zero_shot"), run.load("vectors")
    for number, name in enumerate(vectors["task_name"].values):
        shown, shuffled = (
            float(vectors[f"accuracy_{kind}"][number]) for kind in ("shown", "shuffled")
        )
        done = "" if name in json.loads(heads.attrs["tasks"]) else " (left out: not done)"
        options.say(
            f"task {name}: {shown:.0%} right with examples, {shuffled:.0%} with shuffled ones{done}"
        )
    for name, reason in json.loads(heads.attrs["dropped"]).items():
        options.say(f"task {name} left out: {reason}")
    say_heads(heads, json.loads(heads.attrs["arguments"])["top"])
    layer = int(zero_shot["accuracy_shown"].values.argmax())
    options.say(
        f"questions without examples: {float(zero_shot['accuracy_before']):.0%} answered right"
    )
    for kind, text in (
        ("shown", "function vector"),
        ("shuffled", "of shuffled examples"),
        ("random", "random heads"),
    ):
        value, low, high = (
            float(zero_shot[f"accuracy_{kind}{end}"][layer]) for end in ("", "_low", "_high")
        )
        options.say(f"  {text:<21} added before layer {layer}: {value:.0%} [{low:.0%}, {high:.0%}]")
    for name in (
        "scores.nc",
        "heads.nc",
        "vectors.nc",
        "zero_shot.nc",
        "heads.png",
        "zero_shot.png",
    ):
        options.say(options.shown(run.folder / name))


def say_heads(heads, top: int) -> None:
    """The strongest heads, beside each what another task's mean does there, and where that is no
    less.
    """
    from nnheads import stats
    from nnheads.models.names import head_name

    best = stats.top_heads(heads, "aie", top)
    compared = "excess_other" in heads
    options.say(
        "average indirect effect on the answer's probability [95% interval];"
        f" {int(heads['flag'].sum())} of {heads['flag'].size} heads beyond shuffled examples (*)"
        + ("; beside it that of another task's mean:" if compared else ":")
    )
    unclear = []
    for one in best:
        own = heads.sel(layer=one["layer"], head=one["head"])
        name, star = head_name(one["layer"], one["head"]), "*" if int(own["flag"]) else " "
        other = f" {float(own['aie_other']):+.3f}" if compared else ""
        line = (
            f"  {name:<7} {one['value']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}] {star}{other}"
        )
        options.say(line.rstrip())
        if compared and not float(own["excess_other_low"]) > 0:
            unclear.append(name)
    if unclear:
        options.say(
            f"another task's mean does as well, as far as can be told, in {', '.join(unclear)}:"
            " these carry no task of their own, or the tasks are one"
        )

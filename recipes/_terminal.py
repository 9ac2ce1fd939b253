"""Print results and paths on stdout, each in one form.

say_kept(heads.attrs)
say_heads("highest:", stats.top_heads(heads, "effect", 8))
say_files(run, "scores.nc", "heads.nc", "heads.png")
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnheads.errors import safe

FEW = 8  # prompts, below which it is said that there are few


def say(text: str = "") -> None:
    """Print one line of results on stdout."""
    sys.stdout.write(safe(text).replace("\n", "\\n") + "\n")


def shown(path: Path) -> str:
    """Return a path as a reader of the terminal would type it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def say_files(run, *names: str) -> None:
    """Print where files of a run are."""
    for name in names:
        say(shown(run.folder / name))


def say_kept(attrs: Mapping[str, Any]) -> None:
    """Print how many prompts were kept, and why others were dropped.

    attrs: of a dataset: `kept`, `asked` and `dropped` (JSON, reason -> count).
    """
    why = counted(json.loads(attrs["dropped"]), "{count} {reason}")
    dropped = f" (dropped: {why})" if why else ""
    say(f"kept {attrs['kept']} of {attrs['asked']} prompts{dropped}")
    if int(attrs["kept"]) < FEW:
        say("these are few: intervals over them are rough, and one alone gives none (--limit)")
    say_word_form(attrs)


def say_word_form(attrs: Mapping[str, Any]) -> None:
    """Print how answers were taken that could also have been other tokens, if there are any."""
    if attrs.get("word_form"):
        say(f"taken {attrs['word_form']}; a pair's blank (true, false) says otherwise")


def counted(reasons: Mapping[str, int], form: str) -> str:
    """Return all reasons with their counts, in one line."""
    return "; ".join(form.format(count=count, reason=name) for name, count in reasons.items())


def say_logit_difference(
    table, beside: str = "", *, clean: str = "clean", corrupted: str = "corrupted"
) -> None:
    """Print the logit difference on either text of a pair, by the names that the table has."""
    first, second = (float(table[f"{name}_logit_difference"]) for name in (clean, corrupted))
    say(f"logit difference: clean {first:+.2f}, corrupted {second:+.2f}{beside}")


def say_heads(title: str, heads: list[dict], letters: str = "H") -> None:
    """Print `L5H1  0.93 [0.91, 0.95]`, one line a head; `letters` is KV for key/value heads."""
    say(title)
    for head in heads:
        say(f"  {line_of(head, letters)}")


def line_of(head: Mapping[str, Any], letters: str) -> str:
    """Return a head, its value and its interval; a star where it is flagged, two where strong."""
    name = f"L{head['layer']}{letters}{head['head']}"
    known = head["low"] == head["low"]  # one prompt gives no interval
    interval = f"[{head['low']:+.3f}, {head['high']:+.3f}]" if known else ""
    star = " **" if head.get("strong") else " *" if head.get("flag") else ""
    return f"{name:<7} {head['value']:+.3f} {interval}{star}".rstrip()


def say_values(heads: list[dict]) -> None:
    """Print `L5H1  0.93`, one line a head, where one prompt gives no interval."""
    for head in heads:
        say_value(head["layer"], head["head"], head["value"])


def say_ranked(title: str, values) -> None:
    """Print `L5H1  0.93` for each (layer, head) of a series."""
    say(title)
    for (layer, head), value in values.items():
        say_value(layer, head, value)


def say_value(layer: int, head: int, value: float) -> None:
    """Print one head and a value of it."""
    from nnheads.models.names import head_name

    say(f"  {head_name(layer, head):<7} {value:+.3f}")


def with_interval(
    table, name: str, form: str = ".3f", ends: tuple[str, str] = ("_low", "_high")
) -> str:
    """Return `0.938 [0.875, 0.984]`: a number of a table, and its interval where it has one.

    A dash stands for a number that is missing.
    """
    value, low, high = (float(table[f"{name}{end}"]) for end in ("", *ends))
    if value != value:
        return "-"
    alone = format(value, form)
    return alone if low != low else f"{alone} [{low:{form}}, {high:{form}}]"


def first_batch(prompts, size: int):
    """Return the prompts of the first batch, and print how many batches there are."""
    part = prompts.isel(batch=slice(size))
    total, own = prompts.sizes["batch"], part.sizes["batch"]
    say(f"{total} prompts in {-(-total // own)} batches of at most {own}; each batch:")
    return part


def say_plan(model, job, batches: float) -> None:
    """Print what the sweep of a batch would cost; seconds only where it would run here.

    batches: how many of this one's size there are.
    """
    from nnheads.patching.cost import cost, describe, rate
    from nnheads.trace.session import on_server

    price = cost(model, job)
    device = next(model._module.parameters()).device
    seconds = None
    if not on_server(model):
        seconds = price.flops / rate(device, 512, model.config.get_text_config().hidden_size)
    for line in describe(price, seconds):
        say(line)
    if seconds is not None and batches > 1:
        say(f"about {batches * seconds:,.1f} s of arithmetic in all batches")

"""Names that recipes used before `_study`, `_load` and `_terminal`; goes when no recipe uses it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from nnheads.errors import BadInput
from nnheads.remote import server as service

Model = Annotated[
    str, typer.Argument(help="Hub id, local folder, or `reference` (ships with nnheads).")
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
Quantization = Annotated[
    str | None, typer.Option(help="4bit or 8bit: weights in fewer bits (needs bitsandbytes).")
]
DeviceMap = Annotated[str | None, typer.Option(help="As in transformers: auto, cuda:0, ...")]
Limit = Annotated[int, typer.Option("--limit", "-n", help="How many prompts.")]
BatchSize = Annotated[int, typer.Option(help="Prompts per batch; a kill loses at most one batch.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything that is drawn.")]
Remote = Annotated[
    str | None, typer.Option(help="ndif, local (a rehearsal), or the URL of a server.")
]
Submit = Annotated[
    bool,
    typer.Option(
        "--submit",
        callback=lambda on: _wait(not on),
        help="With --remote: send, and do not wait for results.",
    ),
]
Output = Annotated[
    Path, typer.Option("--output", "-o", file_okay=False, help="Folder for results.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Start afresh instead of taking up what is there.")
]
Plan = Annotated[bool, typer.Option("--plan", help="Say what it would cost, and run nothing.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]
Traceback = Annotated[bool, typer.Option("--traceback", help="Show where an error came from.")]

RESULTS = Path("results")


_ASKED = {"waiting": True}


def _wait(on: bool) -> bool:
    """Whether results of jobs on a server are waited for."""
    _ASKED["waiting"] = on
    return not on


def start() -> None:
    """Keep libraries from talking over the recipe. Runs before they are imported."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def remote_of(text: str | None) -> bool | str:
    """`--remote` as nnsight takes it: False, True (NDIF), "local" or a URL."""
    if text is None:
        return False
    if text == "ndif":
        return True
    if text == "local" or text.startswith(("http://", "https://")):
        return text
    raise BadInput(f"--remote {text!r} is not possible; use ndif, local or a URL")


def load(
    model: str,
    revision: str | None,
    dtype: str,
    device_map: str | None,
    remote: bool | str,
    quantization: str | None = None,
    attention: str | None = None,
):
    from nnheads.models.load import load as load_model

    start()
    there = remote and remote != "local"
    if not there and not _ASKED["waiting"]:
        raise BadInput("--submit is for jobs on a server; give --remote ndif or a URL with it")
    loaded = load_model(
        model,
        revision=revision,
        dtype=dtype,
        quantization=quantization,
        device_map=device_map,
        attn_implementation=attention,
        remote=remote,
        waiting=_ASKED["waiting"],
    )
    for warning in service.warnings_for(remote, loaded.repo_id) if there else ():
        sys.stderr.write(f"note: {warning}\n")
    return loaded


def say(text: str = "") -> None:
    """Results and paths, on stdout."""
    sys.stdout.write(text + "\n")


def shown(path: Path) -> str:
    """A path as a reader of the terminal would type it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def say_heads(title: str, heads: list[dict], letters: str = "H") -> None:
    """`L5H1  0.93 [0.91, 0.95]`, one line a head; `letters` is KV for key/value heads."""
    say(title)
    for head in heads:
        name = f"L{head['layer']}{letters}{head['head']}"
        star = "*" if head.get("flag") else ""
        say(
            f"  {name:<7} {head['value']:+.3f} [{head['low']:+.3f}, {head['high']:+.3f}] {star}".rstrip()
        )


def with_interval(
    table, name: str, form: str = ".3f", ends: tuple[str, str] = ("_low", "_high")
) -> str:
    """`0.938 [0.875, 0.984]`: a number of a table, and its interval where it has one; a dash where
    it is none.
    """
    value, *interval = (float(table[f"{name}{end}"]) for end in ("", *ends))
    shown = [format(one, form) for one in (value, *interval)]
    if value != value:
        return "-"
    return shown[0] if interval[0] != interval[0] else f"{shown[0]} [{shown[1]}, {shown[2]}]"


def say_plan(model, job) -> None:
    """What a sweep would cost; seconds only where it would run here."""
    from nnheads.patching.cost import cost, describe, rate
    from nnheads.trace.session import on_server

    found = cost(model, job)
    device = next(model._module.parameters()).device
    seconds = (
        None if on_server(model) else found.flops / rate(device, 512, model.config.hidden_size)
    )
    for line in describe(found, seconds):
        say(line)


def positive(**values: int) -> None:
    """Refuse counts below one, by the name of their option."""
    for name, value in values.items():
        if value < 1:
            raise BadInput(
                f"--{name.replace('_', '-')} {value} is not possible; it must be at least 1"
            )

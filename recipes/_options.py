"""Spell each option that studies share once: its type, its help, and its usual value.

A study names those that it uses elsewhere than in `@study` as types:

    def main(seed: Seed = 0, traceback: Traceback = False) -> None: ...
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer
from nnheads.recipes._remote_option import check_place

RESULTS = Path("results")
NEEDS_DEFAULT = inspect.Parameter.empty

Model = Annotated[
    str,
    typer.Argument(help="Hub id, folder, GGUF file, smollm2, or reference (shipped)."),
]
Limit = Annotated[int, typer.Option("--limit", "-n", help="How many prompts.")]
BatchSize = Annotated[int, typer.Option(help="Prompts per batch; a kill loses at most one batch.")]
Top = Annotated[int, typer.Option(help="How many heads to name.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything that is drawn.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
Quantization = Annotated[
    str | None, typer.Option(help="4bit or 8bit weights (needs bitsandbytes).")
]
DeviceMap = Annotated[str | None, typer.Option(help="As in transformers: auto, cuda:0, ...")]
Remote = Annotated[
    str | None,
    typer.Option(callback=check_place, help="ndif, local (a rehearsal), or a server's URL."),
]
Submit = Annotated[bool, typer.Option("--submit", help="With --remote: send, and do not wait.")]
Output = Annotated[
    Path, typer.Option("--output", "-o", file_okay=False, help="Folder for results.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Start afresh instead of taking up what is there.")
]
Plan = Annotated[bool, typer.Option("--plan", help="Say what it would cost, and run nothing.")]
Quick = Annotated[
    bool, typer.Option("--quick", help="A first answer soon: fewer prompts; results in quick/.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]
Traceback = Annotated[bool, typer.Option("--traceback", help="Show where an error came from.")]

# In the order of the help. Those without a default are for studies that give one (`limit=100`).
SHARED: dict[str, tuple[Any, Any]] = {
    "model": (Model, "reference"),
    "limit": (Limit, NEEDS_DEFAULT),
    "batch_size": (BatchSize, NEEDS_DEFAULT),
    "top": (Top, NEEDS_DEFAULT),
    "seed": (Seed, 0),
    "revision": (Revision, None),
    "dtype": (Dtype, "auto"),
    "quantization": (Quantization, None),
    "device_map": (DeviceMap, None),
    "remote": (Remote, None),
    "submit": (Submit, False),
    "output": (Output, RESULTS),
    "overwrite": (Overwrite, False),
    "plan": (Plan, NEEDS_DEFAULT),
    "quick": (Quick, NEEDS_DEFAULT),
    "quiet": (Quiet, False),
    "traceback": (Traceback, False),
}

"""Which way can a model be steered, and what does it cost? Adds a direction while it writes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from nnheads.recipes import _steer, _steer_report, _steer_run
from nnheads.recipes._study import Study, study

Toward = Annotated[Path | None, typer.Option(help="Texts to steer toward, one a line.")]
Away = Annotated[Path | None, typer.Option(help="Texts to steer away from, one a line.")]
Prompt = Annotated[str | None, typer.Option(help="What the model continues.")]
Prompts = Annotated[Path | None, typer.Option(help="Prompts to continue, one a line.")]
Neutral = Annotated[
    Path | None, typer.Option(help="Texts that steering should not touch, one a line.")
]
Saved = Annotated[
    str | None,
    typer.Option(
        "--intervention",
        help="A saved intervention instead of a direction: folder or Hub id.",
    ),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Import the functions that the intervention names; only from authors you trust.",
    ),
]
Layer = Annotated[
    str, typer.Option(help="Where to steer: a number, or auto (where the texts differ best).")
]
Site = Annotated[str, typer.Option(help="resid_post, resid_pre, z, attn_out, mlp_out, ...")]
Read = Annotated[str, typer.Option(help="Which tokens of a text give the direction: all or end.")]
Strength = Annotated[
    str,
    typer.Option(
        help="In lengths of the direction: 1 carries the mean of one sort of texts to the other's."
    ),
]
At = Annotated[
    str,
    typer.Option(help="Where it is added: all, prompt, or decode (written tokens)."),
]
Draws = Annotated[int, typer.Option(help="Random directions to compare with.")]
NewTokens = Annotated[int, typer.Option(help="How many tokens to write at most.")]
Temperature = Annotated[float | None, typer.Option(help="Draw tokens; default: the likeliest.")]
TopP = Annotated[float | None, typer.Option(help="Draw from the likeliest tokens with this share.")]


@study(batch_size=16, incidental=("trust",), quick={"draws": 2, "new_tokens": 12})
def main(
    study: Study,
    toward: Toward = None,
    away: Away = None,
    prompt: Prompt = None,
    prompts: Prompts = None,
    neutral: Neutral = None,
    intervention: Saved = None,
    trust: Trust = False,
    layer: Layer = "auto",
    site: Site = "resid_post",
    read: Read = "all",
    strength: Strength = _steer.STRENGTHS,
    at: At = "all",
    draws: Draws = 5,
    new_tokens: NewTokens = 30,
    temperature: Temperature = None,
    top_p: TopP = None,
) -> None:
    """Which way can a model be steered, and what does it cost? Adds a direction while it writes.

    The direction is the difference of the mean activations of two sorts of texts, half of each; the
    other half says which layer tells them apart, and how much likelier steering makes the one than
    the other, beside what random directions do. Against that stand how far it moves predictions on
    neutral text, and how unlikely what it writes is to the model itself. Writes scores.nc
    (strength; prompt, text, neutral text), curve.nc (strength), curve.png, cost.png, directions.nc
    (layer), and the intervention at strength 1 in a folder that `--intervention` takes.
    """
    from nnheads.runs.folder import item_of

    request = _steer.request_of(study)
    digest = request.texts.digest
    run = study.open(
        item=item_of(site if request.saved is None else request.name, digest),
        texts=digest,
        strength=request.strengths,
        intervention=request.name,
    )
    if not run.complete:
        _steer_run.compute(run, request)
    _steer_report.report(run)

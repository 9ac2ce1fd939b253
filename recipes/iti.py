"""Can a model be made to answer more truly by moving a few heads?

Fit, evaluate, use, bake and share the edit.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from nnheads.recipes import _iti as shared
from nnheads.recipes import _options as options

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)


@app.callback()
def _root() -> None: ...


@app.command()
def fit(
    model: options.Model = "reference",
    data: shared.Data = None,
    template: shared.Template = None,
    direction: shared.Kind = "mass_mean",
    scope: shared.Scope = "all",
    alpha: shared.Alpha = shared.ALPHAS,
    heads: shared.Heads = shared.HEADS,
    fold: Annotated[
        int, typer.Option(min=0, help="The fold whose test questions are left alone.")
    ] = 0,
    folds: shared.Folds = 2,
    val_ratio: shared.ValRatio = 0.2,
    neutral: shared.Neutral = None,
    limit: shared.Limit = None,
    batch_size: options.BatchSize = 32,
    seed: options.Seed = shared.SEED,
    revision: options.Revision = None,
    dtype: options.Dtype = "auto",
    quantization: options.Quantization = None,
    device_map: options.DeviceMap = None,
    remote: options.Remote = None,
    submit: options.Submit = False,
    output: options.Output = options.RESULTS,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    traceback: options.Traceback = False,
) -> None:
    """Find the heads and directions of truth, and save the edit along them.

    A probe on every head says which of them know whether a statement is true. The best K are moved
    by alpha standard
    deviations along their direction (mass mean: the center of mass of true answers minus that of
        false ones). Strength
    and number are chosen on validation questions; the test questions of the fold are not looked at.
    Writes probes.nc (layer, head), directions.nc, grid.nc (alpha, heads), heads.png, and the edit
    in a folder `intervention`, which `nnheads steer --intervention` takes too.
    """
    arguments = dict(locals())
    from nnheads.recipes import _iti_report, _iti_use

    _iti_report.fitted(_iti_use.fitted(arguments))


@app.command()
def evaluate(
    model: options.Model = "reference",
    data: shared.Data = None,
    template: shared.Template = None,
    direction: shared.Kind = "mass_mean",
    scope: shared.Scope = "all",
    alpha: shared.Alpha = shared.ALPHAS,
    heads: shared.Heads = shared.HEADS,
    intervention: Annotated[
        str | None,
        typer.Option(
            help="Test this edit on all questions instead (transfer): a folder or a Hub id."
        ),
    ] = None,
    folds: shared.Folds = 2,
    val_ratio: shared.ValRatio = 0.2,
    draws: Annotated[
        int, typer.Option(min=0, help="Random directions, and random heads, to compare with.")
    ] = 5,
    neutral: shared.Neutral = None,
    samples: Annotated[
        int, typer.Option(min=0, help="Test questions that are answered in words.")
    ] = shared.ASKED,
    new_tokens: Annotated[int, typer.Option(help="How many tokens to write at most.")] = 20,
    judge: Annotated[
        str | None,
        typer.Option(help="Says whether answers are true: a Hub id, a folder, or openai:NAME."),
    ] = None,
    info_judge: Annotated[
        str | None, typer.Option(help="Says whether they are informative, likewise.")
    ] = None,
    plan: options.Plan = False,
    limit: shared.Limit = None,
    batch_size: options.BatchSize = 32,
    seed: options.Seed = shared.SEED,
    revision: options.Revision = None,
    dtype: options.Dtype = "auto",
    quantization: options.Quantization = None,
    device_map: options.DeviceMap = None,
    remote: options.Remote = None,
    submit: options.Submit = False,
    output: options.Output = options.RESULTS,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    traceback: options.Traceback = False,
) -> None:
    """Does the edit make true answers likelier, more than chance edits do, and what does it cost?

    Each fold's edit is fitted on other questions than it is tested on, and says so: a question that
    leaked is refused. Multiple-choice scores (MC1, MC2, MC3, log-likelihood ratio) stand beside
    those without edit, with random directions as long, and with random heads, with paired tests;
    cross-entropy and KL on neutral texts beside them. Writes scores.nc (condition, question),
    summary.nc, grid.nc (alpha, heads), samples.nc, grid.png, cost.png and heads.png.
    """
    arguments = dict(locals())
    from nnheads.recipes import _iti_report, _iti_use

    run = _iti_use.evaluated(arguments)
    if run is not None:
        _iti_report.evaluated(run)


@app.command()
def generate(
    model: options.Model = "reference",
    intervention: shared.Saved = None,
    prompt: Annotated[
        str | None, typer.Option(help="What the model continues; default: test questions.")
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="Prompts to continue, one a line.")] = None,
    new_tokens: Annotated[int, typer.Option(help="How many tokens to write at most.")] = 20,
    temperature: Annotated[
        float | None, typer.Option(help="Draw tokens; default: the likeliest.")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw from the likeliest tokens with this share.")
    ] = None,
    seed: options.Seed = shared.SEED,
    revision: options.Revision = None,
    dtype: options.Dtype = "auto",
    quantization: options.Quantization = None,
    device_map: options.DeviceMap = None,
    remote: options.Remote = None,
    output: options.Output = options.RESULTS,
    traceback: options.Traceback = False,
) -> None:
    """Write with the edit, beside what is written without it. Prints; saves nothing."""
    arguments = dict(locals())
    from nnheads.recipes import _iti_use

    _iti_use.generated(arguments, defaults_of(fit))


@app.command()
def bake(
    model: options.Model = "reference",
    intervention: shared.Saved = None,
    to: shared.To = None,
    push: shared.Push = None,
    private: shared.Private = False,
    data: shared.Data = None,
    template: shared.Template = None,
    neutral: shared.Neutral = None,
    limit: shared.Limit = None,
    batch_size: options.BatchSize = 32,
    revision: options.Revision = None,
    device_map: options.DeviceMap = None,
    output: options.Output = options.RESULTS,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    traceback: options.Traceback = False,
) -> None:
    """Save a checkpoint with the edit in the biases of its output projections.

    The checkpoint is only kept if its logits are those of the live edit at every position, to 1e-4.
    A bias acts on the prompt too; how far that differs from an edit of the tokens as they are
    written is measured and printed. It loads with plain transformers.
    """
    arguments = dict(locals())
    from nnheads.recipes import _iti_use

    _iti_use.baked(arguments, defaults_of(fit))


@app.command()
def export(
    model: options.Model = "reference",
    intervention: shared.Saved = None,
    to: shared.To = None,
    push: shared.Push = None,
    private: shared.Private = False,
    revision: options.Revision = None,
    output: options.Output = options.RESULTS,
    traceback: options.Traceback = False,
) -> None:
    """Write the edit alone, tens of kB, for the same model elsewhere.

    It holds directions, strengths and heads, and which questions it was fitted on, so that an
    evaluation elsewhere can tell a leak. `nnheads.interventions.load` reads it from the folder or
    the Hub.
    """
    arguments = dict(locals())
    from nnheads.recipes import _iti_use

    _iti_use.exported(arguments, defaults_of(fit))


def defaults_of(command: Callable) -> dict:
    """Return the options of a command as they are without any."""
    return {name: one.default for name, one in inspect.signature(command).parameters.items()}

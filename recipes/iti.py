"""Can a model be made to answer more truly by moving a few heads?

Fit, evaluate, use, bake and share the edit.
"""

from __future__ import annotations

import inspect

import typer
from nnheads.recipes import _iti as shared
from nnheads.recipes._study import Study, study

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)


@app.callback()
def _root() -> None: ...


@app.command()
@study("iti", batch_size=32, seed=shared.SEED, quick=shared.QUICK)
def fit(
    study: Study,
    data: shared.Data = None,
    template: shared.Template = None,
    direction: shared.Kind = "mass_mean",
    scope: shared.Scope = "all",
    alpha: shared.Alpha = shared.ALPHAS,
    heads: shared.Heads = shared.HEADS,
    fold: shared.FoldNumber = 0,
    folds: shared.Folds = 2,
    val_ratio: shared.ValRatio = 0.2,
    neutral: shared.Neutral = None,
    limit: shared.Limit = None,
) -> None:
    """Find the heads and directions of truth, and save the edit along them.

    A probe on every head says which of them know whether a statement is true. The best K are moved
    by alpha standard deviations along their direction (mass mean: the center of mass of true
    answers minus that of false ones). Strength and number are chosen on validation questions; the
    test questions of the fold are not looked at. Writes probes.nc (layer, head), directions.nc,
    grid.nc (alpha, heads), heads.png, and the edit in a folder `intervention`, which `nnheads steer
    --intervention` takes too.
    """
    from nnheads.recipes import _iti_fit, _iti_report

    _iti_report.fitted(_iti_fit.fitted(study))


@app.command()
@study("iti", batch_size=32, seed=shared.SEED, plan=False, quick=shared.QUICK_EVALUATION)
def evaluate(
    study: Study,
    data: shared.Data = None,
    template: shared.Template = None,
    direction: shared.Kind = "mass_mean",
    scope: shared.Scope = "all",
    alpha: shared.Alpha = shared.ALPHAS,
    heads: shared.Heads = shared.HEADS,
    intervention: shared.Tested = None,
    folds: shared.Folds = 2,
    val_ratio: shared.ValRatio = 0.2,
    draws: shared.Draws = 2,
    neutral: shared.Neutral = None,
    samples: shared.Samples = shared.SAMPLES,
    new_tokens: shared.NewTokens = 20,
    judge: shared.Judge = None,
    info_judge: shared.InfoJudge = None,
    limit: shared.Limit = None,
) -> None:
    """Does the edit make true answers likelier, more than chance edits do, and what does it cost?

    Each fold's edit is fitted on other questions than it is tested on, and says so: a question that
    leaked is refused. Multiple-choice scores (MC1, MC2, MC3, log-likelihood ratio) stand beside
    those without edit, with random directions as long, and with random heads, with paired tests;
    cross-entropy and KL on neutral texts beside them. Writes scores.nc (condition, question),
    summary.nc, grid.nc (alpha, heads), samples.nc, grid.png, cost.png and heads.png.
    """
    from nnheads.recipes import _iti_cost, _iti_evaluate, _iti_report

    request = _iti_evaluate.request_of(study)
    if study.plan:
        _iti_cost.say_cost(study)
        return
    _iti_report.evaluated(_iti_evaluate.evaluated(study, request))


@app.command()
@study("iti", without=("submit", "overwrite", "quiet"), seed=shared.SEED)
def generate(
    study: Study,
    intervention: shared.Saved = None,
    prompt: shared.Prompt = None,
    prompts: shared.Prompts = None,
    new_tokens: shared.NewTokens = 20,
    temperature: shared.Temperature = None,
    top_p: shared.TopP = None,
) -> None:
    """Write with the edit, beside what is written without it. Prints; saves nothing."""
    from nnheads.recipes import _iti_use

    _iti_use.generated(study, default_fit(study))


@app.command()
@study("iti", without=("seed", "dtype", "quantization", "remote", "submit"), batch_size=32)
def bake(
    study: Study,
    intervention: shared.Saved = None,
    to: shared.To = None,
    push: shared.Push = None,
    private: shared.Private = False,
    data: shared.Data = None,
    template: shared.Template = None,
    neutral: shared.Neutral = None,
    limit: shared.Limit = None,
) -> None:
    """Save a checkpoint with the edit in the biases of its output projections.

    The checkpoint is only kept if its logits are those of the live edit at every position, to 1e-4.
    A bias acts on the prompt too; how far that differs from an edit of the tokens as they are
    written is measured and printed. It loads with plain transformers.
    """
    from nnheads.recipes import _iti_bake

    _iti_bake.baked(study, default_fit(study))


@app.command()
@study(
    "iti",
    without=(
        "seed",
        "dtype",
        "quantization",
        "device_map",
        "remote",
        "submit",
        "overwrite",
        "quiet",
    ),
)
def export(
    study: Study,
    intervention: shared.Saved = None,
    to: shared.To = None,
    push: shared.Push = None,
    private: shared.Private = False,
) -> None:
    """Write the edit alone, tens of kB, for the same model elsewhere.

    It holds directions, strengths and heads, and which questions it was fitted on, so that an
    evaluation elsewhere can tell a leak. `nnheads.interventions.load` reads it from the folder or
    the Hub.
    """
    from nnheads.recipes import _iti_bake

    _iti_bake.exported(study, default_fit(study))


def default_fit(study: Study) -> Study:
    """Return `iti fit` as it is without options, into the same results."""
    parameters = inspect.signature(fit).parameters.values()
    defaults = {one.name: one.default for one in parameters}
    return Study("iti", {**defaults, "output": study.output, "quiet": True})

"""The small trained model that ships with nnheads: `reference check` measures its card again."""

from __future__ import annotations

import typer
from nnheads.recipes import _options as options

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)


@app.callback()
def _root() -> None: ...


@app.command()
def check(
    model: options.Model = "reference",
    seed: options.Seed = 0,
    quick: bool = typer.Option(
        False, "--quick", help="Fewer prompts: seconds instead of a minute."
    ),
    traceback: options.Traceback = False,
) -> None:
    """Measure every row of the model card again, with plain transformers.

    Exit code 1 if a claim fails.
    """
    from nnheads.errors import RunError

    options.start()
    from nnheads.models.load import locate
    from nnheads.models.loading import one_line
    from nnheads.models.shipped import REFERENCE
    from nnheads.reference import check as checks

    with one_line(model):
        claims = checks.measure(locate(model), seed=seed, quick=quick)
    width = max(len(claim.name) for claim in claims)
    for claim in claims:
        sign = ">=" if claim.at_least else "<="
        verdict = "pass" if claim.passed else "FAIL"
        options.say(
            f"{claim.name:<{width}}  {claim.measured:7.3f} {sign} {claim.threshold:<5g} {verdict}"
        )
    failed = sum(not claim.passed for claim in claims)
    if failed:
        raise RunError(f"{failed} of {len(claims)} claims of the {REFERENCE} model fail on {model}")


@app.command()
def path() -> None:
    """Print the folder of the model, for use with any other tool."""
    from nnheads.models.shipped import FOLDER as PATH

    options.say(str(PATH))

"""The small trained model that ships with nnheads: `reference check` measures its card again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from nnheads.recipes._load import quieten
from nnheads.recipes._options import Model, Seed, Traceback
from nnheads.recipes._terminal import say

if TYPE_CHECKING:
    from nnheads.reference.check import Claim

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)

Quick = Annotated[bool, typer.Option("--quick", help="Fewer prompts: seconds instead of a minute.")]


@app.callback()
def _root() -> None: ...


@app.command()
def check(
    model: Model = "reference", seed: Seed = 0, quick: Quick = False, traceback: Traceback = False
) -> None:
    """Measure every row of the model card again, with plain transformers.

    Exit code 1 if a claim fails.
    """
    from nnheads.errors import RunError

    quieten()
    from nnheads.models.load import locate
    from nnheads.models.loading import one_line
    from nnheads.models.shipped import REFERENCE
    from nnheads.reference import check as checks

    with one_line(model):
        claims = checks.measure(locate(model), seed=seed, quick=quick)
    width = max(len(claim.name) for claim in claims)
    for claim in claims:
        say(f"{claim.name:<{width}}  {line_of(claim)}")
    failed = sum(not claim.passed for claim in claims)
    if failed:
        raise RunError(f"{failed} of {len(claims)} claims of the {REFERENCE} model fail on {model}")


def line_of(claim: Claim) -> str:
    """Return what was measured, what the card says, and whether that passes."""
    sign = ">=" if claim.at_least else "<="
    verdict = "pass" if claim.passed else "FAIL"
    return f"{claim.measured:7.3f} {sign} {claim.threshold:<5g} {verdict}"


@app.command()
def path() -> None:
    """Print the folder of the model, for use with any other tool."""
    from nnheads.models.shipped import FOLDER

    say(str(FOLDER))

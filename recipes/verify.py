"""Does a model show what has been published about it?

Claims, measured again: pass, warn or fail.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from nnheads.recipes import _verify, _verify_report
from nnheads.recipes._study import Study, study
from nnheads.recipes._terminal import say

from nnheads.errors import BadInput

ClaimsFile = Annotated[
    Path | None,
    typer.Option("--claims", help="A file of claims; default: the one that ships for MODEL."),
]
Only = Annotated[
    str | None,
    typer.Option(help="Only claims with one of these words in id or measure: copy,9.9,detect."),
]
Files = Annotated[
    Path | None,
    typer.Option(file_okay=False, help="Folder of published files that some claims are about."),
]
Listing = Annotated[bool, typer.Option("--list", help="Say what is claimed, and measure nothing.")]


@study(batch_size=8, quick={})
def main(
    study: Study,
    claims: ClaimsFile = None,
    only: Only = None,
    files: Files = None,
    listing: Listing = False,
) -> None:
    """Does a model show what has been published about it?

    Each claim has a source, a published number and a tolerance; negative claims say that something
    is not so. Claims that ask for the same run share it. They are data: --claims takes a file of
    your own. Writes claims.nc (claim) and verify.json. Exit code 1 if a claim fails; claims whose
    files or data are not here, or that require another one that does not pass, are skipped, and
    said to be.
    """
    from nnheads.claims.claim_files import claims_of, read_claims

    published = claims_of(study.name) if claims is None else read_claims(claims)
    quick = study.quick and only is None and _verify.reads_attention(published.claims)
    chosen = _verify.chosen(published.claims, "detect" if quick else only)
    if quick:
        say(f"quick: --only detect, {len(chosen)} of {len(published.claims)} claims")
    if listing:
        _verify_report.say_list(published, chosen)
        return
    if files is not None and not files.is_dir():
        raise BadInput(f"no folder {str(files)!r}; --files names one with published files")
    check = _verify.opened(study, published, chosen)
    if not check.run.complete:
        _verify.compute(check)
    _verify_report.report(check.run)

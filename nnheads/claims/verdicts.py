"""From a claim's number to a verdict: pass, warn, fail, or skip."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nnheads.claims.claim import Claim

PASS, WARN, FAIL, SKIP = "pass", "warn", "fail", "skip"
VERDICTS = (PASS, WARN, FAIL, SKIP)


def verdict(claim: Claim, measured: float) -> str:
    """Return `pass` within the tolerance, `warn` within the wider one, else `fail`.

    What could not be computed (NaN) fails.
    """
    if not np.isfinite(measured):
        return FAIL
    off = _distance(claim.kind, measured - claim.published)
    slack = 1e-6 * max(1.0, abs(claim.published))  # float32 has no 0.9
    if off <= claim.tolerance + slack:
        return PASS
    return WARN if off <= claim.warn + slack else FAIL


def _distance(kind: str, gap: float) -> float:
    """Return by how much a number misses what is claimed of it."""
    return {"value": abs(gap), "at_least": max(0.0, -gap), "at_most": max(0.0, gap)}[kind]


def unmet(claim: Claim, claims: Mapping[str, Claim], verdicts: Mapping[str, str]) -> str:
    """Return why a claim says nothing, or an empty text if it does.

    It says nothing where what it requires does not pass, or where that says nothing itself.
    """
    chain = [claim]
    while chain[-1].requires:
        chain.append(claims[chain[-1].requires])
    word = PASS
    for needed in reversed(chain[1:]):
        word = verdicts[needed.id] if word == PASS else SKIP
    return "" if word == PASS else f"needs {claim.requires}, which does not pass ({word})"

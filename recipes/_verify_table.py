"""The verdict on every claim, and the table of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nnheads.errors import BadInput

if TYPE_CHECKING:
    import xarray as xr

    from nnheads.claims.claim import Claim


@dataclass(frozen=True)
class Verdict:
    """The number that was measured for a claim, what it comes to, and why, if that needs saying."""

    measured: float
    word: str
    reason: str = ""


def judged(
    claims: Sequence[Claim], results: dict[str, xr.Dataset | str], grids: dict[str, Any]
) -> xr.Dataset:
    """Return every claim with its number and its verdict: (claim)."""
    from nnheads.claims.verdicts import SKIP, unmet

    verdicts = [verdict_on(claim, results[claim.run], grids) for claim in claims]
    by_name = {claim.id: claim for claim in claims}
    words = {claim.id: one.word for claim, one in zip(claims, verdicts)}
    for row, claim in enumerate(claims):
        if reason := unmet(claim, by_name, words):
            verdicts[row] = replace(verdicts[row], word=SKIP, reason=reason)
    return table_of(claims, verdicts)


def verdict_on(claim: Claim, result: xr.Dataset | str, grids: dict[str, Any]) -> Verdict:
    """Return what a measurement, or the reason that there is none, says of a claim."""
    import numpy as np

    from nnheads.claims.values import value_of
    from nnheads.claims.verdicts import FAIL, SKIP, verdict

    missing = float("nan")
    if isinstance(result, str):
        word, _, reason = result.partition(": ")
        return Verdict(missing, SKIP if word == SKIP else FAIL, reason)
    try:
        value = value_of(claim, result, grids)
    except BadInput as error:
        return Verdict(missing, verdict(claim, missing), str(error))
    return Verdict(value, verdict(claim, value), "" if np.isfinite(value) else "not a number")


def table_of(claims: Sequence[Claim], verdicts: Sequence[Verdict]) -> xr.Dataset:
    """Return claims and verdicts as a dataset (claim)."""
    import numpy as np
    import xarray as xr

    measured = [one.measured for one in verdicts]
    columns = {
        "measured": real(measured, "the number that was measured"),
        "published": real([one.published for one in claims], "the number that was published"),
        "tolerance": real([one.tolerance for one in claims], "how far off passes"),
        "warn": real([one.warn for one in claims], "how far off is only a warning"),
        "verdict": coded([one.word for one in verdicts]),
        "negative": (
            "claim",
            np.array([one.negative for one in claims], "int8"),
            {"long_name": "a negative claim", "units": "1", "source": "see source"},
        ),
    }
    texts = {
        "claim": [one.id for one in claims],
        "said": [one.claim for one in claims],
        "reason": [one.reason for one in verdicts],
        "source": [one.source for one in claims],
        "kind": [one.kind for one in claims],
        "requires": [one.requires for one in claims],
    }
    coordinates = {name: ("claim", np.array(values, dtype=str)) for name, values in texts.items()}
    return xr.Dataset(columns).assign_coords(coordinates)


def real(values: list[float], meaning: str) -> tuple[str, Any, dict[str, str]]:
    """Return numbers as a variable (claim)."""
    import numpy as np

    about = {"long_name": meaning, "units": "1", "source": "see source"}
    return "claim", np.array(values, "float32"), about


def coded(words: list[str]) -> tuple[str, Any, dict[str, Any]]:
    """Return verdicts as a variable (claim) of numbers, with what they mean."""
    import numpy as np

    from nnheads.claims.verdicts import VERDICTS

    about = {
        "long_name": "verdict",
        "units": "1",
        "source": "nnheads",
        "flag_values": np.arange(len(VERDICTS), dtype="int8"),
        "flag_meanings": " ".join(VERDICTS),
    }
    return "claim", np.array([VERDICTS.index(word) for word in words], "int8"), about

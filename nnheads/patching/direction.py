"""The direction of a swap: which text of a pair is run, and which one gives the values.

    direction_of(noising=False).before("logit_difference")   # "corrupted_logit_difference"

Denoising puts clean values into the corrupted text and asks what is sufficient for the answer.
Noising puts corrupted values into the clean text and asks what is necessary for it.
Source: Heimersheim & Nanda 2024, arXiv 2404.15255.
"""

from __future__ import annotations

from dataclasses import dataclass

import xarray as xr

TOKENS = {"clean": "token", "corrupted": "corrupted"}  # the variable that holds a text's tokens


@dataclass(frozen=True)
class Direction:
    """Which text is `changed` and which one is the `source` of values: "clean" or "corrupted"."""

    name: str
    changed: str
    source: str

    @property
    def changed_token(self) -> str:
        """Return the variable that holds the tokens of the text that is run."""
        return TOKENS[self.changed]

    @property
    def source_token(self) -> str:
        """Return the variable that holds the tokens of the text that gives values."""
        return TOKENS[self.source]

    @property
    def words(self) -> str:
        """Return the direction in words, for titles."""
        return f"{self.source} into {self.changed}"

    def before(self, metric: str = "logit_difference") -> str:
        """Return the variable of the metric where nothing was swapped."""
        return f"{self.changed}_{metric}"

    def after(self, metric: str = "logit_difference") -> str:
        """Return the variable of the metric that a swap of everything would give."""
        return f"{self.source}_{metric}"

    def gap(self, scores: xr.Dataset, metric: str = "logit_difference") -> xr.DataArray:
        """Return by how much the two texts differ (batch): what a swap can carry over."""
        return scores[self.after(metric)] - scores[self.before(metric)]


DENOISING = Direction("denoising", changed="corrupted", source="clean")
NOISING = Direction("noising", changed="clean", source="corrupted")


def direction_of(noising: bool) -> Direction:
    """Return the direction that the option `noising` names."""
    return NOISING if noising else DENOISING


def direction_in(scores: xr.Dataset) -> Direction:
    """Return the direction that scores of `patch` or `attribute` were measured in."""
    return NOISING if scores.attrs["direction"] == NOISING.name else DENOISING

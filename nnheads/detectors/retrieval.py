"""Retrieval heads: while repeating a fact from far back, attend to the very token that comes next."""

from __future__ import annotations

import xarray as xr

from nnheads.spans.measure import score

STIMULUS = "needle"
HEADLINE = "hit"
BESIDE = ("needle",)
SOURCE = "Wu et al. 2024, arXiv 2404.15574"


def retrieval(model, prompts: xr.Dataset) -> xr.Dataset:
    """Share of answer tokens for which the head's strongest key is that token in the needle: the
    copy score, with the answer teacher-forced, so that one forward measures all of it.

    Such heads carry facts from a long context into the answer; masking them makes a model forget
    what it read.

    Args:
        prompts: a needle in a haystack with its question and answer (`prompts.needle`).

    Returns:
        float32 (batch, layer, head), all in [0, 1]: `hit` (headline, the copy score), `mass`,
        `above`, `uniform`; `null` (random tokens of the context), `needle` (mass on the whole
        answer-bearing part). Coordinate
        `accuracy` (batch): share of answer tokens that the model itself predicts.

    Misleads: on models that do not answer (see `accuracy`); induction heads score too, and rightly
        so.
    Source: Wu et al. 2024, arXiv 2404.15574.
    """
    return score(model, prompts, "retrieval", source=SOURCE, beside=BESIDE)

"""Hallucination heads: they attend to the answer while the model gets it right, and away from it
when it does not.
"""

from __future__ import annotations

import xarray as xr

from nnheads.generation.prefixes import answer_and_measure
from nnheads.spans.measure import assemble

STIMULUS = "needle"
HEADLINE = "mass"
SOURCE = "Wu et al. 2024, arXiv 2404.15574"
GENERATES = True
CONTRAST = (
    "answered"  # heads are compared between prompts that were answered and those that were not
)


def hallucination(model, prompts: xr.Dataset, *, answers: xr.Dataset | None = None) -> xr.Dataset:
    """Attention to the part of the context that holds the answer, while the model writes its own
    answer.

    What is of interest is the contrast between prompts that it answers and those on which it makes
    something up: `nnheads.detect` reports it as `difference`, tested per head. It needs both sorts
        of prompts; choose lengths at
    which the model sometimes fails.

    Args:
        prompts: a needle in a haystack (`prompts.needle`); the model's own greedy answer replaces
            the one in it.
        answers: what `prefixes.answer_and_measure` returned for these prompts, where it was called
            already.

    Returns:
        float32 (batch, layer, head), all in [0, 1]: `mass` (headline), `hit`, `above`, `uniform`,
        `null`. Coordinates (batch): `recall` and `answered`, as for generated retrieval.

    Misleads: attention follows from what is being written as much as it leads to it; knock the
        heads out.
    Source: Wu et al. 2024, arXiv 2404.15574 (retrieval heads and hallucination).
    """
    scores = answer_and_measure(model, prompts) if answers is None else answers
    return assemble(scores, "answer_span", (), SOURCE).assign_attrs(kind="hallucination")

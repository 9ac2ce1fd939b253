"""Hallucination heads: they attend to the answer while the model gets it right, and away from it
when it does not.

Attention to the part of the context that holds the answer, while the model writes its own answer.

What is of interest is the contrast between prompts that it answers and those on which it makes
something up: `nnheads.detect` reports it as `difference`, tested per head. It needs both sorts of
prompts; choose lengths at which the model sometimes fails.
"""

from __future__ import annotations

import xarray as xr

from nnheads.detectors._head_type import HeadType
from nnheads.prompts.needle import needle
from nnheads.spans.scores import assemble

SOURCE = "Wu et al. 2024, arXiv 2404.15574"


def attended(answers: xr.Dataset) -> xr.Dataset:
    """Return each head's attention to the needle while the model answers (batch, layer, head)."""
    return assemble(answers, "answer_span", (), SOURCE)


HEAD_TYPE = HeadType(
    name="hallucination",
    prompts=needle,
    of_answers=attended,
    contrast="answered",
    null="random tokens for the same steps, drawn by `generation.needle_answers.answered`.",
    returns=(
        "float32 (batch, layer, head), all in [0, 1]: `mass` (headline), `hit`, `above`, `uniform`,"
        " `null`. Coordinates (batch): `recall` and `answered`, as for generated retrieval."
    ),
    misleads=(
        "attention follows from what is being written as much as it leads to it; knock the heads"
        " out."
    ),
    source=SOURCE,
    source_details="on retrieval heads and hallucination",
)

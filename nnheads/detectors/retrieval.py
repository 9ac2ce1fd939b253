"""Retrieval heads: while repeating a fact from far back, attend to the very token that comes next.

Share of answer tokens for which the head's strongest key is that token in the needle: the copy
score, with the answer teacher-forced, so that one forward measures all of it.

Such heads carry facts from a long context into the answer; masking them makes a model forget what
it read.
"""

from __future__ import annotations

from nnheads.detectors._head_type import HeadType
from nnheads.prompts.needle import needle

HEAD_TYPE = HeadType(
    name="retrieval",
    prompts=needle,
    span="retrieval",
    headline="hit",
    beside=("needle",),
    null="random tokens of the context: `spans.nulls.null_in_rows`, drawn by `prompts.needle`.",
    returns=(
        "float32 (batch, layer, head), all in [0, 1]: `hit` (headline, the copy score), `mass`,"
        " `above`, `uniform`; `null` (random tokens of the context), `needle` (mass on the whole"
        " answer-bearing part). Coordinate `accuracy` (batch): share of answer tokens that the"
        " model itself predicts."
    ),
    misleads=(
        "on models that do not answer (see `accuracy`); induction heads score too, and rightly so."
    ),
    source="Wu et al. 2024, arXiv 2404.15574",
)

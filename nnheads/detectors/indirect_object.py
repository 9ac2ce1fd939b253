"""Indirect-object heads: at the end of an indirect-object sentence, attend to the name that has to
follow.

Attention from END to the indirect object.

Name movers look there and copy the name to the output. Negative name movers look there too, often
more than any, and write against it; backup name movers only act once others are gone. Attention
does not tell them apart, the effect does: `nnheads ioi --roles` says which is which.
"""

from __future__ import annotations

from nnheads.detectors._head_type import HeadType
from nnheads.prompts.ioi_spans import ioi_spans

HEAD_TYPE = HeadType(
    name="indirect_object",
    prompts=ioi_spans,
    span="name_mover",
    beside=("subject",),
    null="random tokens of it: `spans.nulls.null_in_rows`, drawn by `prompts.ioi_spans`.",
    returns=(
        "float32 (batch, layer, head), all in [0, 1]: `mass` (headline), `hit`, `above`, `uniform`;"
        " `null` (random tokens of the sentence), `subject` (mass on S2). Coordinate `accuracy`"
        " (batch): is the answer the best token?"
    ),
    misleads=(
        "heads that work against the name look at it too, in SmolLM2 one of them most of all; and"
        " the reference model has a head with this pattern that does nothing at all: `nnheads ioi"
        " --roles` tells them apart."
    ),
    source="Wang et al. 2022, arXiv 2211.00593",
)

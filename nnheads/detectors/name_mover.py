"""Name-mover heads: at the end of an indirect-object sentence, attend to the name that has to
follow.

Attention from END to the indirect object.

Such heads copy the name that they look at to the output. Negative name movers look there too and
write against it; backup name movers only act once others are gone: attention does not tell them
apart, the effect does (`nnheads ioi`).
"""

from __future__ import annotations

from nnheads.detectors._head_type import HeadType
from nnheads.prompts.ioi_spans import ioi_spans

HEAD_TYPE = HeadType(
    name="name_mover",
    prompts=ioi_spans,
    span="name_mover",
    beside=("subject",),
    null="random tokens of it: `spans.nulls.null_in_rows`, drawn by `prompts.ioi_spans`.",
    returns=(
        "float32 (batch, layer, head), all in [0, 1]: `mass` (headline), `hit`, `above`, `uniform`;"
        " `null` (random tokens of the sentence), `subject` (mass on S2). Coordinate `accuracy`"
        " (batch): is the answer the best token?"
    ),
    misleads="the reference model has a head with this pattern that does nothing at all.",
    source="Wang et al. 2022, arXiv 2211.00593",
)

"""Induction heads: a repeated token attends to what followed its first copy.

Attention of a repeated token to the token after its first copy (prefix matching).

Such heads continue a sequence that occurred before. The statistic is attention alone: whether the
head also copies what it sees is a causal question (`nnheads knockout`).
"""

from __future__ import annotations

from nnheads.detectors._head_type import HeadType
from nnheads.prompts.repeated import NULL_OF_REPEATED, repeated

HEAD_TYPE = HeadType(
    name="induction",
    prompts=repeated,
    span="induction",
    null=NULL_OF_REPEATED,
    misleads=(
        "on prompts of one's own in which all copies are equally far apart, where a head that looks"
        " a fixed distance back passes; `prompts.repeated` varies the distance."
    ),
    source="Olsson et al. 2022, arXiv 2209.11895",
    source_details="and Wang et al. 2022, arXiv 2211.00593, appendix H",
)

"""Previous-token heads: each token attends to the one before it.

Attention of each token to the one before it.

Such heads hand a token's identity on by one position, which induction heads in later layers need.
"""

from __future__ import annotations

from nnheads.detectors._head_type import HeadType
from nnheads.prompts.repeated import NULL_OF_REPEATED, repeated

HEAD_TYPE = HeadType(
    name="previous_token",
    prompts=repeated,
    span="previous_token",
    null=NULL_OF_REPEATED,
    misleads=(
        "a head that attends to its neighbourhood scores in part; so does a sink on very short"
        " prompts."
    ),
    source="Wang et al. 2022, arXiv 2211.00593",
    source_details="appendix H",
)

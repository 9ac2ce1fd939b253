"""Current-token heads: each token attends to itself.

Attention of each token but the first to itself.

Such heads read a token's own identity, often to prepare it as a key or query for later layers.
"""

from __future__ import annotations

from nnheads.detectors._head_type import HeadType
from nnheads.prompts.repeated import NULL_OF_REPEATED, repeated

HEAD_TYPE = HeadType(
    name="current_token",
    prompts=repeated,
    span="current_token",
    null=NULL_OF_REPEATED,
    misleads="heads that attend to all copies of a token share their mass between them.",
    source="Wang et al. 2022, arXiv 2211.00593",
    source_details="appendix H",
)

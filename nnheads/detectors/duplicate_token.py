"""Duplicate-token heads: a token attends to its own earlier copy.

Attention of a repeated token to its first copy.

Such heads notice that something was there before; in the indirect-object circuit they mark the
subject.
"""

from __future__ import annotations

from nnheads.detectors._head_type import HeadType
from nnheads.prompts.repeated import NULL_OF_REPEATED, repeated

HEAD_TYPE = HeadType(
    name="duplicate_token",
    prompts=repeated,
    span="duplicate_token",
    null=NULL_OF_REPEATED,
    misleads=(
        "induction heads that are off by one for short sequences; and on prompts of one's own in"
        " which all copies are equally far apart, heads that look a fixed distance back"
        " (`prompts.repeated` varies the distance)."
    ),
    source="Wang et al. 2022, arXiv 2211.00593",
    source_details="appendix H",
)

"""Attention sinks: a head that rests on the very first position.

Attention of all queries, the first included, to the very first position.

Most heads rest there when they have nothing to do; it inflates every score whose target can be the
first token. Keep it as a column beside the others.
"""

from __future__ import annotations

from nnheads.detectors._head_type import HeadType
from nnheads.prompts.repeated import NULL_OF_REPEATED, repeated

HEAD_TYPE = HeadType(
    name="attention_sink",
    prompts=repeated,
    span="attention_sink",
    null=NULL_OF_REPEATED,
    misleads=("on short prompts, where the first position is a large part of what can be seen."),
    source="Gu et al. 2024, arXiv 2410.10781",
)

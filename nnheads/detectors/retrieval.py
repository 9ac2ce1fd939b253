"""Retrieval heads: while stating a fact from far back, attend to the very token that comes next.

Share of prompts in which the head's strongest key, where the answer's first token is to be said, is
that token in the needle. Later tokens of an answer follow by induction: the token before has just
been said, so heads that only go on with what was said before find them too. They are reported
beside it, and `generated_retrieval` scores what the model writes as the paper does.

Such heads carry facts from a long context into the answer; masking them makes a model forget what
it read.
"""

from __future__ import annotations

from nnheads.detectors._head_type import HeadType
from nnheads.prompts.needle import needle

HEAD_TYPE = HeadType(
    name="retrieval",
    prompts=needle,
    span="first_token",
    headline="hit",
    beside=("retrieval", "needle"),
    null="random tokens of the context: `spans.nulls.null_in_rows`, drawn by `prompts.needle`.",
    returns=(
        "float32 (batch, layer, head), all in [0, 1], at the answer's first token: `hit`"
        " (headline), `mass`, `above`, `uniform`, `null` (hits of random tokens), `needle`"
        " (mass on the whole answer in the needle, mean over the answer); `retrieval` (mass on"
        " the token to be said, mean over the answer). Coordinates `accuracy` (batch), the share of"
        " answer tokens that the model itself predicts, and `right` (batch, step), which."
    ),
    misleads=(
        "on models that do not answer (see `accuracy`); where an answer begins with the words that"
        " stand before it in the needle, induction heads score too."
    ),
    source="Wu et al. 2024, arXiv 2404.15574",
)

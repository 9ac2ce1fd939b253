"""Generated retrieval: retrieval heads by the original rule, while the model writes the answer
itself.

A head copies at a step if its strongest key lies in the needle and holds the very token that is
written. The model's own greedy answer takes the place of the one in the prompt.

Scores are given for every prompt; `nnheads.detect` counts only those that were answered.
"""

from __future__ import annotations

import xarray as xr

from nnheads.detectors._head_type import HeadType
from nnheads.prompts.needle import needle
from nnheads.spans.scores import assemble

SOURCE = "Wu et al. 2024, arXiv 2404.15574"
ABOUT = {"units": "1", "source": SOURCE}


def copied(answers: xr.Dataset) -> xr.Dataset:
    """Return what each head copies while the model answers, as fields `returns` says."""
    own = assemble(answers, "copied", (), SOURCE).drop_vars("by_step").fillna(0.0)
    score = own["hit"] * (answers["copies"] / answers["needle_tokens"])
    once = _different(answers) / answers["needle_different"]
    own["score"] = score.assign_attrs(long_name="copies over the needle's length", **ABOUT)
    share = "share of the needle's different tokens that were copied"
    own["score_once"] = once.assign_attrs(long_name=share, **ABOUT)
    return own.transpose("batch", "layer", "head").astype("float32")


def _different(answers: xr.Dataset) -> xr.DataArray:
    """Return how many of the needle's different tokens each head copied (batch, layer, head)."""
    each = [name for name in answers["kind"].values if str(name).startswith("copied@")]
    return (answers["hit"].sel(kind=each) > 0).sum("kind")


HEAD_TYPE = HeadType(
    name="generated_retrieval",
    prompts=needle,
    headline="score",
    of_answers=copied,
    counts="answered",  # as in the original
    null="random tokens for the same steps, drawn by `generation.needle_answers.answered`.",
    returns=(
        "float32 (batch, layer, head): `score` (headline), copies over the needle's length, above 1"
        " if a token is copied twice; `score_once`, share of the needle's different tokens that"
        " were copied, in [0, 1]; `mass`, `hit`, `above`, `uniform`, `null` on the copied tokens (0"
        " where nothing of the needle was written). Coordinates (batch): `recall`, share of the"
        " needle's different tokens in the answer, and `answered`, 1 where that is over a half."
    ),
    misleads=(
        "where few prompts were answered (`cases_counted` in the attributes of what"
        " `nnheads.detect` returns)."
    ),
    source=SOURCE,
)

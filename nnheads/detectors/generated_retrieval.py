"""Generated retrieval: retrieval heads by the original rule, while the model writes the answer
itself.
"""

from __future__ import annotations

import xarray as xr

from nnheads.generation.prefixes import answer_and_measure
from nnheads.spans.measure import assemble

STIMULUS = "needle"
HEADLINE = "score"
SOURCE = "Wu et al. 2024, arXiv 2404.15574"
GENERATES = True  # its spans are only known once the model has written
COUNTS = "answered"  # prompts for which this is 1 count, as in the original


def generated_retrieval(
    model, prompts: xr.Dataset, *, answers: xr.Dataset | None = None
) -> xr.Dataset:
    """A head copies at a step if its strongest key lies in the needle and holds the very token that
    is written.

    Args:
        prompts: a needle in a haystack (`prompts.needle`); the model's own greedy answer replaces
            the one in it.
        answers: what `prefixes.answer_and_measure` returned for these prompts, where it was called
            already.

    Returns:
        float32 (batch, layer, head): `score` (headline), copies over the needle's length, above 1
            if a token is
        copied twice; `score_once`, share of the needle's different tokens that were copied, in [0,
        1]; `mass`, `hit`, `above`, `uniform`, `null` on the copied tokens (0 where nothing of the
        needle was written). Coordinates (batch): `recall`, share of the needle's different tokens
            in the answer, and `answered`, 1 where that is over
        a half. Scores are given for every prompt; `nnheads.detect` counts only those that were
        answered.

    Misleads: where few prompts were answered (`cases_counted` in the attributes of what
        `nnheads.detect` returns).
    Source: Wu et al. 2024, arXiv 2404.15574.
    """
    scores = answer_and_measure(model, prompts) if answers is None else answers
    own = (
        assemble(scores, "copied", (), SOURCE)
        .drop_vars("by_step")
        .fillna(0.0)
        .assign_attrs(kind="generated_retrieval")
    )
    single = [name for name in scores["kind"].values if str(name).startswith("copied@")]
    once = (scores["hit"].sel(kind=single) > 0).sum("kind")
    about = {"units": "1", "source": SOURCE}
    share = scores["copies"] / scores["needle_tokens"]
    own["score"] = (own["hit"] * share).assign_attrs(
        long_name="copies over the needle's length", **about
    )
    own["score_once"] = (once / scores["needle_different"]).assign_attrs(
        long_name="share of the needle's different tokens that were copied", **about
    )
    return own.transpose("batch", "layer", "head").astype("float32")

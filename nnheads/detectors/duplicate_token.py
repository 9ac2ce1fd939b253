"""Duplicate-token heads: a token attends to its own earlier copy."""

from __future__ import annotations

import xarray as xr

from nnheads.spans.measure import score

STIMULUS = "repeated"
HEADLINE = "mass"
SOURCE = "Wang et al. 2022, arXiv 2211.00593"


def duplicate_token(model, prompts: xr.Dataset) -> xr.Dataset:
    """Attention of a repeated token to its first copy.

    Such heads notice that something was there before; in the indirect-object circuit they mark the
    subject.

    Args:
        prompts: random tokens, repeated (`prompts.repeated`), or any prompts with spans
            `duplicate_token`.

    Returns:
        float32 (batch, layer, head), all in [0, 1]: `mass` (headline), `hit`, `above`, `uniform`,
        `null`.

    Misleads: induction heads that are off by one for short sequences; and on prompts of one's own
        in which all copies are equally far apart, heads that look a fixed distance back
        (`prompts.repeated` varies the distance).
    Source: Wang et al. 2022, arXiv 2211.00593, appendix H.
    """
    return score(model, prompts, "duplicate_token", source=SOURCE)

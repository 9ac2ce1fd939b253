"""Previous-token heads: each token attends to the one before it."""

from __future__ import annotations

import xarray as xr

from nnheads.spans.measure import score

STIMULUS = "repeated"
HEADLINE = "mass"
SOURCE = "Wang et al. 2022, arXiv 2211.00593"


def previous_token(model, prompts: xr.Dataset) -> xr.Dataset:
    """Attention of each token to the one before it.

    Such heads hand a token's identity on by one position, which induction heads in later layers
    need.

    Args:
        prompts: random tokens, repeated (`prompts.repeated`), or any prompts with spans
            `previous_token`.

    Returns:
        float32 (batch, layer, head), all in [0, 1]: `mass` (headline), `hit`, `above`, `uniform`,
        `null`.

    Misleads: a head that attends to its neighbourhood scores in part; so does a sink on very short
        prompts.
    Source: Wang et al. 2022, arXiv 2211.00593, appendix H.
    """
    return score(model, prompts, "previous_token", source=SOURCE)

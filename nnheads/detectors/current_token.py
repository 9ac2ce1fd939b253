"""Current-token heads: each token attends to itself."""

from __future__ import annotations

import xarray as xr

from nnheads.spans.measure import score

STIMULUS = "repeated"
HEADLINE = "mass"
SOURCE = "Wang et al. 2022, arXiv 2211.00593"


def current_token(model, prompts: xr.Dataset) -> xr.Dataset:
    """Attention of each token but the first to itself.

    Such heads read a token's own identity, often to prepare it as a key or query for later layers.

    Args:
        prompts: random tokens, repeated (`prompts.repeated`), or any prompts with spans
            `current_token`.

    Returns:
        float32 (batch, layer, head), all in [0, 1]: `mass` (headline), `hit`, `above`, `uniform`,
        `null`.

    Misleads: heads that attend to all copies of a token share their mass between them.
    Source: Wang et al. 2022, arXiv 2211.00593, appendix H.
    """
    return score(model, prompts, "current_token", source=SOURCE)

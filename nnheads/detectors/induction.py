"""Induction heads: a repeated token attends to what followed its first copy."""

from __future__ import annotations

import xarray as xr

from nnheads.spans.measure import score

STIMULUS = "repeated"
HEADLINE = "mass"
SOURCE = "Olsson et al. 2022, arXiv 2209.11895"


def induction(model, prompts: xr.Dataset) -> xr.Dataset:
    """Attention of a repeated token to the token after its first copy (prefix matching).

    Such heads continue a sequence that occurred before. The statistic is attention alone: whether
    the head also copies what it sees is a causal question (`nnheads knockout`).

    Args:
        prompts: random tokens, repeated (`prompts.repeated`), or any prompts with spans
            `induction`.

    Returns:
        float32 (batch, layer, head), all in [0, 1]: `mass` (headline), `hit`, `above`, `uniform`,
        `null`.

    Misleads: on prompts of one's own in which all copies are equally far apart, where a head that
        looks a fixed distance back passes; `prompts.repeated` varies the distance.
    Sources: Olsson et al. 2022, arXiv 2209.11895; Wang et al. 2022, arXiv 2211.00593, appendix H.
    """
    return score(model, prompts, "induction", source=SOURCE)

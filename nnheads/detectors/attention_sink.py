"""Attention sinks: a head that rests on the very first position."""

from __future__ import annotations

import xarray as xr

from nnheads.spans.measure import score

STIMULUS = "repeated"
HEADLINE = "mass"
SOURCE = "Gu et al. 2024, arXiv 2410.10781"


def attention_sink(model, prompts: xr.Dataset) -> xr.Dataset:
    """Attention of all queries, the first included, to the very first position.

    Most heads rest there when they have nothing to do; it inflates every score whose target can be
    the first token. Keep it as a column beside the others.

    Args:
        prompts: random tokens, repeated (`prompts.repeated`), or any prompts with spans
            `attention_sink`.

    Returns:
        float32 (batch, layer, head), all in [0, 1]: `mass` (headline), `hit`, `above`, `uniform`,
        `null`.

    Misleads: on short prompts, where the first position is a large part of what can be seen.
    Source: Gu et al. 2024, arXiv 2410.10781.
    """
    return score(model, prompts, "attention_sink", source=SOURCE)

"""Name-mover heads: at the end of an indirect-object sentence, attend to the name that has to
follow.
"""

from __future__ import annotations

import xarray as xr

from nnheads.spans.measure import score

STIMULUS = "ioi"
HEADLINE = "mass"
BESIDE = ("subject",)
SOURCE = "Wang et al. 2022, arXiv 2211.00593"


def name_mover(model, prompts: xr.Dataset) -> xr.Dataset:
    """Attention from END to the indirect object.

    Such heads copy the name that they look at to the output. Negative name movers look there too
    and write against it; backup name movers only act once others are gone: attention does not tell
    them apart, the effect does (`nnheads ioi`).

    Args:
        prompts: indirect-object sentences with spans (`prompts.ioi.ioi_spans`).

    Returns:
        float32 (batch, layer, head), all in [0, 1]: `mass` (headline), `hit`, `above`, `uniform`;
        `null` (random tokens of the sentence), `subject` (mass on S2). Coordinate `accuracy`
        (batch): is the answer the best token?

    Misleads: the reference model has a head with this pattern that does nothing at all.
    Source: Wang et al. 2022, arXiv 2211.00593.
    """
    return score(model, prompts, "name_mover", source=SOURCE, beside=BESIDE)

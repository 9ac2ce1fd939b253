"""Find positions with massive activations, which no average over positions should count.

    prompts = without_massive(model, prompts)    # `massive` (batch, position), 1 for such positions

Where nothing stands before a text, most models make the residual stream of its first token many
times as long as all others: attention rests there, and the token itself no longer shows. A mean
over positions is then that position's. Positions that are marked so are left out by every `At`
that may mean several (ALL, PROMPT, a span, ...), and kept where one is named.
Source: Sun et al. 2024, arXiv 2402.17762 (what such activations are; the limit is ours).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float

from nnheads.interventions.operations import FromSource
from nnheads.interventions.positions import At, positions_of
from nnheads.interventions.schema import Intervention
from nnheads.models.inputs import inputs
from nnheads.trace.stream_norms import stream_norms

# Times the median norm of a layer. SmolLM2 on 24 passages of a novel: first tokens 151 to 205, one
# other token 165, the rest at most 12.3.
RATIO = 25.0
SOURCE = "Sun et al. 2024, arXiv 2402.17762"


def without_massive(model: Any, prompts: xr.Dataset, *, batch_size: int = 16) -> xr.Dataset:
    """Return prompts in which positions with massive activations are marked.

    Args:
        prompts: token and mask (batch, position).
        batch_size: prompts a forward.

    Returns:
        The prompts with `massive` (batch, position): 1 where the residual stream after some layer
        is more than RATIO times as long as the median of all later positions there.

    Source: Sun et al. 2024, arXiv 2402.17762.
    """
    real = prompts["mask"].values.astype(bool)
    found = is_massive(norms_of(model, prompts, batch_size), real)
    about = {"long_name": "1 where an activation is massive", "units": "1", "source": SOURCE}
    return prompts.assign(massive=(("batch", "position"), found.astype("int8"), about))


class MassiveSource(UserWarning):
    """A source is read at a position that says little of its token."""


class MassivePrompt(UserWarning):
    """A prompt is nothing but a position that says little of its token."""


def warn_of_prompts(model: Any, prompts: xr.Dataset, others: xr.Dataset) -> None:
    """Warn of prompts of a single token whose activation is massive.

    The norm is compared with the median over other texts. Costs a forward, and only then.
    """
    single = prompts["mask"].values.sum(1) == 1
    if not single.any():
        return
    short = prompts.isel(batch=single)
    usual = median_norms(norms_of(model, others), others["mask"].values.astype(bool))
    found = is_massive(norms_of(model, short), short["mask"].values.astype(bool), usual).any(1)
    if found.any():
        text = model.tokenizer.decode(short["token"].values[found][0][-1:].tolist())
        warnings.warn(
            f"prompt {text!r} is nothing but a first token, whose activation is massive: it says"
            " little of the token, and what is written from it little of steering; put a"
            " beginning-of-sequence token or more words before it",
            MassivePrompt,
            stacklevel=3,
        )


def warn_of_sources(
    model: Any, intervention: Intervention, prompts: xr.Dataset, sources: Sequence[xr.Dataset]
) -> None:
    """Warn where an edit reads a source's first token, and its activation is massive.

    The norm is compared with the median over the prompts. Costs a forward, and only then.
    """
    starts = {
        edit.do.source
        for edit in intervention.edits
        if isinstance(edit.do, FromSource)
        and edit.site.startswith("resid")
        and _reads_starts(edit.do.source_at or edit.at, sources[edit.do.source])
    }
    if not starts:
        return
    usual = median_norms(norms_of(model, prompts), prompts["mask"].values.astype(bool))
    for number in sorted(starts):
        source = sources[number]
        real = source["mask"].values.astype(bool)
        found = is_massive(norms_of(model, source), real, usual)
        if found[np.arange(len(found)), real.argmax(1)].any():
            warnings.warn(
                f"source {number} is read at its first token, whose activation is massive: it"
                " says little of the token; put a beginning-of-sequence token before it",
                MassiveSource,
                stacklevel=3,
            )


def _reads_starts(at: At, source: xr.Dataset) -> bool:
    """Return whether positions in a source are the first of their text."""
    chosen = positions_of(at, source).numpy()
    first = source["mask"].values.argmax(1)
    return bool((chosen == first[:, None]).any())


def norms_of(
    model: Any, prompts: xr.Dataset, batch_size: int = 16
) -> Float[np.ndarray, "layer row position"]:
    """Return the norm of the residual stream after every layer, in batches."""
    parts = []
    for first in range(0, prompts.sizes["batch"], batch_size):
        part = prompts.isel(batch=slice(first, first + batch_size))
        parts.append(stream_norms(model, inputs(model, part)))
    return torch.cat(parts, 1).numpy()


def is_massive(
    norms: Float[np.ndarray, "layer row position"],
    real: Bool[np.ndarray, "row position"],
    usual: Float[np.ndarray, " layer"] | None = None,
) -> Bool[np.ndarray, "row position"]:
    """Return which real positions are longer than RATIO times the usual norm of some layer.

    usual: the median norm of each layer; default: that of these positions.
    """
    usual = median_norms(norms, real) if usual is None else usual
    longer: Bool[np.ndarray, "row position"] = (norms > RATIO * usual[:, None, None]).any(0) & real
    return longer


def median_norms(
    norms: Float[np.ndarray, "layer row position"], real: Bool[np.ndarray, "row position"]
) -> Float[np.ndarray, " layer"]:
    """Return the median over real positions but each text's first, by layer.

    First tokens are the usual suspects, and in short texts they are most of all positions.
    """
    later = real & (real.cumsum(1) > 1)
    return np.median(norms[:, later if later.any() else real], axis=1)

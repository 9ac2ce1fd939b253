"""Run an intervention: the base with and without its edits, and what it collects.

result = run(model, intervention, base, [source])
result.original, result.edited, result.collected
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float
from nnsight import save

from nnheads.errors import BadInput
from nnheads.interventions.forwards import features_of_sources, forward
from nnheads.interventions.model_checks import check_model, check_sources
from nnheads.interventions.prepare import prepared
from nnheads.interventions.schema import Intervention
from nnheads.models.geometry import model_spec
from nnheads.trace.session import remote_of


@dataclass(frozen=True)
class Result:
    """What a run gave.

    Args:
        original: logits [row, position, vocabulary] without the edits; None if not asked for.
        edited: logits with the edits; None if not asked for.
        collected: key -> features [row, chosen position, feature].
    """

    original: Float[torch.Tensor, "row position vocabulary"] | None
    edited: Float[torch.Tensor, "row position vocabulary"] | None
    collected: dict[str, Float[torch.Tensor, "row chosen feature"]]


def run(
    model: Any,
    intervention: Intervention,
    base: xr.Dataset,
    sources: Sequence[xr.Dataset] = (),
    *,
    original: bool = True,
    logits: bool = True,
    keep: int = 0,
) -> Result:
    """Run prompts with an intervention in place.

    Args:
        base: prompts, token and mask (batch, position); roles are read from `role_*` coordinates,
            and how many tokens are the prompt from `prompt_length` (batch), if it is there.
        sources: prompts of the source runs, row by row with the base.
        original: also run the base as it is.
        logits: False if only what is collected is wanted.
        keep: only the last so many positions' logits; 0 keeps all.

    Returns:
        Logits with and without the edits, and what was collected.

    Raises:
        BadInput: what the model or the prompts do not have.

    Example:
        >>> from nnheads.interventions import Edit, Intervention, Zero, run
        >>> model = nnheads.load("reference")
        >>> prompts = nnheads.ioi(model.tokenizer, 2)
        >>> silent = Intervention(Edit("z", Zero(), layer=1, units=(2,)))
        >>> result = run(model, silent, prompts, keep=1)
        >>> result.edited.shape == result.original.shape
        True
        >>> bool((result.edited == result.original).all())
        False
    """
    _check_language_model(model)
    for prompts in (base, *sources):
        check_prompts(prompts)
    check_model(model, intervention, model_spec(model))
    check_sources(intervention.sources, len(sources))
    ready = prepared(model, intervention, base, sources)
    spec, inputs, edits, tensors = ready.spec, ready.inputs, ready.edits, ready.tensors
    source_runs = ready.sources
    with model.session(remote=remote_of(model)):
        known = features_of_sources(model, source_runs, spec, tensors)
        plain = forward(model, inputs, [], {}, spec, {}, keep) if original else (None, {})
        changed = forward(model, inputs, edits, known, spec, tensors, keep)
        collected = save(changed[1])
        before = save(plain[0] if logits else None)
        after = save(changed[0] if logits else None)
    return Result(before, after, collected)


def check_prompts(prompts: Any) -> None:
    """Refuse prompts that are no labelled dataset."""
    if not isinstance(prompts, xr.Dataset) or not {"token", "mask"} <= set(prompts):
        kind = type(prompts).__name__
        raise BadInput(
            f"prompts are a {kind}; expected token and mask (batch, position), as"
            " interventions.texts.read_texts makes them of texts"
        )


def _check_language_model(model: Any) -> None:
    if not hasattr(model, "tokenizer"):
        raise BadInput(
            "run takes a language model from nnheads.load; for any other module use"
            " interventions.as_module"
        )

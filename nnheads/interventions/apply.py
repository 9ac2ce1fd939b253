"""Run an intervention: the base run with and without its edits, and what it collects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from nnsight import save

from nnheads.errors import BadInput
from nnheads.interventions import prepare as plan
from nnheads.interventions.schema import Edit, FromSource, Intervention
from nnheads.models.geometry import model_spec
from nnheads.models.inputs import inputs
from nnheads.trace.edits import apply_edits, chosen, gathered, read
from nnheads.trace.session import remote_of


@dataclass(frozen=True)
class Result:
    """Logits [row, position, vocabulary] without and with the edits, and what was collected: key ->
    [row, place, feature]."""

    original: torch.Tensor | None
    edited: torch.Tensor | None
    collected: dict[str, torch.Tensor]


def run(
    model,
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
        original: also run the base as it is. logits: False if only what is collected is wanted.
        keep: only the last so many positions' logits; 0 keeps all.

    Raises:
        BadInput: what the model or the prompts do not have.
    """
    if not hasattr(model, "tokenizer"):
        raise BadInput(
            "run takes a language model from nnheads.load; for any other module use"
            " interventions.as_module"
        )
    shape = model_spec(model)
    plan.check_model(model, intervention, shape)
    if len(sources) != intervention.sources:
        raise BadInput(
            f"this intervention takes {intervention.sources} sources, got {len(sources)}"
        )
    order = plan.ordered(model, intervention)
    fed, given = inputs(model, base), [inputs(model, source) for source in sources]
    edits = [
        {
            **plan.plain(intervention.edits[i], i),
            "where": places(intervention.edits[i].at, base),
            "turn": turn,
        }
        for turn, i in enumerate(order)
    ]
    taken = [
        source_edits(intervention, order, number, base, source)
        for number, source in enumerate(sources)
    ]
    tensors = {**intervention.tensors, **plan.functions(intervention)}
    serial = intervention.mode == "serial"
    with model.session(remote=remote_of(model)):
        known: dict = {}
        for number in range(len(given)):
            before = (
                [edit for edit in edits if edit["do"].get("source", -1) == number - 1]
                if serial and number
                else []
            )
            known.update(
                features_of(model, given[number], taken[number], before, known, shape, tensors)
            )
        plain = forward(model, fed, [], {}, shape, {}, keep) if original else (None, {})
        last = [
            edit
            for edit in edits
            if not serial or edit["do"].get("source", len(given) - 1) == len(given) - 1
        ]
        changed = forward(model, fed, last, known, shape, tensors, keep)
        collected = save(changed[1])
        before_logits, after_logits = (
            save(plain[0] if logits else None),
            save(changed[0] if logits else None),
        )
    return Result(before_logits, after_logits, collected)


def forward(
    model, fed: dict, edits: list[dict], known: dict, shape: dict, tensors: dict, keep: int
):
    """One forward with edits; logits and what was collected."""
    rows, length = fed["input_ids"].shape
    with model.trace(**fed, use_cache=False, logits_to_keep=keep):
        collected = apply_edits(model, edits, shape, rows, length, known, tensors)
        logits = model.output.logits
    return logits, collected


def features_of(
    model, fed: dict, reads: list[dict], edits: list[dict], known: dict, shape: dict, tensors: dict
) -> dict:
    """What the edits of one source take from its run: number of the edit -> features [row, place,
    feature]. In serial mode the edits of the source before it are in place."""
    rows, length = fed["input_ids"].shape
    with model.trace(**fed, use_cache=False, logits_to_keep=1):
        found = {}
        for step in sorted([*reads, *edits], key=lambda one: (one["turn"], "reads" in one)):
            if "reads" in step:
                found[step["number"]] = gathered(
                    chosen(read(model, step, shape, rows, length), step), step["where"]
                ).clone()
            else:
                apply_edits(model, [step], shape, rows, length, known, tensors)
    return found


def source_edits(
    intervention: Intervention, order: list[int], number: int, base, source
) -> list[dict]:
    """What to read from a source's run, in order."""
    reads = []
    for turn, i in enumerate(order):
        edit = intervention.edits[i]
        if isinstance(edit.do, FromSource) and edit.do.source == number:
            at = edit.do.source_at or edit.at
            where, target = places(at, source), places(edit.at, base)
            check_places(edit, where, target)
            reads.append({**plan.plain(edit, i), "where": where, "turn": turn, "reads": True})
    return reads


def check_places(edit: Edit, where: torch.Tensor, target: torch.Tensor) -> None:
    """Refuse a source whose places do not match those of the base one to one."""
    if where.shape[0] != target.shape[0]:
        raise BadInput(
            f"a source has {where.shape[0]} prompts and the base {target.shape[0]}; they go row"
            " by row"
        )
    counts = (where >= 0).sum(1), (target >= 0).sum(1)
    if not torch.equal(*counts):
        row = int((counts[0] != counts[1]).nonzero()[0])
        raise BadInput(
            f"{edit.site} takes {int(counts[0][row])} positions of the source for"
            f" {int(counts[1][row])} of the base in prompt {row}; name positions that match one"
            " to one"
        )


def places(at, prompts: xr.Dataset) -> torch.Tensor:
    """Positions [row, place] of `at` in labelled prompts."""
    roles = {
        str(name).removeprefix("role_"): prompts[name].values
        for name in prompts.coords
        if str(name).startswith("role_")
    }
    asked = prompts["prompt_length"].values if "prompt_length" in prompts.coords else None
    return plan.positions(at, np.asarray(prompts["mask"].values), roles, asked)

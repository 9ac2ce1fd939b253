"""An intervention made ready for a model and prompts: plain data, in the order of execution.

    ready = prepared(model, intervention, base, sources)

A session gets nothing else: it may run on a server that has torch and nnsight alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
import xarray as xr
from jaxtyping import Int

from nnheads.errors import BadInput
from nnheads.interventions.functions import function_name, functions_of
from nnheads.interventions.operations import Combine, FromSource, Function
from nnheads.interventions.ordering import ordered
from nnheads.interventions.positions import At, positions_of, steps_of
from nnheads.interventions.schema import Edit, Intervention
from nnheads.models.geometry import model_spec
from nnheads.models.inputs import inputs
from nnheads.trace.plain import ModelSpec


class SourceRun(TypedDict):
    """One source's run: its inputs, what is read from it, and the edits in place meanwhile."""

    inputs: dict[str, torch.Tensor]
    reads: list[dict]
    edits: list[dict]


@dataclass(frozen=True)
class Prepared:
    """All that the runs of an intervention need, as plain data.

    Args:
        spec: of the model, see `models.geometry`.
        inputs: of the base.
        edits: of the base, in the order of execution.
        sources: the source runs, in order.
        tensors: those of the intervention and the user's own functions, by name.
    """

    spec: ModelSpec
    inputs: dict[str, torch.Tensor]
    edits: list[dict]
    sources: list[SourceRun]
    tensors: dict[str, Any]


def prepared(
    model: Any,
    intervention: Intervention,
    base: xr.Dataset,
    sources: Sequence[xr.Dataset],
    new_tokens: int = 0,
) -> Prepared:
    """Return an intervention as data for these prompts.

    Args:
        base: token and mask (batch, position). sources: the same, row by row.
        new_tokens: how many are written behind the base.

    Raises:
        BadInput: positions of a source that do not match those of the base.
    """

    def positions(at: At) -> Int[torch.Tensor, "row chosen"]:
        return positions_of(at, base)

    base_inputs, edits = inputs(model, base), edits_at(model, intervention, positions)
    for edit in edits:
        at = intervention.edits[edit["number"]].at
        edit["steps"] = steps_of(at, new_tokens) if new_tokens else []
    runs = [
        SourceRun(
            inputs=inputs(model, source),
            reads=_reads(intervention, edits, number, source),
            edits=_in_place_before(intervention, edits, number),
        )
        for number, source in enumerate(sources)
    ]
    last = _in_place_last(intervention, edits)
    return Prepared(model_spec(model), base_inputs, last, runs, tensors_of(intervention))


def tensors_of(intervention: Intervention) -> dict[str, Any]:
    """Return the tensors of an intervention and the user's own functions, by name."""
    return {**intervention.tensors, **functions_of(intervention.edits)}


def edits_at(
    model: Any,
    intervention: Intervention,
    positions: Callable[[At], Int[torch.Tensor, "row chosen"]],
) -> list[dict]:
    """Return edits as data, in the order of execution.

    Args:
        positions: from `at` of an edit to what it means in the prompts.
    """
    edits = intervention.edits
    return [
        {**as_data(edits[number], number), "where": positions(edits[number].at), "rank": rank}
        for rank, number in enumerate(ordered(model, intervention))
    ]


def as_data(edit: Edit, number: int) -> dict:
    """Return an edit as data that travels."""
    do = {entry.name: getattr(edit.do, entry.name) for entry in dataclasses.fields(edit.do)}
    do.pop("source_at", None)
    if isinstance(edit.do, (Function, Combine)):
        do["function"] = function_name(number)
    return {
        "number": number,
        "site": edit.site,
        "layer": edit.layer,
        "path": edit.path,
        "units": edit.units,
        "neurons": edit.neurons,
        "do": {"name": edit.do.name, **do},
    }


def _in_place_before(intervention: Intervention, edits: list[dict], number: int) -> list[dict]:
    """Return the edits in place while a source runs: those of the source before it, if serial."""
    if intervention.mode != "serial" or number == 0:
        return []
    return [edit for edit in edits if edit["do"].get("source", -1) == number - 1]


def _in_place_last(intervention: Intervention, edits: list[dict]) -> list[dict]:
    """Return the edits in place while the base runs: those without a source and of the last one."""
    if intervention.mode != "serial":
        return edits
    last = intervention.sources - 1
    return [edit for edit in edits if edit["do"].get("source", last) == last]


def _reads(
    intervention: Intervention, edits: list[dict], number: int, source: xr.Dataset
) -> list[dict]:
    """Return what to read from a source's run, in the order of execution."""
    reads = []
    for data in edits:
        edit = intervention.edits[data["number"]]
        if isinstance(edit.do, FromSource) and edit.do.source == number:
            where = positions_of(edit.do.source_at or edit.at, source)
            _check_read(edit, where, data)
            reads.append({**data, "where": where, "reads": True})
    return reads


def _check_read(edit: Edit, where: Int[torch.Tensor, "row chosen"], data: dict) -> None:
    """Refuse positions of a source that do not go with the edit's positions and steps."""
    if bool((data["where"] >= 0).any()) or not data["steps"]:
        check_positions(edit, where, data["where"])
    if data["steps"]:
        _check_steps(edit, where, len(data["where"]), len(data["steps"]))


def check_positions(
    edit: Edit,
    where: Int[torch.Tensor, "_source_row _read"],
    target: Int[torch.Tensor, "row chosen"],
) -> None:
    """Refuse a source whose positions do not match those of the base one to one.

    Args:
        where: positions in the source. target: positions in the base.
    """
    _check_rows(len(where), len(target))
    read, written = (where >= 0).sum(1), (target >= 0).sum(1)
    if not torch.equal(read, written):
        row = int((read != written).nonzero()[0])
        raise BadInput(
            f"{edit.site} takes {int(read[row])} positions of the source for {int(written[row])} of"
            f" the base in prompt {row}; name positions that match one to one"
        )


def _check_rows(source: int, base: int) -> None:
    if source != base:
        raise BadInput(f"a source has {source} prompts and the base {base}; they go row by row")


def _check_steps(edit: Edit, where: Int[torch.Tensor, "row chosen"], rows: int, count: int) -> None:
    """Refuse sources that say too little or too much for the steps of an edit."""
    if edit.site == "pattern":
        raise BadInput(
            "an attention pattern has a key for every token before it, so a source has none for a"
            " step"
        )
    _check_rows(len(where), rows)
    counts = set((where >= 0).sum(1).tolist())
    if counts not in ({1}, {count}):
        raise BadInput(
            f"{edit.site} takes {', '.join(map(str, sorted(counts)))} positions of its source for"
            f" {count} steps; name one for all of them, or one each (source_at)"
        )

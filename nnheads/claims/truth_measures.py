"""Measures of claims about true and false answers."""

from __future__ import annotations

import xarray as xr

from nnheads.claims.setting import Setting, statements_of
from nnheads.errors import BadInput


def multiple_choice(
    model,
    setting: Setting,
    data: str = "reference",
    template: str | None = None,
    limit: int | None = None,
) -> xr.Dataset:
    """Return `mc1`, `mc2`, `mc3` of the model as it is."""
    from nnheads.interventions.schema import Intervention
    from nnheads.truth.multiple_choice import score

    prompts = statements_of(model, data, template, limit)
    batch_size = 4 * setting.batch_size
    scores = score(model, Intervention(), prompts, batch_size=batch_size, quiet=setting.quiet)
    return scores.mean("question")


def late_edit(
    model,
    setting: Setting,
    data: str = "reference",
    template: str | None = None,
    limit: int = 8,
    at: str = "last",
) -> xr.Dataset:
    """Return `moved`: the largest change of an answer's log probability by an edit.

    The edit adds to all head outputs of the middle layer, at the last position ("last") or
    everywhere ("all").
    """
    from nnheads.interventions.operations import Add
    from nnheads.interventions.positions import ALL, index
    from nnheads.interventions.schema import Edit, Intervention
    from nnheads.models.geometry import geometry
    from nnheads.truth.answer_likelihood import read

    positions = {"last": index(-1), "all": ALL}
    if at not in positions:
        raise BadInput(f"at {at!r} is not known; use last or all")
    prompts = statements_of(model, data, template, limit)
    middle = geometry(model).layers // 2
    edit = Intervention(Edit("z", Add(1.0), layer=middle, at=positions[at]))
    plain, edited = (read(model, one, prompts)["log_probability"] for one in (Intervention(), edit))
    return xr.Dataset({"moved": abs(edited - plain).max()})

"""The order in which a forward reaches the sites of edits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from nnheads.errors import BadInput, first_line
from nnheads.interventions.schema import Edit, Intervention
from nnheads.models.families import family
from nnheads.trace.sites import SITES

# rows stand in the order in which a block reaches them; a module by path comes where it is called
ORDER = tuple(SITES)
KERNEL = tuple(name for name, row in SITES.items() if row["part"] == "kernel")
Event = tuple[int, str]  # id of a module, and "input" or "output"


def ordered(model: Any, intervention: Intervention) -> list[int]:
    """Return the numbers of the edits in the order in which a forward reaches their sites.

    Raises:
        BadInput: a module that no forward calls.
    """
    edits = intervention.edits
    if all(edit.path is None for edit in edits):
        return sorted(range(len(edits)), key=lambda i: (edits[i].layer, _rank(edits[i]), i))
    times = reached(model, edits)
    return sorted(range(len(edits)), key=lambda i: (times[i], _rank(edits[i]), i))


def _rank(edit: Edit) -> int:
    return 0 if edit.path is not None else ORDER.index(edit.site)


def reached(model: Any, edits: tuple[Edit, ...]) -> list[float]:
    """Return when each edit's site is reached, measured on one token.

    Modules are not registered in the order in which they run. Queries, keys, values and patterns
    come just before z.
    """
    modules = [anchor(model, edit) for edit in edits]
    wanted = [(id(module), end) for module, end in modules]
    events: list[Event] = []
    with _recording([module for module, _ in modules], events):
        _run_one_token(model)
    idle = [edit for edit, event in zip(edits, wanted) if event not in events]
    if idle:
        raise BadInput(
            f"module {idle[0].path!r} is not called when this model runs; name one that is"
        )
    times = [events.index(event) for event in wanted]
    return [time - 0.5 if edit.site in KERNEL else time for edit, time in zip(edits, times)]


@contextlib.contextmanager
def _recording(modules: list[torch.nn.Module], events: list[Event]) -> Iterator[None]:
    """Write down when the modules' inputs and outputs are reached."""

    def enters(module: torch.nn.Module, _: Any) -> None:
        events.append((id(module), "input"))

    def leaves(module: torch.nn.Module, *_: Any) -> None:
        events.append((id(module), "output"))

    with contextlib.ExitStack() as stack:
        for module in {id(module): module for module in modules}.values():
            stack.callback(module.register_forward_pre_hook(enters).remove)
            stack.callback(module.register_forward_hook(leaves).remove)
        yield


def _run_one_token(model: Any) -> None:
    try:
        with torch.no_grad():
            model._module(**one_token(model), use_cache=False)
    except RuntimeError as error:  # some experts do not compute shapes alone
        raise BadInput(
            "when the modules by path are reached cannot be measured on this model"
            f" ({first_line(error)}); load it with its weights, or name sites and layers"
        ) from None


def one_token(model: Any) -> dict[str, torch.Tensor]:
    """Return the inputs of the shortest forward.

    A model without weights cannot read a mask, so it gets one that it takes as it is.
    """
    device = next(model._module.parameters()).device
    ids = torch.zeros(1, 1, dtype=torch.long, device=device)
    if device.type != "meta" or not family(model).position_ids:
        return {"input_ids": ids}
    mask = torch.zeros(1, 1, 1, 1, device=device)
    return {"input_ids": ids, "position_ids": ids, "attention_mask": mask}


def anchor(model: Any, edit: Edit) -> tuple[torch.nn.Module, str]:
    """Return the module whose input or output an edit's site is, or comes just before."""
    if edit.path is not None:
        return model._module.get_submodule(edit.path), edit.site
    return site_module(model.layers[edit.layer]._module, family(model), edit.site)


def site_module(block: torch.nn.Module, row: Any, site: str) -> tuple[torch.nn.Module, str]:
    """Return the module behind a site of a block, and whether the site is its input or output.

    Args:
        row: the family's row of paths.
    """
    part, end = SITES[site]["part"], SITES[site]["end"]
    paths = {
        "block": "",
        "attention": row.attention,
        "kernel": row.projection,
        "projection": row.projection,
        "attention_adds": row.attention_adds or row.attention,
        "mlp_reads": row.mlp_reads or row.mlp,
        "neurons": row.neurons,
        "mlp_adds": row.mlp_adds or row.mlp,
    }
    return block.get_submodule(paths[part]), end or "input"

"""Plain hooks on the module behind a site: they see its value, and may put another there.

Hooks reach any module by its path, and the named sites of the language models that nnheads knows,
except those inside the attention kernel (q, k, v, pattern).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch.utils.hooks import RemovableHandle

from nnheads.errors import BadInput
from nnheads.interventions.calls import Call
from nnheads.interventions.model_checks import check_model, check_path
from nnheads.interventions.ordering import KERNEL, site_module
from nnheads.interventions.schema import Edit, Intervention
from nnheads.models.families import family_of
from nnheads.models.geometry import model_spec
from nnheads.trace.blocks import packed, split_heads
from nnheads.trace.edits import shaped, unshaped

View: TypeAlias = Float[torch.Tensor, "row unit position width"]
Act: TypeAlias = Callable[[torch.Tensor], torch.Tensor | None]


def hook(
    stack: contextlib.ExitStack, module: torch.nn.Module, edit: Edit, call: Call, act: Act
) -> None:
    """Let `act` see an edit's site, and put there what it returns, if it returns something.

    Args:
        stack: removes the hook when it closes.
        act: from the site's value [row, unit, position, width] to a new one, or None.
    """
    target, end = _target(module, edit)

    def changed(value: Any) -> Any:
        _check_tensor(value, f"the {end} of {edit.path or edit.site}")
        new = act(_view(module, edit, call, value))
        return value if new is None else _back(edit, call, new, value)

    stack.callback(_register(target, end, changed).remove)


def _target(module: torch.nn.Module, edit: Edit) -> tuple[torch.nn.Module, str]:
    """Return the module that an edit's site belongs to, and which of its ends it is."""
    if edit.path is not None:
        return module.get_submodule(edit.path), edit.site
    row = family_of(_config(module))
    blocks: Any = module.get_submodule(row.layers)
    return site_module(blocks[edit.layer], row, edit.site)


def _config(module: torch.nn.Module) -> Any:
    return module.config


def _check_tensor(value: Any, what: str) -> None:
    if not isinstance(value, torch.Tensor):
        got = f"a {type(value).__name__}"
    elif not 2 <= value.dim() <= 4:
        got = f"{value.dim()} dimensions"
    else:
        return
    raise BadInput(f"{what} is {got}; expected a tensor of 2 to 4 dimensions")


def _view(module: torch.nn.Module, edit: Edit, call: Call, value: torch.Tensor) -> View:
    """Return a module's value as a site's."""
    if edit.path is not None:
        return shaped(value, call.length)
    if edit.site == "z":
        view = split_heads(value, _config(module).num_attention_heads)
    else:
        view = value.reshape(call.first.shape[0], -1, value.shape[-1]).unsqueeze(2)
    return view.transpose(1, 2)


def _back(edit: Edit, call: Call, new: View, value: torch.Tensor) -> torch.Tensor:
    """Return a site's new value in the shape of the module's own."""
    if edit.path is not None:
        return unshaped(new, value, call.length)
    return new.transpose(1, 2).reshape(value.shape)


def _register(target: torch.nn.Module, end: str, changed: Callable[[Any], Any]) -> RemovableHandle:
    """Let a module's first input, or its first output, pass through `changed`."""

    def before(_: torch.nn.Module, inputs: tuple, options: dict) -> tuple[tuple, dict]:
        if inputs:
            return (changed(inputs[0]), *inputs[1:]), options
        name = next(iter(options))
        return inputs, {**options, name: changed(options[name])}

    def after(_: torch.nn.Module, inputs: tuple, output: Any) -> Any:
        return packed(changed(output[0] if isinstance(output, tuple) else output), output)

    if end == "input":
        return target.register_forward_pre_hook(before, with_kwargs=True)
    return target.register_forward_hook(after)


def check_reachable(module: torch.nn.Module, intervention: Intervention) -> None:
    """Refuse what hooks cannot reach and what the module does not have."""
    for edit in intervention.edits:
        _check_reach(edit)
        if edit.path is not None:
            check_path(module, edit.path)
        elif not hasattr(module, "config"):
            raise BadInput(
                f"site {edit.site} is one of language models; name a part of this module by its"
                " path"
            )
    if any(edit.path is None for edit in intervention.edits):
        model = _named(module)
        check_model(model, intervention, model_spec(model))


def _check_reach(edit: Edit) -> None:
    if edit.site in KERNEL:
        raise BadInput(
            f"{edit.site} is inside the attention kernel, where hooks do not reach; use"
            " interventions.run"
        )
    if edit.at.kind in ("decode", "steps"):
        raise BadInput(
            f"position {edit.at.kind!r} means tokens that are written; use interventions.generate"
        )


def _named(module: Any) -> Any:
    """Return a plain language model under the names that nnheads' own functions ask for."""
    row = family_of(module.config)
    blocks = [_named_block(block, row) for block in module.get_submodule(row.layers)]
    return SimpleNamespace(config=module.config, _module=module, layers=blocks)


def _named_block(block: torch.nn.Module, row: Any) -> SimpleNamespace:
    projection = SimpleNamespace(_module=block.get_submodule(row.projection))
    return SimpleNamespace(_module=block, attention=SimpleNamespace(projection=projection))

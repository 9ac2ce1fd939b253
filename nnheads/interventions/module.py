"""A model with an intervention in it, as a torch.nn.Module: plain hooks, no tracing.

It composes in bigger modules, trains, moves between devices, copies and pickles. It takes any
module by the paths of its parts, and the named sites of the language models that nnheads knows,
except those inside the attention kernel (q, k, v, pattern), which only a trace can reach: `run` has
them.
Both do the same sums: the choice of features and the operations are those of `apply.py` and
    `operations.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from nnheads.errors import BadInput
from nnheads.interventions import prepare as plan
from nnheads.interventions.apply import check_places
from nnheads.interventions.schema import (
    Boundless,
    Collect,
    Edit,
    FromSource,
    Intervention,
    Mask,
    Rotate,
)
from nnheads.models.families import FAMILIES, family_of
from nnheads.models.geometry import model_spec
from nnheads.trace.blocks import packed, split_heads
from nnheads.trace.edits import (
    chosen,
    gathered,
    mean_over,
    replaced,
    scattered,
    shaped,
    unshaped,
)
from nnheads.trace.operations import change

KERNEL = ("q", "k", "v", "pattern")


def as_module(model, intervention: Intervention) -> Intervened:
    """A model with an intervention in it.

    Args:
        model: any torch.nn.Module, or a model from `nnheads.load`. It is not copied.

    Raises:
        BadInput: sites that hooks do not reach, and what the model does not have.
    """
    return Intervened(getattr(model, "_module", model), intervention)


class Intervened(torch.nn.Module):
    """See `as_module`. What is learned (rotations, boundaries, masks, and tensors that require
    gradients) are its parameters, once each however many edits share it; the other tensors are
    buffers."""

    def __init__(self, module: torch.nn.Module, intervention: Intervention):
        super().__init__()
        check(module, intervention)
        self.module = module
        self.edits, self.mode = intervention.edits, intervention.mode
        self.names = list(intervention.tensors)
        learned = {
            name
            for edit in self.edits
            if isinstance(edit.do, (Rotate, Boundless, Mask))
            for name in edit.do.tensors
        }
        for number, (name, tensor) in enumerate(intervention.tensors.items()):
            if isinstance(tensor, torch.nn.Parameter):
                self.register_parameter(f"tensor_{number}", tensor)
            elif tensor.is_floating_point() and (tensor.requires_grad or name in learned):
                self.register_parameter(
                    f"tensor_{number}", torch.nn.Parameter(tensor.detach().clone())
                )
            else:
                self.register_buffer(f"tensor_{number}", tensor.detach().clone())

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors by the names that the intervention gave them."""
        return {name: getattr(self, f"tensor_{number}") for number, name in enumerate(self.names)}

    @property
    def intervention(self) -> Intervention:
        """The intervention with the tensors as they are now, to be saved."""
        now = {name: tensor.detach().clone() for name, tensor in self.tensors.items()}
        return Intervention(*self.edits, tensors=now, mode=self.mode)

    def forward(
        self,
        *inputs,
        sources: Sequence[Any] = (),
        roles: Mapping[str, Any] | None = None,
        prompt_length: Any = None,
        collected: dict | None = None,
        **options,
    ):
        """Run the module with the intervention in place.

        Args:
            inputs, options: the module's own. An `attention_mask` [row, position] says where each
                row begins.
            sources: inputs of the source runs: a tensor, a tuple of inputs, or a dict of keywords,
                which may hold `roles` and `prompt_length` of its own.
            roles: name -> position [row] in the padded rows. prompt_length: tokens of each row that
                are the prompt.
            collected: filled with key -> [row, place, feature].

        Returns:
            What the module itself returns.

        Raises:
            BadInput: too few sources or too many, and positions that do not match.
        """
        wanted = len({edit.do.source for edit in self.edits if isinstance(edit.do, FromSource)})
        if len(sources) != wanted:
            raise BadInput(f"this intervention takes {wanted} sources, got {len(sources)}")
        known: dict[int, tuple] = {}
        for number, source in enumerate(sources):
            before = self.of_source(number - 1) if self.mode == "serial" and number else []
            call = Call.of(source)
            found: dict[int, tuple] = {}
            with self.hooks(call, before, known, None), self.reads(call, number, found):
                self.module(*call.inputs, **call.options)
            known.update(found)
        last = (
            list(range(len(self.edits)))
            if self.mode == "parallel"
            else self.of_source(wanted - 1, others=True)
        )
        call = Call(inputs, options, roles or {}, prompt_length)
        with self.hooks(call, last, known, collected):
            return self.module(*inputs, **options)

    def of_source(self, number: int, others: bool = False) -> list[int]:
        """Numbers of the edits that take from this source, and (`others`) of those that take from
        none.
        """
        return [
            i
            for i, edit in enumerate(self.edits)
            if getattr(edit.do, "source", number if others else -1) == number
        ]

    @contextlib.contextmanager
    def hooks(self, call: Call, numbers: list[int], known: dict, collected: dict | None):
        """Hooks that put these edits in place."""
        tensors: dict = {**self.tensors, **plan.functions(self)}

        def put(number: int, view):
            edit, data = self.edits[number], plan.plain(self.edits[number], number)
            old = chosen(view, data)
            where = call.where(edit.at, old)
            source = known.get(number)
            if source is not None:
                check_places(edit, source[1], where)
            base = gathered(old, where)
            if isinstance(edit.do, Collect):
                if collected is not None:
                    collected[edit.do.key] = mean_over(base, where) if edit.do.mean else base
                return None
            new = change(data["do"], base, None if source is None else source[0], tensors)
            return replaced(view, scattered(old, new, where), data)

        with contextlib.ExitStack() as stack:
            for number in numbers:
                hook(
                    stack,
                    self.module,
                    self.edits[number],
                    call,
                    lambda view, own=number: put(own, view),
                )
            yield

    @contextlib.contextmanager
    def reads(self, call: Call, source: int, found: dict):
        """Hooks that take what the edits need from this source."""

        def take(number: int, view):
            edit, data = self.edits[number], plan.plain(self.edits[number], number)
            features = chosen(view, data)
            where = call.where(edit.do.source_at or edit.at, features)  # type: ignore[attr-defined]
            found[number] = (gathered(features, where), where)

        with contextlib.ExitStack() as stack:
            for number in self.of_source(source):
                hook(
                    stack,
                    self.module,
                    self.edits[number],
                    call,
                    lambda view, own=number: take(own, view),
                )
            yield


class Call:
    """One call of a module: its inputs, and what positions mean in them."""

    def __init__(self, inputs: tuple, options: dict, roles: Mapping[str, Any], prompt_length):
        self.inputs, self.options = inputs, options
        self.roles = {name: np.asarray(places) for name, places in roles.items()}
        self.prompt = None if prompt_length is None else np.asarray(prompt_length)

    @classmethod
    def of(cls, source) -> Call:
        """A source as it was given."""
        if not isinstance(source, Mapping):
            return cls(source if isinstance(source, tuple) else (source,), {}, {}, None)
        options = {
            name: value for name, value in source.items() if name not in ("roles", "prompt_length")
        }
        return cls((), options, source.get("roles") or {}, source.get("prompt_length"))

    @property
    def first(self) -> torch.Tensor:
        return next(
            value
            for value in (*self.inputs, *self.options.values())
            if isinstance(value, torch.Tensor)
        )

    @property
    def length(self) -> int:
        """How many tokens are read; 0 where the input is no token ids."""
        ids = self.first
        return ids.shape[1] if ids.dim() == 2 and not ids.is_floating_point() else 0

    def where(self, at, features: torch.Tensor) -> torch.Tensor:
        """Positions [row, place] of `at` in features [row, position, feature]."""
        mask = self.options.get("attention_mask")
        if mask is None or mask.shape != features.shape[:2]:
            mask = torch.ones(features.shape[:2], dtype=torch.long)
        return plan.positions(at, mask.cpu().numpy(), self.roles, self.prompt).to(features.device)


def check(module: torch.nn.Module, intervention: Intervention) -> None:
    """Refuse what hooks cannot reach and what the module does not have."""
    for edit in intervention.edits:
        if edit.site in KERNEL:
            raise BadInput(
                f"{edit.site} is inside the attention kernel, where hooks do not reach; use"
                " interventions.run"
            )
        if edit.at.kind in ("decode", "steps"):
            raise BadInput(
                f"position {edit.at.kind!r} means tokens that are written; use"
                " interventions.generate"
            )
        if edit.path is not None:
            plan.check_path(module, edit.path)
        elif not hasattr(module, "config"):
            raise BadInput(
                f"site {edit.site} is one of language models; name a part of this module by its"
                " path"
            )
    if any(edit.path is None for edit in intervention.edits):
        model = named(module)
        plan.check_model(model, intervention, model_spec(model))


def named(module: Any) -> Any:
    """A plain language model under the names that nnheads' own functions ask for."""
    row = family_of(module.config)
    blocks = [
        SimpleNamespace(
            _module=block,
            attention=SimpleNamespace(
                projection=SimpleNamespace(_module=block.get_submodule(row.projection))
            ),
        )
        for block in module.get_submodule(row.layers)
    ]
    return SimpleNamespace(config=module.config, _module=module, layers=blocks)


def hook(stack: contextlib.ExitStack, module, edit: Edit, call: Call, act: Callable) -> None:
    """Let `act` see an edit's site [row, unit, position, width], and put there what it returns, if
    it does.
    """
    if edit.path is not None:
        target, end = module.get_submodule(edit.path), edit.site
    else:
        row = FAMILIES[module.config.model_type]
        target, end = plan.site_module(module.get_submodule(row.layers)[edit.layer], row, edit.site)
    heads = module.config.num_attention_heads if edit.site == "z" else None

    def changed(value):
        if not isinstance(value, torch.Tensor) or not 2 <= value.dim() <= 4:
            got = (
                f"{value.dim()} dimensions"
                if isinstance(value, torch.Tensor)
                else f"a {type(value).__name__}"
            )
            raise BadInput(
                f"the {end} of {edit.path or edit.site} is {got}; expected a tensor of 2 to 4"
                " dimensions"
            )
        if edit.path is not None:
            new = act(shaped(value, call.length))
            return value if new is None else unshaped(new, value, call.length)
        view = (
            split_heads(value, heads)
            if heads
            else value.reshape(call.first.shape[0], -1, value.shape[-1]).unsqueeze(2)
        )
        new = act(view.transpose(1, 2))
        return value if new is None else new.transpose(1, 2).reshape(value.shape)

    def before(_, inputs: tuple, options: dict):
        if inputs:
            return (changed(inputs[0]), *inputs[1:]), options
        name = next(iter(options))
        return inputs, {**options, name: changed(options[name])}

    def after(_, inputs: tuple, output):
        return packed(changed(output[0] if isinstance(output, tuple) else output), output)

    handle = (
        target.register_forward_pre_hook(before, with_kwargs=True)
        if end == "input"
        else target.register_forward_hook(after)
    )
    stack.callback(handle.remove)

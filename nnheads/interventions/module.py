"""A model with an intervention in it, as a torch.nn.Module: plain hooks, no tracing.

It composes in bigger modules, trains, moves between devices, copies and pickles. It takes any
module by the paths of its parts, and the named sites of the language models that nnheads knows,
except those inside the attention kernel (q, k, v, pattern), which only a trace can reach: `run` has
them. Both do the same sums, those of `trace.edits` and `trace.operations`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float

from nnheads.interventions.calls import Call
from nnheads.interventions.functions import functions_of
from nnheads.interventions.hooks import View, check_reachable, hook
from nnheads.interventions.model_checks import check_sources
from nnheads.interventions.operations import Boundless, Collect, FromSource, Mask, Rotate
from nnheads.interventions.prepare import as_data, check_positions
from nnheads.interventions.schema import Edit, Intervention
from nnheads.trace.edits import chosen, gathered, mean_over, replaced, scattered
from nnheads.trace.operations import change

Taken = dict[int, tuple[torch.Tensor, torch.Tensor]]  # edit -> features and positions in a source


def as_module(model: Any, intervention: Intervention) -> Intervened:
    """Return a model with an intervention in it.

    Args:
        model: any torch.nn.Module, or a model from `nnheads.load`. It is not copied.

    Returns:
        A module that takes what the model takes, and `sources` (see `Intervened.forward`).

    Raises:
        BadInput: sites that hooks do not reach, and what the model does not have.

    Example:
        >>> import torch
        >>> from nnheads.interventions import Edit, Intervention, Zero, as_module
        >>> layers = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
        >>> silent = Intervention(Edit("output", Zero(), path="0", neurons=(1,)))
        >>> as_module(layers, silent)(torch.ones(5, 3)).shape
        torch.Size([5, 2])
    """
    return Intervened(getattr(model, "_module", model), intervention)


class Intervened(torch.nn.Module):
    """A module with an intervention in it: see `as_module`.

    What is learned (rotations, boundaries, masks, and tensors that require gradients) are its
    parameters, once each however many edits share it; the other tensors are buffers.
    """

    def __init__(self, module: torch.nn.Module, intervention: Intervention) -> None:
        super().__init__()
        check_reachable(module, intervention)
        self.module = module
        self.edits, self.mode = intervention.edits, intervention.mode
        self.names = list(intervention.tensors)
        self.sources = intervention.sources
        learned = _learned(self.edits)
        for number, (name, tensor) in enumerate(intervention.tensors.items()):
            self._hold(f"tensor_{number}", tensor, name in learned)

    def _hold(self, name: str, tensor: torch.Tensor, learned: bool) -> None:
        """Make a tensor a parameter or a buffer."""
        if isinstance(tensor, torch.nn.Parameter):
            self.register_parameter(name, tensor)
            return
        copy = tensor.detach().clone()
        if tensor.is_floating_point() and (tensor.requires_grad or learned):
            self.register_parameter(name, torch.nn.Parameter(copy))
        else:
            self.register_buffer(name, copy)

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
        *inputs: Any,
        sources: Sequence[Any] = (),
        roles: Mapping[str, Any] | None = None,
        prompt_length: Any = None,
        collected: dict | None = None,
        **options: Any,
    ) -> Any:
        """Run the module with the intervention in place.

        Args:
            inputs, options: the module's own. An `attention_mask` [row, position] says where each
                row begins.
            sources: inputs of the source runs: a tensor, a tuple of inputs, or a dict of keywords,
                which may hold `roles` and `prompt_length` of its own.
            roles: name -> position [row] in the padded rows.
            prompt_length: tokens of each row that are the prompt.
            collected: filled with key -> [row, chosen position, feature].

        Returns:
            What the module itself returns.

        Raises:
            BadInput: too few sources or too many, and positions that do not match.
        """
        check_sources(self.sources, len(sources))
        known: Taken = {}
        for number, source in enumerate(sources):
            known.update(self._run_source(number, source, known))
        call = Call(inputs, options, roles or {}, prompt_length)
        with self.hooks(call, self._last(), known, collected):
            return self.module(*inputs, **options)

    def with_known(self, call: Call, known: Taken) -> Any:
        """Run the module with what the edits take from sources, which was read before."""
        with self.hooks(call, list(range(len(self.edits))), known, None):
            return self.module(*call.inputs, **call.options)

    def _run_source(self, number: int, source: Any, known: Taken) -> Taken:
        """Run one source; return what the edits take from it."""
        before = self.of_source(number - 1) if self.mode == "serial" and number else []
        call = Call.of(source)
        taken: Taken = {}
        with self.hooks(call, before, known, None), self.reads(call, number, taken):
            self.module(*call.inputs, **call.options)
        return taken

    def _last(self) -> list[int]:
        """Return the numbers of the edits in place while the base runs."""
        if self.mode == "parallel":
            return list(range(len(self.edits)))
        last = self.sources - 1
        return [i for i, edit in enumerate(self.edits) if getattr(edit.do, "source", last) == last]

    def of_source(self, number: int) -> list[int]:
        """Return the numbers of the edits that take from this source."""
        return [i for i, edit in enumerate(self.edits) if getattr(edit.do, "source", -1) == number]

    @contextlib.contextmanager
    def hooks(
        self, call: Call, numbers: list[int], known: Taken, collected: dict | None
    ) -> Iterator[None]:
        """Put these edits in place, as hooks.

        Args:
            known: what the edits take from sources.
            collected: filled with what edits collect; None: nothing is.
        """
        tensors = {**self.tensors, **functions_of(self.edits)}

        def put(number: int, view: View) -> View | None:
            edit, data = self.edits[number], as_data(self.edits[number], number)
            old = chosen(view, data)
            where = call.where(edit.at, old)
            base, source = gathered(old, where), self._source(number, where, known)
            if isinstance(edit.do, Collect):
                if collected is not None:
                    collected[edit.do.key] = mean_over(base, where) if edit.do.mean else base
                return None
            new = change(data["do"], base, source, tensors)
            return replaced(view, scattered(old, new, where), data)

        with self._hooked(call, numbers, put):
            yield

    def _source(
        self, number: int, where: torch.Tensor, known: Taken
    ) -> Float[torch.Tensor, "row chosen feature"] | None:
        """Return what an edit takes from its source, at positions that match those of the base."""
        if number not in known:
            return None
        features, positions = known[number]
        check_positions(self.edits[number], positions, where)
        return features

    @contextlib.contextmanager
    def reads(self, call: Call, source: int, taken: Taken) -> Iterator[None]:
        """Take what the edits need from this source, with hooks, into `taken`."""

        def take(number: int, view: View) -> None:
            do, data = self.edits[number].do, as_data(self.edits[number], number)
            assert isinstance(do, FromSource), "only these read a source"
            features = chosen(view, data)
            where = call.where(do.source_at or self.edits[number].at, features)
            taken[number] = (gathered(features, where), where)

        with self._hooked(call, self.of_source(source), take):
            yield

    @contextlib.contextmanager
    def _hooked(
        self, call: Call, numbers: list[int], act: Callable[[int, View], View | None]
    ) -> Iterator[None]:
        """Let `act` see the sites of these edits."""
        with contextlib.ExitStack() as stack:
            for number in numbers:
                edit = self.edits[number]
                hook(stack, self.module, edit, call, partial(act, number))
            yield


def _learned(edits: Sequence[Edit]) -> set[str]:
    """Return the names of the tensors that are made to be trained."""
    learning = [edit.do for edit in edits if isinstance(edit.do, (Rotate, Boundless, Mask))]
    return {name for do in learning for name in do.tensors}

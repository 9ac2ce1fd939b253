"""One forward of a plain model, written down: what each module was given, and what it gave.

    run = recorded(module, {"input_ids": ids})
    run.calls[0].owner, run.calls[0].result    # whose attention came first, and what it computed

Nothing here knows a model family. Attention is where the function of that name in the model's own
file is called, which is so in all that use transformers' attention interface.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float

EAGER = "eager_attention_forward"  # the name of that function


@dataclass(frozen=True)
class Seen:
    """The first activation that went into a module, or came out of it: when, and among others."""

    when: int
    value: torch.Tensor
    among: bool = False


@dataclass(frozen=True)
class Call:
    """A call of the attention function: by which module, with what, and what it gave."""

    when: int
    owner: str
    query: Float[torch.Tensor, "row head position width"]
    key: Float[torch.Tensor, "row kv_head key width"]
    value: Float[torch.Tensor, "row kv_head key width"]
    result: Float[torch.Tensor, "row position head width"]
    weights: Float[torch.Tensor, "row head position key"] | None


@dataclass
class Run:
    """Everything of one forward, by the names of modules; a module may run more than once."""

    inputs: dict[str, list[Seen]] = field(default_factory=dict)
    outputs: dict[str, list[Seen]] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    clock: Iterator[int] = field(default_factory=itertools.count)

    def given(self, name: str) -> torch.Tensor:
        """Return the first activation that a module was given."""
        return self.inputs[name][0].value

    def gave(self, name: str) -> torch.Tensor:
        """Return the first activation that a module gave."""
        return self.outputs[name][0].value


def recorded(module: torch.nn.Module, fed: dict[str, torch.Tensor]) -> Run:
    """Run a model that computes attention eagerly, and write it down.

    Args:
        fed: the model's inputs, as keywords.
    """
    run = Run()
    with torch.no_grad(), contextlib.ExitStack() as stack:
        for name, part in module.named_modules():
            before, after = _watching(run, name)
            stack.callback(part.register_forward_pre_hook(before, with_kwargs=True).remove)
            stack.callback(part.register_forward_hook(after).remove)
        stack.enter_context(_listening(module, run))
        module(**fed, use_cache=False)
    return run


def _watching(run: Run, name: str) -> tuple[Callable[..., None], Callable[..., None]]:
    """Return hooks that write down what a module is given and gives."""

    def before(_: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        _note(run, run.inputs, name, (*arguments, *keywords.values()))

    def after(_: Any, arguments: tuple[Any, ...], output: Any) -> None:
        _note(run, run.outputs, name, output)

    return before, after


def _note(run: Run, seen: dict[str, list[Seen]], name: str, values: Any) -> None:
    among = isinstance(values, (tuple, list))
    for value in values if among else (values,):
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            seen.setdefault(name, []).append(Seen(next(run.clock), value.clone(), among))
            return


@contextlib.contextmanager
def _listening(module: torch.nn.Module, run: Run) -> Iterator[None]:
    """Write down calls of the attention functions in the files that the modules are from."""
    names = {id(part): name for name, part in module.named_modules()}
    files = {sys.modules[type(part).__module__] for part in module.modules()}
    functions = {file: vars(file)[EAGER] for file in files if EAGER in vars(file)}

    def listened(function: Callable[..., Any]) -> Callable[..., Any]:
        def attend(owner: Any, query: Any, key: Any, value: Any, *rest: Any, **more: Any) -> Any:
            result, weights = function(owner, query, key, value, *rest, **more)
            q, k, v, z = (one.clone() for one in (query, key, value, result))
            run.calls.append(Call(next(run.clock), names.get(id(owner), ""), q, k, v, z, weights))
            return result, weights

        return attend

    for file, function in functions.items():
        setattr(file, EAGER, listened(function))
    try:
        yield
    finally:
        for file, function in functions.items():
            setattr(file, EAGER, function)

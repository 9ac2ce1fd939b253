"""A family's row, found in one run of a small copy of the model.

    row = derived(module)       # Family(layers="model.layers", attention="self_attn", ...)

Names are not looked at, values are: blocks are the list whose members attend; the projection is the
module that is given what attention computed, head beside head; what joins the residual stream are
the two outputs whose sum is a block's step; the final norm is given what the last block gives. What
is found is a guess all the same until `proof` has held it against the model.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from nnheads.errors import ModelError
from nnheads.models.families import Family
from nnheads.models.recorded import Call, Run, recorded

CLOSE = 1e-5  # of the largest part of a step: so far apart may a sum in another order be
LINEAR = (torch.nn.Linear, Conv1D)
Step = tuple[str, str]  # the names of what attention adds, and of what the MLP adds


class Underivable(ModelError):
    """A model whose parts are not found; the text says which."""


@dataclass(frozen=True)
class Block:
    """Where one block keeps its parts, by names below it; of those that serve, shallowest first."""

    attention: str
    projections: list[str]
    steps: list[Step]
    reads: dict[str, str]  # a module -> that whose output it is given


def derived(module: Any) -> Family:
    """Return the row of a causal language model that computes attention eagerly.

    Raises:
        Underivable: no attention function is called, or not in each block of one list once; blocks
            that differ; a projection, a step, a norm, an embedding that is not found.
    """
    words = module.config.get_text_config().vocab_size
    run = recorded(module, {"input_ids": torch.arange(3, min(13, words)).unsqueeze(0)})
    layers, blocks = _blocks(module, run)
    found = [_block(module, run, f"{layers}.{number}", call) for number, call in enumerate(blocks)]
    attention = _common([[one.attention] for one in found], "place of attention")
    projection = _common([one.projections for one in found], "output projection of the heads")
    adds = _common([one.steps for one in found], "two outputs whose sum is a block's step")
    first = module.get_submodule(f"{layers}.0")
    mlp = found[0].reads.get(adds[1], adds[1]) if _is_norm(first, adds[1]) else adds[1]
    return Family(
        layers=layers,
        attention=attention,
        projection=projection,
        mlp=mlp,
        embedding=_name(module, module.get_input_embeddings(), "embedding"),
        final_norm=_final_norm(run, f"{layers}.{len(blocks) - 1}"),
        unembedding=_name(module, module.get_output_embeddings(), "unembedding"),
        attention_adds=None if adds[0] == attention else adds[0],
        mlp_adds=None if adds[1] == mlp else adds[1],
        neurons=_neurons(
            module, run, [f"{layers}.{number}.{mlp}" for number in range(len(blocks))]
        ),
        post_norm=adds[0] if _is_norm(first, adds[0]) else None,
        tuple_block=run.outputs[f"{layers}.0"][0].among,
        position_ids="position_ids" in inspect.signature(module.forward).parameters,
    )


def _blocks(module: Any, run: Run) -> tuple[str, list[Call]]:
    """Return the list of blocks, and the one call of attention of each."""
    found: dict[str, dict[int, list[Call]]] = {}
    for call in run.calls:
        layers, number = _member(module, call.owner)
        found.setdefault(layers, {}).setdefault(number, []).append(call)
    if not found:
        raise Underivable("no attention goes through transformers' attention interface")
    if len(found) > 1:
        raise Underivable(f"attention is in several lists of blocks: {', '.join(sorted(found))}")
    layers, calls = next(iter(found.items()))
    total = len(module.get_submodule(layers))
    if len(calls) < total:
        raise Underivable(f"only {len(calls)} of {total} blocks attend")
    if any(len(own) > 1 for own in calls.values()):
        raise Underivable("a block attends more than once")
    return layers, [calls[number][0] for number in range(total)]


def _member(module: Any, name: str) -> tuple[str, int]:
    """Return the innermost list that a module is in, and its number there."""
    parts = name.split(".")
    for depth in range(len(parts) - 1, 0, -1):
        head = ".".join(parts[:depth])
        if parts[depth].isdigit() and isinstance(module.get_submodule(head), torch.nn.ModuleList):
            return head, int(parts[depth])
    raise Underivable(f"attention of {name or 'no module'} is in no list of blocks")


def _block(module: Any, run: Run, block: str, call: Call) -> Block:
    """Return the parts of one block."""
    inside = f"{block}."
    flat, step = call.result.flatten(2), run.gave(block) - run.given(block)
    given = {
        name.removeprefix(inside): seen[0].value
        for name, seen in run.inputs.items()
        if name.startswith(inside)
    }
    gave = {
        name.removeprefix(inside): seen[0]
        for name, seen in run.outputs.items()
        if name.startswith(inside) and seen[0].value.shape == step.shape
    }
    projections = [
        name
        for name, value in given.items()
        if _same(value, flat) and isinstance(module.get_submodule(inside + name), LINEAR)
    ]
    reads = {
        reader: name
        for reader, name in itertools.permutations(gave, 2)
        if reader in given and "." not in reader + name and _same(given[reader], gave[name].value)
    }
    in_order = sorted(gave, key=lambda name: (name.count("."), gave[name].when))
    close = CLOSE * float(step.abs().max())
    steps = [
        (first, second)
        for first, second in itertools.permutations(in_order, 2)
        if gave[first].when < gave[second].when
        and torch.allclose(gave[first].value + gave[second].value, step, rtol=0, atol=close)
    ]
    attention = call.owner.removeprefix(inside)
    return Block(attention, sorted(projections, key=_depth), steps, reads)


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


def _depth(name: str) -> int:
    return name.count(".")


def _is_norm(block: Any, name: str) -> bool:
    """Return whether a module only scales what it is given: it has no matrix, and no parts."""
    part = block.get_submodule(name)
    return not list(part.children()) and all(one.dim() < 2 for one in part.parameters())


def _common(choices: Sequence[Sequence[Any]], what: str) -> Any:
    """Return the first choice that all blocks have."""
    if not all(choices):
        raise Underivable(f"a block has no {what}")
    for choice in choices[0]:
        if all(choice in other for other in choices):
            return choice
    raise Underivable(f"blocks differ in their {what}")


def _name(module: Any, part: Any, what: str) -> str:
    for name, one in module.named_modules():
        if one is part:
            return str(name)
    raise Underivable(f"it has no {what}")


def _final_norm(run: Run, last: str) -> str:
    """Return the module that is given what the last block gives."""
    end = run.outputs[last][0]
    for name, seen in run.inputs.items():
        if seen[0].when > end.when and _same(seen[0].value, end.value):
            return name
    raise Underivable("nothing reads what the last block gives")


def _neurons(module: Any, run: Run, mlps: Sequence[str]) -> str | None:
    """Return the linear map of every MLP, the same in each, whose input are its neurons."""
    choices = []
    for mlp in mlps:
        inside = f"{mlp}."
        last = [name for name in run.outputs if name.startswith(inside)]
        alike = [name for name in last if _same(run.gave(name), run.gave(mlp))]
        maps = [name for name in alike if isinstance(module.get_submodule(name), LINEAR)]
        choices.append([f"{mlp.rpartition('.')[2]}.{name.removeprefix(inside)}" for name in maps])
    same = [one for one in choices[0] if all(one in other for other in choices)]
    return same[0] if same else None

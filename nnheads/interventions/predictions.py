"""What a network answers to counterfactual pairs with an intervention in place.

Through hooks, or through a trace where hooks do not reach and on other machines. What edits take
from sources that nothing trained acts on can be read once (`read_sources`) and used at every step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int

from nnheads.errors import BadInput
from nnheads.interventions.apply import run
from nnheads.interventions.beginnings import Beginning, beginning
from nnheads.interventions.calls import Call
from nnheads.interventions.counterfactuals import Pairs, taken
from nnheads.interventions.module import Taken, as_module
from nnheads.interventions.ordering import KERNEL
from nnheads.interventions.positions import prompt_lengths, roles_of
from nnheads.interventions.schema import Intervention
from nnheads.models.inputs import inputs
from nnheads.trace.session import remote_of


@dataclass(frozen=True, eq=False)
class SourceFeatures:
    """What edits take from source runs, the same at every step of a training.

    Args:
        taken: number of the edit -> features [row, chosen position, feature], positions [row,
            chosen position] in the source, -1 for none.
        begun: of the base prompts, what stands before the first edit, if it was read.
    """

    taken: Taken
    begun: Beginning | None = None

    def rows(self, chosen: Int[np.ndarray, " row"]) -> SourceFeatures:
        """Return those of some pairs, with as many positions as one of them has."""
        return SourceFeatures(
            {
                number: _rows_of(features, positions, torch.from_numpy(chosen))
                for number, (features, positions) in self.taken.items()
            },
            None if self.begun is None else self.begun.rows(chosen),
        )


def _rows_of(
    features: torch.Tensor, positions: torch.Tensor, chosen: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    where = positions[chosen.to(positions.device)]
    width = max(1, int((where >= 0).sum(1).max()))
    return features[chosen.to(features.device)][:, :width], where[:, :width]


def predicted(
    model: Any, intervention: Intervention, pairs: Pairs, known: SourceFeatures | None = None
) -> Float[torch.Tensor, "row answer"]:
    """Return the logits of the answers with the intervention in place.

    Args:
        known: what the edits take from the sources, if it was read before.

    Raises:
        BadInput: tensors where prompts are needed, answers that the output does not have.
    """
    if by_trace(model, intervention):
        output = _by_trace(model, intervention, pairs)
    else:
        output = _by_hooks(model, intervention, pairs, known)
    logits = output[:, -1] if output.dim() == 3 else output
    low, high = int(pairs.answer.min()), int(pairs.answer.max())
    if logits.dim() != 2 or low < 0 or high >= logits.shape[-1]:
        raise BadInput(
            f"answers {low} to {high} do not go with an output of shape {tuple(output.shape)};"
            " expected [row, answer]"
        )
    return logits


def by_trace(model: Any, intervention: Intervention) -> bool:
    """Return whether this takes a trace: hooks reach neither into the kernel nor elsewhere."""
    return bool(remote_of(model)) or any(edit.site in KERNEL for edit in intervention.edits)


def _by_trace(model: Any, intervention: Intervention, pairs: Pairs) -> torch.Tensor:
    if not isinstance(pairs.base, xr.Dataset):
        raise BadInput("this needs prompts as datasets; tensors are for modules that run here")
    result = run(model, intervention, pairs.base, pairs.sources, original=False, keep=1)
    assert result.edited is not None, "it was asked for"
    return result.edited


def _by_hooks(
    model: Any, intervention: Intervention, pairs: Pairs, known: SourceFeatures | None
) -> torch.Tensor:
    module, base = as_module(model, intervention), module_inputs(model, pairs.base)
    if known is None:
        sources = [module_inputs(model, source) for source in pairs.sources]
        arguments, options = ((), base) if isinstance(base, dict) else ((base,), {})
        output = module(*arguments, **options, sources=sources)
    else:
        if known.begun is not None and isinstance(base, dict):
            base = known.begun.behind(base)
        output = module.with_known(Call.of(base), known.taken)
    logits: Any = getattr(output, "logits", output[0] if isinstance(output, tuple) else output)
    return logits


def read_sources(
    model: Any, intervention: Intervention, pairs: Pairs, batch_size: int = 64
) -> SourceFeatures | None:
    """Run every source once, and what is never changed of the base, for all steps of a training.

    Returns:
        None where the sources change from step to step (each of several in serial mode runs with
        the one before it in place) or where hooks do not reach.
    """
    changing = intervention.mode == "serial" and intervention.sources > 1
    if by_trace(model, intervention) or changing:
        return None
    batches = [
        _read_batch(model, intervention, pairs, rows) for rows in batches_of(len(pairs), batch_size)
    ]
    known = {}
    for number in batches[0]:
        features, positions = zip(*(batch[number] for batch in batches))
        known[number] = (_joined(features, 0), _joined(positions, -1))
    with torch.no_grad(), frozen(model):
        begun = beginning(model, intervention, pairs.base, batch_size)
    return SourceFeatures(known, begun)


def batches_of(total: int, size: int) -> list[Int[np.ndarray, " row"]]:
    """Return the numbers of so many rows, in batches."""
    return [np.arange(first, min(first + size, total)) for first in range(0, total, size)]


def _read_batch(
    model: Any, intervention: Intervention, pairs: Pairs, rows: Int[np.ndarray, " row"]
) -> Taken:
    module = as_module(model, intervention)
    read: Taken = {}
    for number, source in enumerate(pairs.sources):
        call = Call.of(module_inputs(model, taken(source, rows)))
        with torch.no_grad(), frozen(model), module.reads(call, number, read):
            module.module(*call.inputs, **call.options)
    return read


def _joined(parts: Sequence[torch.Tensor], fill: int) -> torch.Tensor:
    """Return batches [row, chosen, ...] as one, filled up to as many positions as any has."""
    width = max(part.shape[1] for part in parts)
    filled = []
    for part in parts:
        rest = part.new_full((len(part), width - part.shape[1], *part.shape[2:]), fill)
        filled.append(torch.cat([part, rest], 1))
    return torch.cat(filled)


def module_inputs(model: Any, prompts: xr.Dataset | torch.Tensor) -> dict[str, Any] | torch.Tensor:
    """Return what a hooked module takes: a tensor as it is, prompts as keywords on its device."""
    if not isinstance(prompts, xr.Dataset):
        return prompts
    device = next(model._module.parameters()).device
    tensors = {name: tensor.to(device) for name, tensor in inputs(model, prompts).items()}
    labels = {"roles": roles_of(prompts), "prompt_length": prompt_lengths(prompts)}
    return {**tensors, "use_cache": False, "logits_to_keep": 1, **labels}


@contextlib.contextmanager
def frozen(model: Any) -> Iterator[None]:
    """Let a network take no gradients and drop nothing out; as it was afterwards."""
    module = getattr(model, "_module", model)
    learning = [weight for weight in module.parameters() if weight.requires_grad]
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    for weight in learning:
        weight.requires_grad_(False)
    find = getattr(module, "get_output_embeddings", None)
    unembedding = find() if find else None
    hook = unembedding.register_forward_pre_hook(_rows_together) if unembedding else None
    try:
        yield
    finally:
        if hook:
            hook.remove()
        for weight in learning:
            weight.requires_grad_(True)
        for part, mode in modes:
            part.training = mode


def _rows_together(module: torch.nn.Module, arguments: tuple) -> tuple:
    """Hand a module its input as one piece of memory.

    The last token of each row is a view with gaps. torch multiplies such a view with a weight that
    takes no gradient row by row, and reads the whole vocabulary for each.
    """
    return tuple(one.contiguous() if torch.is_tensor(one) else one for one in arguments)

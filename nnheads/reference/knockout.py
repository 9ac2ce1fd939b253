"""What the reference model loses when heads are silenced: mean ablation with forward hooks."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from transformers import PreTrainedModel

from nnheads.reference import trials as prompts

Head = tuple[int, int]
TASKS = ("repeat", "parity", "needle", "ioi")


@contextmanager
def head_outputs(model: PreTrainedModel) -> Iterator[list[torch.Tensor]]:
    """Collect every layer's head outputs z [batch, position, head, dim], the input of o_proj."""
    found: list[torch.Tensor] = []
    size = model.config.head_dim

    def keep(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        found.append(inputs[0].detach().unflatten(-1, (-1, size)))

    with ExitStack() as stack:
        for layer in model.model.layers:
            stack.callback(layer.self_attn.o_proj.register_forward_pre_hook(keep).remove)
        yield found


@contextmanager
def silenced(model: PreTrainedModel, heads: list[Head], means: torch.Tensor) -> Iterator[None]:
    """Replace the outputs of some heads by their means [layer, head, dim]."""
    size = model.config.head_dim

    def hook_for(layer: int) -> Callable:
        def replace(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
            z = inputs[0].unflatten(-1, (-1, size)).clone()
            for other, head in heads:
                if other == layer:
                    z[:, :, head] = means[layer, head]
            return (z.flatten(-2),)

        return replace

    with ExitStack() as stack:
        for index in {layer for layer, _ in heads}:
            o_proj = model.model.layers[index].self_attn.o_proj
            stack.callback(o_proj.register_forward_pre_hook(hook_for(index)).remove)
        yield


@torch.no_grad()
def means_of(model: PreTrainedModel, tokens: torch.Tensor) -> torch.Tensor:
    """Return every head's output, averaged over prompts and positions: [layer, head, dim]."""
    with head_outputs(model) as found:
        model(tokens)
    return torch.stack([z.mean((0, 1)) for z in found])


@torch.no_grad()
def share_correct(model: PreTrainedModel, batch: prompts.Batch) -> float:
    """Return the share of the answer positions at which the right token has the largest logit."""
    predicted = model(batch.tokens).logits.argmax(-1)[:, :-1]
    return (predicted == batch.tokens[:, 1:])[batch.answers[:, 1:]].float().mean().item()


@torch.no_grad()
def logit_difference(model: PreTrainedModel, sentences: prompts.People) -> torch.Tensor:
    """Return receiver minus subject at the last position, one value per sentence."""
    logits = torch.cat([model(tokens).logits[:, -1] for tokens, _, _ in sentences.groups()])
    receiver = torch.cat([receiver for _, receiver, _ in sentences.groups()])
    subject = torch.cat([subject for _, _, subject in sentences.groups()])
    return (logits.gather(1, receiver[:, None]) - logits.gather(1, subject[:, None]))[:, 0]


class Knockouts:
    """The four tasks, their prompts and mean outputs; call with heads to silence."""

    def __init__(self, model: PreTrainedModel, *, seed: int = 0, size: int = 16) -> None:
        rng = random.Random(seed)
        self.model = model
        self.batches = {
            "repeat": prompts.repeated(rng, 50, size),
            "parity": prompts.states(rng, "parity", 16, 2 * size),
            "needle": prompts.needles(rng, 256, size),
        }
        self.people = prompts.people(rng, 4 * size, held_out=False)
        self.means = {task: means_of(model, batch.tokens) for task, batch in self.batches.items()}
        outputs = [means_of(model, tokens) for tokens, _, _ in self.people.groups()]
        self.means["ioi"] = torch.stack(outputs).mean(0)

    def __call__(self, heads: list[Head], tasks: tuple[str, ...] = TASKS) -> dict[str, float]:
        """Return accuracy on repeat, parity and needle and mean logit difference on ioi without
        these heads.
        """
        found = {}
        for task in tasks:
            with silenced(self.model, heads, self.means[task]):
                if task == "ioi":
                    found[task] = logit_difference(self.model, self.people).mean().item()
                else:
                    found[task] = share_correct(self.model, self.batches[task])
        return found

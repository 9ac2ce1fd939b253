"""Random models whose norms have gains and biases of their own: fresh ones have gain 1 and bias 0,
and a formula that forgets them would pass."""

from __future__ import annotations

import functools

import torch
from random_models import build, words_tokenizer

from nnheads.models.families import FAMILIES


@functools.cache
def uneven(model_type: str, **changes):
    """(nnsight model, the same plain Hugging Face module), built once per process."""
    module = build(model_type, **changes)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return wrapped(module, model_type), module


def wrapped(module, model_type: str):
    from nnsight import TransformersModel

    return TransformersModel(
        module, tokenizer=words_tokenizer(), rename=FAMILIES[model_type].rename()
    )


def output_weight(projection) -> torch.Tensor:
    """W_O as rows of z: [width, d_model]. GPT-2's Conv1D keeps it the other way round."""
    return projection.weight.T if isinstance(projection, torch.nn.Linear) else projection.weight


def gain(norm) -> torch.Tensor:
    return 1 + norm.weight if type(norm).__name__.startswith("Gemma") else norm.weight


def centres(norm) -> bool:
    return "RMS" not in type(norm).__name__


def held(norm, x: torch.Tensor, ran: torch.Tensor) -> torch.Tensor:
    """A norm of `x` without its bias, centred if it centres, with the scale it had for `ran`."""
    epsilon = getattr(norm, "eps", None) or norm.variance_epsilon
    if centres(norm):
        x, ran = x - x.mean(-1, keepdim=True), ran - ran.mean(-1, keepdim=True)
    scale = (ran.pow(2).mean(-1) + epsilon).rsqrt()
    return x * gain(norm) * scale.reshape(*scale.shape, *([1] * (x.dim() - scale.dim())))

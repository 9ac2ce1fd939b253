"""Muon: momentum whose matrix is replaced by the nearest one with equal singular values.

The step for a weight matrix is U V^T of its momentum's singular value decomposition, approximated
by five Newton-Schulz steps (an odd polynomial that pushes every singular value towards one). Keller
Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024. The update's scale
    follows Liu et al.,
"Muon is Scalable for LLM Training", 2025.
"""

from __future__ import annotations

import torch

# The odd quintic a x + b x^3 + c x^5 with the steepest slope at zero that keeps (0, 1] near one.
QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Push all singular values of a stack of wide matrices towards one."""
    a, b, c = QUINTIC
    x = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x


class Muon:
    """Muon over weight matrices; those of one shape are orthogonalised in one batch."""

    def __init__(
        self, parameters: list[torch.nn.Parameter], *, momentum: float = 0.95, decay: float = 0.03
    ) -> None:
        self.momentum, self.decay = momentum, decay
        self.groups: dict[tuple[int, int], list[torch.nn.Parameter]] = {}
        for parameter in parameters:
            small, large = sorted(parameter.shape)
            self.groups.setdefault((small, large), []).append(parameter)
        self.buffers = {
            shape: torch.zeros(len(group), *shape) for shape, group in self.groups.items()
        }

    @torch.no_grad()
    def step(self, rate: float) -> None:
        for shape, group in self.groups.items():
            gradients = torch.stack(
                [_wide(parameter.grad) for parameter in group if parameter.grad is not None]
            )
            buffer = self.buffers[shape]
            buffer.lerp_(gradients, 1 - self.momentum)
            # Nesterov: look one momentum step ahead.
            updates = orthogonalise(torch.lerp(gradients, buffer, self.momentum))
            for parameter, update in zip(group, updates, strict=True):
                parameter.mul_(1 - rate * self.decay)
                scale = 0.2 * max(shape) ** 0.5
                turned = update if parameter.shape[0] <= parameter.shape[1] else update.mT
                parameter.sub_(turned, alpha=rate * scale)


def _wide(matrix: torch.Tensor) -> torch.Tensor:
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT

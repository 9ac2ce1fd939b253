"""Logistic probes on head outputs, all heads at once."""

from __future__ import annotations

import torch


def probe_accuracies(outputs: torch.Tensor, penalty: float = 1.0, steps: int = 12) -> torch.Tensor:
    """Held-out accuracy of logistic probes, [layer, head]; outputs are [kind, layer, question, head, dim].

    All probes are fitted at once by Newton's method with an L2 penalty on standardised outputs.
    """
    true, false = outputs.transpose(2, 3).flatten(1, 2).double()
    folds, right = torch.arange(true.shape[1]) % 4, []
    for fold in range(4):
        train, test = (torch.cat([true[:, part], false[:, part]], 1) for part in (folds != fold, folds == fold))
        mean, spread = train.mean(1, keepdim=True), train.std(1, keepdim=True) + 1e-9
        train, test = (_with_constant((part - mean) / spread) for part in (train, test))
        wanted = (torch.arange(train.shape[1]) < train.shape[1] // 2).double()
        weights = torch.zeros(len(train), train.shape[2], 1, dtype=torch.double)
        ridge = penalty * torch.eye(train.shape[2], dtype=torch.double)
        for _ in range(steps):
            likely = (train @ weights).sigmoid()
            slope = train.mT @ (likely - wanted[:, None]) + penalty * weights
            curvature = train.mT @ (likely * (1 - likely) * train) + ridge
            weights = weights - torch.linalg.solve(curvature, slope)
        is_true = torch.arange(test.shape[1]) < test.shape[1] // 2
        right.append(((test @ weights)[..., 0] > 0) == is_true)
    return torch.cat(right, 1).float().mean(1).view(outputs.shape[1], outputs.shape[3])


def _with_constant(values: torch.Tensor) -> torch.Tensor:
    return torch.cat([values, torch.ones_like(values[..., :1])], -1)

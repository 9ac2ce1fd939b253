"""Logistic probes on head outputs, all heads at once."""

from __future__ import annotations

import torch

from nnheads.stats.logistic import fit

FOLDS = 4


def probe_accuracies(outputs: torch.Tensor, penalty: float = 1.0) -> torch.Tensor:
    """Return held-out accuracy of logistic probes, [layer, head]; outputs are [kind, layer,
    question, head, dim], true first.

    Question i is in fold i modulo 4, with both answers; outputs are standardised by the other
    folds.
    """
    true, false = outputs.transpose(2, 3).flatten(1, 2).double()
    folds, right = torch.arange(true.shape[1]) % FOLDS, []
    for fold in range(FOLDS):
        train, test = (
            torch.cat([true[:, part], false[:, part]], 1) for part in (folds != fold, folds == fold)
        )
        mean, spread = train.mean(1, keepdim=True), train.std(1, keepdim=True) + 1e-9
        is_true = torch.arange(train.shape[1]) < train.shape[1] // 2
        weight, intercept = fit((train - mean) / spread, is_true, penalty)
        says = (((test - mean) / spread) @ weight.unsqueeze(-1))[..., 0] + intercept.unsqueeze(1)
        right.append((says > 0) == (torch.arange(test.shape[1]) < test.shape[1] // 2))
    return torch.cat(right, 1).float().mean(1).view(outputs.shape[1], outputs.shape[3])

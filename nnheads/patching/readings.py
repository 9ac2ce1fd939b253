"""What a sweep reads: the answers' logits of every swapped run, the unchanged one and the source.

    readings = measure(model, prepare(model, prompts, cells, source="corrupted"))
    readings.swapped                                    # [cell, case, question, reading]

Raises RunError for logits that are not finite.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from nnheads.models.labels import check_finite
from nnheads.patching.prepared import PreparedSweep
from nnheads.trace.sweep import sweep

Values = Float[torch.Tensor, "*run case question reading"]


@dataclass(frozen=True)
class Readings:
    """Readings after each swap (first axis: cell), of the unchanged run and of the source.

    See `named` for what they are. questions: False where a case has fewer questions than others.
    """

    swapped: Values
    unchanged: Values
    source: Values | None
    questions: Bool[np.ndarray, "case question"]
    answers: int

    def named(self, values: Values) -> dict[str, torch.Tensor]:
        """Return readings by name.

        `logit` and, read from the whole vocabulary, `rank` [..., question, answer], `total`
        (log-sum-exp) and `divergence` from the unchanged run [..., question].
        """
        count = self.answers
        named = {"logit": values[..., :count]}
        if values.shape[-1] > count:
            named |= {
                "rank": values[..., count : 2 * count],
                "total": values[..., 2 * count],
                "divergence": values[..., 2 * count + 1],
            }
        return named


def measure(model, plan: PreparedSweep) -> Readings:
    """Run a prepared sweep: one session, so one job on a server too."""
    swapped, unchanged, source = sweep(model, plan.inputs, plan.source, plan.mix, plan.task)
    return collected(plan, swapped, unchanged, source)


def collected(
    plan: PreparedSweep, swapped: Values, unchanged: Values, source: Values | None
) -> Readings:
    """Return the readings of all cells: what no cell can change is the unchanged run's."""
    for values in (unchanged, source, swapped):
        if values is not None:
            check_finite(values, "the model's logits")
    every = unchanged.cpu().repeat(plan.cells.count, 1, 1, 1)
    every[torch.from_numpy(plan.order.kept)] = swapped.cpu()
    other = None if source is None else source.cpu()
    return Readings(every, unchanged.cpu(), other, plan.questions, plan.answers)


def of_one_run(plan: PreparedSweep, values: Values) -> Readings:
    """Return the readings of a single run, as metrics take them."""
    values = values.cpu()
    return Readings(values, values, None, plan.questions, plan.answers)

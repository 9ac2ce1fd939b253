"""Truthfulness heads: what they put out at the end of a statement tells whether it is true."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from nnheads.truth.activations import last_outputs
from nnheads.truth.folds import folds_of
from nnheads.truth.probes import scores_of

STIMULUS = "truth"
HEADLINE = "correct"
SOURCE = "Li et al. 2023, arXiv 2306.03341"
LEARNS = True  # a statement's values depend on the statements that the probes were fitted on


def truthfulness(
    model,
    prompts: xr.Dataset,
    *,
    batch_size: int = 16,
    parts: Path | None = None,
    quiet: bool = True,
) -> xr.Dataset:
    """Is a head's output at the last token of question and answer enough to judge answers to unseen
    questions?

    A logistic probe on each head is fitted on the training questions of each fold and asked about
    its test questions.

    Args:
        prompts: statements with folds (`nnheads.truth.folded_statements.truth`). Fewer than all of
            them are another question: probes learn from what they are given.
        parts: folder in which head outputs are kept for a later call.

    Returns:
        float32 (batch, layer, head): `correct` (headline; 1 where the probe that has not seen the
            question is right,
        else 0: the mean is held-out accuracy), `null` (the same for shuffled labels, in [0, 1]),
            `score` (decision
        value, positive where right); `decision` (also fold), what each fold's probe says.
        Coordinates: `label`, `question` (batch), `part` (batch, fold).

    Misleads: a probe finds whatever goes with truth in these answers: their length, negations,
        words that liars or experts use. Shuffled labels do not show that; an untrained model of the
        same shape does, and so do questions of another kind. That truth can be read from a head
        does not say that the model uses it: steer along it.
    Source: Li et al. 2023, arXiv 2306.03341 (inference-time intervention).
    """
    z = last_outputs(model, prompts, batch_size=batch_size, parts=parts, quiet=quiet)
    scores = scores_of(z, prompts, folds_of(prompts["question"].values, prompts["part"].values))
    scores = scores.drop_vars(["weight", "weight_standardised", "intercept"])
    about = {
        name: prompts.attrs[name] for name in ("num_heads", "template", "questions", "dropped")
    }
    return scores.assign_attrs(kind="truthfulness", **about)
